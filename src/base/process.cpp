// Other processes. Any thread.
#include <charconv>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string_view>
#include <sys/syscall.h>

#include <base/process.hpp>

namespace ipcfs {

Result<Fd> open_process(pid_t pid) {
    long fd = ::syscall(SYS_pidfd_open, pid, 0);
    if (fd < 0) return errno_fault("pidfd_open " + std::to_string(pid));
    return Fd(static_cast<int>(fd));
}

bool process_ended(const Fd& pidfd) noexcept {
    pollfd at{pidfd.get(), POLLIN, 0};
    return ::poll(&at, 1, 0) > 0;
}

Result<void> signal_process(const Fd& pidfd, int signal, std::uint64_t value) {
    siginfo_t info{};
    info.si_signo = signal;
    info.si_code = SI_QUEUE;
    info.si_pid = ::getpid();
    info.si_uid = ::getuid();
    info.si_value.sival_ptr = reinterpret_cast<void*>(value);
    if (::syscall(SYS_pidfd_send_signal, pidfd.get(), signal, &info, 0) < 0) {
        return errno_fault("pidfd_send_signal");
    }
    return {};
}

pid_t thread_group(pid_t tid) noexcept {
    if (tid <= 0) return 0;
    // Only a main thread has a process id: pidfd_open says whether this is one.
    long fd = ::syscall(SYS_pidfd_open, tid, 0);
    if (fd >= 0) {
        ::close(static_cast<int>(fd));
        return tid;
    }
    char path[40];
    std::snprintf(path, sizeof path, "/proc/%d/status", tid);
    Fd status(::open(path, O_RDONLY | O_CLOEXEC));
    if (!status) return 0;
    char text[1024];
    ssize_t size = ::read(status.get(), text, sizeof text);
    std::string_view rest(text, size > 0 ? static_cast<std::size_t>(size) : 0);
    auto at = rest.find("\nTgid:\t");
    if (at == std::string_view::npos) return 0;
    pid_t group = 0;
    std::from_chars(rest.data() + at + 7, rest.data() + rest.size(), group);
    return group;
}

}  // namespace ipcfs
