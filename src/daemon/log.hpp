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

// What the target "auto" depends on.
struct LogPlace {
    bool background = false;  // stderr will be closed
    std::string state;        // the state directory, for the fallback log file
};

// Resolves kAuto: to the file if one is named; to the journal if stderr is connected to it; in the
// foreground to stderr; in the background to the journal if there is one, else to STATE/ipcfsd.log.
LogConfig resolve_log(LogConfig config, const LogPlace& place);

// Whether this build and machine can write to the journal.
bool journal_available();

class DaemonLogger final : public Logger {
public:
    // Opens the target. A fault is returned, not logged.
    static Result<std::unique_ptr<DaemonLogger>> open(const LogConfig& config,
                                                      const LogPlace& place);
    ~DaemonLogger() override;

    // Changes level and target. On a fault, the old ones stay.
    Result<void> reconfigure(const LogConfig& config, const LogPlace& place);

    // The resolved configuration in use.
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
