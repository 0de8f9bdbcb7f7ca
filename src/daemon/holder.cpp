// Runs in the holder, and in forked daemons until run() returns there.
#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include <daemon/holder.hpp>
#include <daemon/options.hpp>
#include <fuse/probe.hpp>

namespace ipcfs::daemon {
namespace {

constexpr char kReady = 'R';   // message to the holder: the daemon serves
constexpr char kNotify = 'S';  // message prefix: the rest is for the service manager
constexpr std::size_t kMaxMessage = 4096;

sigset_t handled_signals() {
    sigset_t set;
    sigemptyset(&set);
    for (int signal : {SIGTERM, SIGINT, SIGHUP, SIGCHLD}) sigaddset(&set, signal);
    return set;
}

std::string describe(int wait_status) {
    if (WIFSIGNALED(wait_status)) {
        const int signal = WTERMSIG(wait_status);
        return "was killed by signal " + std::to_string(signal) + " (" + strsignal(signal) + ")";
    }
    return "ended with exit code " + std::to_string(WEXITSTATUS(wait_status));
}

// Makes the kernel hand out requests that arrived while no daemon ran. The kernel queues them by
// CPU and hands out one for each reply on that CPU's queue. So this process calls statfs on each
// CPU until that brings no other requests. It visits the CPUs in turn, because busy clients look
// like queued requests. It is a process of its own since it waits for the daemon.
[[noreturn]] void kick(const std::string& mountpoint, fuse::Inheritance& inheritance,
                       pid_t holder) {
    prctl(PR_SET_NAME, "ipcfs-kick");
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != holder) _exit(0);
    syscall(SYS_close_range, 3U, ~0U, 0U);
    constexpr int kMaxRounds = 50'000, kQuiet = 3;
    constexpr useconds_t kGap = 300;
    struct Queue {
        unsigned cpu;
        int quiet;
        std::uint64_t before;
    };
    std::vector<Queue> queues;
    for (unsigned cpu = 0; cpu < fuse::possible_cpus(); ++cpu) queues.push_back({cpu, 0, 0});
    const std::uint64_t life = inheritance.life();
    // A later daemon starts its own process.
    for (int i = 0; i < kMaxRounds && !queues.empty() && inheritance.life() == life; ++i) {
        for (Queue& queue : queues) {
            queue.before = inheritance.fetched(queue.cpu).load();
            cpu_set_t here;
            CPU_ZERO(&here);
            CPU_SET(queue.cpu, &here);
            // If this process may not run on a CPU, neither may the clients: its queue stays empty.
            if (sched_setaffinity(0, sizeof here, &here) != 0) continue;
            struct statfs about {};
            statfs(mountpoint.c_str(), &about);
        }
        usleep(kGap);
        for (Queue& queue : queues) {
            const bool brought = inheritance.fetched(queue.cpu).load() - queue.before > 1;
            queue.quiet = brought ? 0 : queue.quiet + 1;
        }
        std::erase_if(queues, [](const Queue& queue) { return queue.quiet == kQuiet; });
    }
    _exit(0);
}

}  // namespace

Result<std::unique_ptr<Holder>> Holder::make(const fuse::SessionConfig& config) {
    std::unique_ptr<Holder> made(new Holder);
    auto inheritance = fuse::Inheritance::make(fuse::Session::ring_bytes(config));
    if (!inheritance) return inheritance.error();
    made->inheritance_ = std::move(*inheritance);
    auto mount = fuse::Mount::make({config.mountpoint, config.allow_other, config.max_write});
    if (!mount) return mount.error();
    made->mount_ = std::move(*mount);
    made->mountpoint_ = config.mountpoint;
    return made;
}

void Holder::report_ready(int line) noexcept {
    while (send(line, &kReady, 1, MSG_NOSIGNAL) < 0 && errno == EINTR) {
    }
}

// Returns the child's pid; 0 in the child.
Result<pid_t> Holder::fork_daemon() {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) {
        return errno_fault("create the socket to the daemon");
    }
    Fd ours(pair[0]), theirs(pair[1]);
    inheritance_->begin_life();
    const pid_t holder = getpid();
    const pid_t child = fork();
    if (child < 0) return errno_fault("fork the daemon");
    if (child > 0) {
        line_ = std::move(ours);
        return {boost::system::in_place_value, child};
    }
    in_daemon_ = true;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != holder) _exit(kExitFailed);
    // A process group of its own: signals of the terminal reach the daemon through the holder.
    setpgid(0, 0);
    signals_.reset();
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    line_ = std::move(theirs);
    return {boost::system::in_place_value, 0};
}

std::optional<int> Holder::run(ServiceManager& manager, const std::function<void()>& ready) {
    prctl(PR_SET_NAME, "ipcfsd-holder");
    const sigset_t handled = handled_signals();
    sigprocmask(SIG_BLOCK, &handled, nullptr);
    signals_.reset(signalfd(-1, &handled, SFD_CLOEXEC | SFD_NONBLOCK));
    SystemClock clock;
    for (;;) {
        auto daemon = fork_daemon();
        if (!daemon) {
            why_ = daemon.error().message();
            exit_code_ = kExitFailed;
            break;
        }
        if (*daemon == 0) {
            prctl(PR_SET_NAME, "ipcfsd");
            return std::nullopt;
        }
        served_ = false;
        const Nanos born = clock.monotonic();
        watch(*daemon, manager, ready);
        if (decide_restart(clock.monotonic() - born) == Next::kStop) break;
        predecessor_ = "pid " + std::to_string(*daemon) + ' ' + describe(wait_status_);
        manager.status("the daemon " + describe(wait_status_) + ": starting another");
        if (!wait_before_restart()) break;
    }
    mount_.unmount();
    return exit_code_;
}

// Forwards signals and handles messages until the daemon has ended.
void Holder::watch(pid_t daemon, ServiceManager& manager, const std::function<void()>& ready) {
    if (stop_signal_) ::kill(daemon, stop_signal_);
    for (;;) {
        pollfd both[2] = {{signals_.get(), POLLIN, 0}, {line_.get(), POLLIN, 0}};
        if (poll(both, 2, -1) < 0 && errno != EINTR) return;
        if (both[1].revents) on_line(manager, ready);
        signalfd_siginfo info{};
        while (read(signals_.get(), &info, sizeof info) == sizeof info) {
            const int signal = static_cast<int>(info.ssi_signo);
            if (signal != SIGCHLD) {
                if (signal != SIGHUP) stop_signal_ = signal;
                ::kill(daemon, signal);
            }
        }
        int status = 0;
        for (pid_t gone; (gone = waitpid(-1, &status, WNOHANG)) > 0;) {
            if (gone != daemon) continue;
            if (line_) on_line(manager, ready);  // messages sent before it died
            line_.reset();
            wait_status_ = status;
            return;
        }
    }
}

void Holder::on_line(ServiceManager& manager, const std::function<void()>& ready) {
    char word[kMaxMessage];
    for (;;) {
        const ssize_t size = recv(line_.get(), word, sizeof word, MSG_DONTWAIT);
        if (size < 0 && errno == EINTR) continue;
        if (size < 0) return;
        if (size == 0) {
            line_.reset();  // poll ignores it from now on
            return;
        }
        const std::string_view text(word, static_cast<std::size_t>(size));
        if (text[0] == kNotify) {
            manager.relay(text.substr(1));
        } else if (text[0] == kReady && !std::exchange(served_, true)) {
            if (!std::exchange(ever_served_, true)) ready();
            if (inheritance_->life() > 1 && inheritance_->rings()) kick_queues();
        }
    }
}

void Holder::kick_queues() {
    const pid_t holder = getpid();
    if (fork() == 0) kick(mountpoint_, *inheritance_, holder);
}

bool Holder::connection_is_over() const noexcept {
    pollfd device{mount_.device().get(), 0, 0};
    return poll(&device, 1, 0) > 0 && (device.revents & POLLERR) != 0;
}

Holder::Next Holder::decide_restart(Nanos lived) {
    const bool exited = WIFEXITED(wait_status_);
    exit_code_ = exited ? WEXITSTATUS(wait_status_) : kExitFailed;
    if (inheritance_->ending() || (exited && exit_code_ == kExitOk)) return Next::kStop;
    // The first daemon has already reported why it cannot start.
    if (exited && inheritance_->life() == 1) return Next::kStop;
    if (stop_signal_) return Next::kStop;
    const std::string end = "the daemon " + describe(wait_status_);
    if (connection_is_over()) {
        why_ = end + ", and the file system was unmounted";
        return Next::kStop;
    }
    if (inheritance_->init_was_sent() && !inheritance_->survivable()) {
        why_ = end + "; no successor can take over its mount here";
        return Next::kStop;
    }
    // A SIGKILL while it served (it serves before it says so) is not a failure of the daemon. Any
    // other early death is likely to repeat.
    const bool killed =
        !exited && WTERMSIG(wait_status_) == SIGKILL && (served_ || inheritance_->serving());
    failures_ = killed || lived >= kShortLife ? 0 : failures_ + 1;
    if (failures_ >= kMaxFailures) {
        why_ = end + ", like the " + std::to_string(kMaxFailures - 1) +
               " before it, within seconds: giving up";
        return Next::kStop;
    }
    return Next::kRestart;
}

// Waits before the next daemon starts. False if the holder must end.
bool Holder::wait_before_restart() {
    if (failures_ == 0) return true;
    const Nanos length = std::min(kLongestPause, kFirstPause << (failures_ - 1));
    SystemClock clock;
    const Nanos end = clock.monotonic() + length;
    for (Nanos now = clock.monotonic(); now < end; now = clock.monotonic()) {
        pollfd signals{signals_.get(), POLLIN, 0};
        poll(&signals, 1, static_cast<int>((end - now) / kMillisecond) + 1);
        signalfd_siginfo info{};
        while (read(signals_.get(), &info, sizeof info) == sizeof info) {
            const int signal = static_cast<int>(info.ssi_signo);
            if (signal == SIGTERM || signal == SIGINT) return false;
        }
    }
    return true;
}

}  // namespace ipcfs::daemon
