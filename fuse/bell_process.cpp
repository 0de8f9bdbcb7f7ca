// The ringing process. serve_line() and below run in it; the rest in the daemon, on any thread.
#include <algorithm>
#include <cerrno>
#include <csignal>
#include <ctime>
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include <base/check.hpp>
#include <fuse/bell_process.hpp>

namespace ipcfs::fuse {
namespace {

constexpr std::size_t kLongestPath = 4096;

// Until the daemon hangs up.
void serve_line(int line) {
    char path[kLongestPath + 1];
    for (;;) {
        ssize_t size = ::recv(line, path, kLongestPath, 0);
        if (size < 0 && errno == EINTR) continue;
        if (size <= 0) return;
        path[size] = '\0';
        // mtime alone: that is what inotify reports as IN_MODIFY.
        const timespec times[2] = {{0, UTIME_OMIT}, {0, UTIME_NOW}};
        int error = ECANCELED;
        // While the rings of a killed daemon come down, the kernel ends calls undone: a bell must ring.
        for (int tries = 0; tries < 100 && (error == ECANCELED || error == EINTR); ++tries) {
            constexpr timespec kMoment{0, 10'000'000};
            if (tries > 0) ::nanosleep(&kMoment, nullptr);
            error = ::utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW) == 0 ? 0 : errno;
        }
        if (::send(line, &error, sizeof error, MSG_NOSIGNAL) < 0) return;
    }
}

[[noreturn]] void serve(std::vector<int> lines, pid_t daemon) {
    ::prctl(PR_SET_NAME, "ipcfs-bell");
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != daemon) ::_exit(0);
    // Told to stop together with the daemon, it stays until the daemon hangs up.
    for (int signal : {SIGINT, SIGTERM, SIGHUP}) ::signal(signal, SIG_IGN);
    // Holds nothing of the daemon's: not the lock, not /dev/fuse, not the terminal.
    std::sort(lines.begin(), lines.end());
    unsigned from = 0;
    for (int line : lines) {
        auto keep = static_cast<unsigned>(line);
        if (keep > from) ::syscall(SYS_close_range, from, keep - 1, 0U);
        from = keep + 1;
    }
    ::syscall(SYS_close_range, from, ~0U, 0U);
    std::vector<std::thread> threads;
    for (int line : lines) threads.emplace_back([line] { serve_line(line); });
    for (std::thread& thread : threads) thread.join();
    ::_exit(0);
}

}  // namespace

Result<void> BellProcess::start() {
    std::vector<int> theirs;
    std::vector<Fd> held;
    for (unsigned i = 0; i < kLines; ++i) {
        int pair[2];
        if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) {
            return errno_fault("socketpair for the doorbell");
        }
        lines_.emplace_back(pair[0]);
        free_lines_.with([&](std::vector<int>& free) { free.push_back(pair[0]); });
        held.emplace_back(pair[1]);
        theirs.push_back(pair[1]);
    }
    const pid_t daemon = ::getpid();
    process_ = ::fork();
    if (process_ < 0) return errno_fault("fork the doorbell's process");
    if (process_ == 0) serve(std::move(theirs), daemon);
    return {};
}

BellProcess::~BellProcess() {
    lines_.clear();
    if (process_ > 0) {
        while (::waitpid(process_, nullptr, 0) < 0 && errno == EINTR) {
        }
    }
}

int BellProcess::ring(const std::string& path) noexcept {
    if (path.size() > kLongestPath) return ENAMETOOLONG;
    const int line = free_lines_.with([](std::vector<int>& free) {
        IPCFS_CHECK(!free.empty());
        const int taken = free.back();
        free.pop_back();
        return taken;
    });
    int error = EPIPE;
    if (::send(line, path.data(), path.size(), MSG_NOSIGNAL) >= 0) {
        ssize_t size = 0;
        do size = ::recv(line, &error, sizeof error, 0);
        while (size < 0 && errno == EINTR);
        if (size != sizeof error) error = EPIPE;
    }
    free_lines_.with([line](std::vector<int>& free) { free.push_back(line); });
    return error;
}

}  // namespace ipcfs::fuse
