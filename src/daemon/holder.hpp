// The process that outlives the daemon. It holds the mount, /dev/fuse and the state that a daemon
// leaves to its successor (fuse/inheritance.hpp), and only passes them on, by fork. When the daemon
// is killed, it forks another; when daemons die repeatedly before they serve, or cannot take over,
// it unmounts and ends. It is the main process: the lock file has its pid, it forwards signals to
// the daemon, and it talks to the service manager. When it is killed, so is the daemon.
//
// Single-threaded, so that a fork copies it completely.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <sys/types.h>

#include <base/clock.hpp>
#include <base/fd.hpp>
#include <base/result.hpp>
#include <daemon/service.hpp>
#include <fuse/inheritance.hpp>
#include <fuse/mount.hpp>
#include <fuse/session.hpp>

namespace ipcfs::daemon {

struct Succession {
    const fuse::Mount* mount = nullptr;
    fuse::Inheritance* inheritance = nullptr;
};

class Holder {
public:
    // Mounts as a session of this configuration would, and maps the shared memory.
    static Result<std::unique_ptr<Holder>> make(const fuse::SessionConfig& config);

    ~Holder() {
        if (in_daemon_) mount_.leave();
    }
    Holder(const Holder&) = delete;
    Holder& operator=(const Holder&) = delete;

    // Forks the daemon, and a successor when it dies. Returns empty in each daemon; in the holder,
    // returns an exit code once everything is over and unmounted. Calls `ready` in the holder when
    // the first daemon serves.
    std::optional<int> run(ServiceManager& manager, const std::function<void()>& ready);

    // ---- called in the daemon
    Succession succession() const noexcept { return {&mount_, inheritance_.get()}; }
    // The socket to the holder. Call once.
    Fd take_line() noexcept { return std::move(line_); }
    // How the daemon before this one ended; empty in the first.
    const std::string& predecessor() const noexcept { return predecessor_; }
    // report_ready() tells the holder, through the socket `line`, that requests are served;
    // set_ending() that the daemon ends on purpose.
    static void report_ready(int line) noexcept;
    void set_ending() noexcept { inheritance_->set_ending(); }

    // ---- called in the holder, after run()

    // Why the holder ended, unless the daemon has reported it.
    const std::string& why() const noexcept { return why_; }

private:
    enum class Next { kRestart, kStop };
    static constexpr int kMaxFailures = 5;
    static constexpr Nanos kShortLife = 10 * kSecond;
    static constexpr Nanos kFirstPause = 100 * kMillisecond, kLongestPause = 5 * kSecond;

    Holder() = default;
    Result<pid_t> fork_daemon();
    void watch(pid_t daemon, ServiceManager& manager, const std::function<void()>& ready);
    void on_line(ServiceManager& manager, const std::function<void()>& ready);
    Next decide_restart(Nanos lived);
    bool wait_before_restart();
    void kick_queues();
    bool connection_is_over() const noexcept;

    fuse::Mount mount_;
    std::unique_ptr<fuse::Inheritance> inheritance_;
    std::string mountpoint_;
    Fd signals_;
    Fd line_;
    std::string predecessor_;
    std::string why_;

    bool in_daemon_ = false;
    int wait_status_ = 0;  // of the last daemon
    bool served_ = false;  // the current daemon has said that it is ready
    bool ever_served_ = false;
    int stop_signal_ = 0;  // SIGTERM or SIGINT, if received
    int failures_ = 0;     // in a row
    int exit_code_ = 0;
};

}  // namespace ipcfs::daemon
