// Where the daemon's log lines go: stderr, a rotating file, or the journal (spdlog sinks behind
// base/log.hpp). Any thread writes; reconfigure() may run beside writers.
#pragma once

#include <memory>

#include <base/guarded.hpp>
#include <base/log.hpp>
#include <base/result.hpp>
#include <daemon/config.hpp>

namespace spdlog {
class logger;
}

namespace ipcfs::daemon {

// What "auto" comes to depends on how the daemon was started.
struct LogPlace {
    bool background = false;  // stderr will be gone
    std::string state;        // the state directory, for the file of last resort
};

// kAuto becomes: the file when one is named; the journal when stderr is connected to it; stderr in
// the foreground; in the background the journal when there is one, or else STATE/ipcfsd.log.
LogConfig resolve_log(LogConfig config, const LogPlace& place);

// True when this build and machine can write to the journal.
bool journal_available();

class DaemonLogger final : public Logger {
public:
    // Opens the target. The fault of a target that cannot be opened is returned, not logged.
    static Result<std::unique_ptr<DaemonLogger>> open(const LogConfig& config,
                                                      const LogPlace& place);
    ~DaemonLogger() override;

    // Changes level and target. On a fault the old ones stay.
    Result<void> reconfigure(const LogConfig& config, const LogPlace& place);

    // What is in use, resolved.
    LogConfig current() const;

protected:
    void emit(Level level, std::string_view line) noexcept override;

private:
    DaemonLogger() = default;

    struct Target {
        std::shared_ptr<spdlog::logger> logger;
        LogConfig config;
    };
    Guarded<Target> target_;
};

}  // namespace ipcfs::daemon
