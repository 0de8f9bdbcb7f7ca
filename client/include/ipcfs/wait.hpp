// Waiting with poll and futex until a deadline. Internal to the client header. Any thread.
#pragma once

#include <atomic>
#include <cerrno>
#include <chrono>
#include <climits>
#include <cstdint>
#include <ctime>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <string>
#include <sys/syscall.h>
#include <unistd.h>
#include <utility>

namespace ipcfs {

// How long a call may wait. kForever: without limit; zero: not at all.
using Timeout = std::chrono::nanoseconds;
inline constexpr Timeout kForever = Timeout::max();

namespace detail {

class Deadline {
public:
    using Clock = std::chrono::steady_clock;

    explicit Deadline(Timeout timeout) noexcept
        : forever_(timeout == kForever),
          at_once_(timeout <= Timeout::zero()),
          end_(forever_ || at_once_ ? Clock::time_point() : end_after(timeout)) {}

    bool at_once() const noexcept { return at_once_; }
    bool forever() const noexcept { return forever_; }
    bool passed() const noexcept { return at_once_ || (!forever_ && Clock::now() >= end_); }
    // The remaining time, never negative; a year if there is no limit.
    Timeout left() const noexcept {
        if (forever_) return std::chrono::hours(24 * 365);
        if (at_once_) return Timeout::zero();
        const Timeout rest = end_ - Clock::now();
        return rest > Timeout::zero() ? rest : Timeout::zero();
    }

private:
    static Clock::time_point end_after(Timeout timeout) noexcept {
        const auto now = Clock::now();
        return timeout > Clock::time_point::max() - now ? Clock::time_point::max() : now + timeout;
    }

    bool forever_;
    bool at_once_;
    Clock::time_point end_;
};

inline timespec to_timespec(Timeout time) noexcept {
    return {static_cast<time_t>(time.count() / 1'000'000'000),
            static_cast<long>(time.count() % 1'000'000'000)};
}

// ppoll of one descriptor. Returns the ready events, 0 on timeout, or -1 with errno.
inline int poll_one(int fd, short events, Timeout timeout) noexcept {
    pollfd one{fd, events, 0};
    const timespec limit = to_timespec(timeout);
    const int count = ::ppoll(&one, fd < 0 ? 0 : 1, &limit, nullptr);
    return count <= 0 ? count : one.revents;
}

// Whether poll reports that the file is gone. POLLERR alone does not mean that: the poll request
// itself failed, and a read or write will give the reason.
inline bool is_gone(int ready) noexcept {
    return ready > 0 && (ready & (POLLHUP | POLLNVAL)) != 0;
}

// Over io_uring, while a daemon is being killed and for some milliseconds after, the kernel ends
// requests without executing them: with ECANCELED, or EINTR or EAGAIN (docs/tree.md). These retry a
// system call on the tree while it fails so, for some five seconds.
template <class Call>
auto retry_while(bool (*lost)(int error), Call&& call) noexcept {
    constexpr int kTries = 5000;
    auto result = call();
    for (int tries = 0; result < 0 && lost(errno) && tries < kTries; ++tries) {
        poll_one(-1, 0, std::chrono::milliseconds(1));
        result = call();
    }
    return result;
}
// For a call whose EINTR and EAGAIN the caller handles. Not for a write that waits on a channel of
// type sync, where ECANCELED also means that the message was purged.
template <class Call>
auto retry_if_canceled(Call&& call) noexcept {
    return retry_while([](int error) { return error == ECANCELED; }, std::forward<Call>(call));
}
// For a call that never waits.
template <class Call>
auto retry_if_lost(Call&& call) noexcept {
    return retry_while(
        [](int error) { return error == ECANCELED || error == EINTR || error == EAGAIN; },
        std::forward<Call>(call));
}

// openat(2) with O_CLOEXEC, retried if it was canceled or interrupted.
inline int open_at(int directory, const char* name, int flags) noexcept {
    return retry_while([](int error) { return error == ECANCELED || error == EINTR; },
                       [&] { return ::openat(directory, name, flags | O_CLOEXEC); });
}

// The start of a small file, at most 4 KiB; empty if it cannot be read.
inline std::string read_start(int directory, const char* name) {
    std::string text(4096, '\0');
    const int fd = open_at(directory, name, O_RDONLY);
    const ssize_t size = fd < 0 ? 0 : ::read(fd, text.data(), text.size());
    if (fd >= 0) ::close(fd);
    text.resize(size > 0 ? static_cast<std::size_t>(size) : 0);
    return text;
}

// Not FUTEX_PRIVATE, since several processes share the word.
inline void futex_wait(const std::atomic<std::uint32_t>& word, std::uint32_t seen,
                       Timeout timeout) noexcept {
    const timespec limit = to_timespec(timeout);
    ::syscall(SYS_futex, &word, FUTEX_WAIT, seen, &limit, nullptr, 0);
}
inline void futex_wake_all(const std::atomic<std::uint32_t>& word) noexcept {
    ::syscall(SYS_futex, &word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

}  // namespace detail
}  // namespace ipcfs
