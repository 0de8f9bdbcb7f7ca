// The process that outlives the daemon: it has the mount, /dev/fuse and what a daemon leaves to the next
// one (fuse/inheritance.hpp), and does nothing with them but pass them on, by fork. When the daemon is
// killed it forks another; when that dies again and again before it serves, or cannot take over, it
// takes the mount off and ends. It is the main process: its pid is in the lock file, signals come to it
// and go on to the daemon, and it speaks to the service manager. When it is killed, so is the daemon.
//
// Single-threaded, so that what it forks is whole.
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

// What a daemon is given by its holder.
struct Succession {
    const fuse::Mount* mount = nullptr;
    fuse::Inheritance* inheritance = nullptr;
};

class Holder {
public:
    // Mounts, as a session of this configuration would, and maps what is passed on.
    static Result<std::unique_ptr<Holder>> make(const fuse::SessionConfig& config);

    ~Holder() {
        if (in_daemon_) mount_.leave();
    }
    Holder(const Holder&) = delete;
    Holder& operator=(const Holder&) = delete;

    // Forks the daemon, and another when it dies. Returns in each daemon, empty; and in the holder with
    // an exit code, when all is over and unmounted. `ready` is called in the holder when the first
    // daemon serves.
    std::optional<int> run(ServiceManager& manager, const std::function<void()>& ready);

    // ---- in the daemon
    Succession succession() const noexcept { return {&mount_, inheritance_.get()}; }
    // The end of the line to the holder; once.
    Fd take_line() noexcept { return std::move(line_); }
    // How the daemon before this one ended; empty in the first.
    const std::string& predecessor() const noexcept { return predecessor_; }
    // Tells the holder that requests are served (on the line), and that the end is meant.
    static void say_ready(int line) noexcept;
    void say_ending() noexcept { inheritance_->say_ending(); }

    // ---- in the holder, after run()
    // Why it ended, where that was not for the daemon to say.
    const std::string& why() const noexcept { return why_; }

private:
    enum class Next { kAgain, kOver };
    static constexpr int kMostFailures = 5;
    static constexpr Nanos kShortLife = 10 * kSecond;
    static constexpr Nanos kFirstPause = 100 * kMillisecond, kLongestPause = 5 * kSecond;

    Holder() = default;
    Result<pid_t> fork_daemon();
    void watch(pid_t daemon, ServiceManager& manager, const std::function<void()>& ready);
    void on_line(ServiceManager& manager, const std::function<void()>& ready);
    Next judge(Nanos lived);
    bool pause();
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
    int wait_status_ = 0;  // of the daemon that ended last
    bool served_ = false;  // it said that it was ready
    bool ever_served_ = false;
    int stop_signal_ = 0;  // the holder was told to end
    int failures_ = 0;     // in a row
    int exit_code_ = 0;
};

}  // namespace ipcfs::daemon
