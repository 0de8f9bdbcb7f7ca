// What belongs to the process rather than to a thread: descriptors, and telling that this is a
// forked child in which what the parent had made must not be used. Internal to the client header.
//
// Fork: an object records process_epoch() when it is made and is inherited when that has changed.
// It costs one load, no system call. No lock is ever waited for in a child that a thread of the
// parent may have held: state behind locks hangs on an atomic pointer and is made anew.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>
#include <utility>

namespace ipcfs::detail {

// Owns a descriptor; int borrows one.
class Fd {
public:
    Fd() = default;
    explicit Fd(int fd) noexcept : fd_(fd) {}
    Fd(Fd&& other) noexcept : fd_(other.release()) {}
    Fd& operator=(Fd&& other) noexcept {
        if (this != &other) reset(other.release());
        return *this;
    }
    ~Fd() { reset(); }

    int get() const noexcept { return fd_; }
    explicit operator bool() const noexcept { return fd_ >= 0; }
    int release() noexcept { return std::exchange(fd_, -1); }
    void reset(int fd = -1) noexcept {
        if (fd_ >= 0) ::close(fd_);
        fd_ = fd;
    }

private:
    int fd_ = -1;
};

inline constinit std::atomic<std::atomic<std::uint64_t>*> epoch_page{nullptr};
inline constinit std::atomic<std::uint64_t> last_epoch{0};

// A page that the kernel empties in a forked child (MADV_WIPEONFORK, Linux 4.14). Where it
// cannot, the pid, asked for each time, does instead.
inline std::atomic<std::uint64_t>* make_epoch_page() noexcept {
    void* page = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) return nullptr;
    if (::madvise(page, 4096, MADV_WIPEONFORK) != 0) {
        ::munmap(page, 4096);
        return nullptr;
    }
    auto* made = new (page) std::atomic<std::uint64_t>{0};
    std::atomic<std::uint64_t>* present = nullptr;
    if (epoch_page.compare_exchange_strong(present, made)) return made;
    ::munmap(page, 4096);
    return present;
}

// The same in all threads of a process, another one in each of its forked children. Never 0.
inline std::uint64_t process_epoch() noexcept {
    auto* page = epoch_page.load(std::memory_order_acquire);
    if (page == nullptr) page = make_epoch_page();
    if (page == nullptr) return static_cast<std::uint64_t>(::getpid());
    std::uint64_t epoch = page->load(std::memory_order_acquire);
    if (epoch != 0) return epoch;
    const std::uint64_t mine = last_epoch.fetch_add(1) + 1;
    return page->compare_exchange_strong(epoch, mine) ? mine : epoch;
}

// The T of this process, made of its `epoch` and what follows when it is first asked for. Never destroyed:
// a thread may outlive static destruction, and what a child inherits may be locked for ever. It is
// reachable, so no leak checker minds.
template <class T, class... From>
T& of_process(std::atomic<T*>& slot, From... from) {
    const std::uint64_t epoch = process_epoch();
    T* present = slot.load(std::memory_order_acquire);
    while (present == nullptr || present->epoch != epoch) {
        auto made = std::make_unique<T>(epoch, from...);
        if (slot.compare_exchange_strong(present, made.get())) present = made.release();
    }
    return *present;
}

// Descriptors that a child must not keep open, since the daemon takes their end for the end of the
// process: closed in the child right after fork(). What does not find room here stays open.
inline constinit std::array<std::atomic<int>, 256> fork_closed{};  // fd + 1; 0: free
inline constinit std::atomic<bool> fork_watched{false};

inline void close_inherited() noexcept {
    for (std::atomic<int>& each : fork_closed)
        if (const int fd = each.exchange(0, std::memory_order_relaxed); fd != 0) ::close(fd - 1);
}

inline void close_in_child(int fd) noexcept {
    if (!fork_watched.exchange(true)) ::pthread_atfork(nullptr, nullptr, &close_inherited);
    for (std::atomic<int>& each : fork_closed) {
        int free = 0;
        if (each.compare_exchange_strong(free, fd + 1)) return;
    }
}

inline void keep_in_child(int fd) noexcept {
    for (std::atomic<int>& each : fork_closed) {
        int listed = fd + 1;
        if (each.compare_exchange_strong(listed, 0)) return;
    }
}

// A descriptor of this process alone. In a child it is closed already, and its number may be
// somebody else's: then nothing is done.
class OwnFd {
public:
    OwnFd() = default;
    explicit OwnFd(Fd fd) noexcept : fd_(std::move(fd)), epoch_(process_epoch()) {
        if (fd_) close_in_child(fd_.get());
    }
    OwnFd(OwnFd&& other) noexcept : fd_(std::move(other.fd_)), epoch_(other.epoch_) {}
    OwnFd& operator=(OwnFd&& other) noexcept {
        if (this == &other) return *this;
        reset();
        fd_ = std::move(other.fd_);
        epoch_ = other.epoch_;
        return *this;
    }
    ~OwnFd() { reset(); }

    int get() const noexcept { return fd_.get(); }
    explicit operator bool() const noexcept { return static_cast<bool>(fd_); }
    void reset() noexcept {
        if (!fd_) return;
        if (epoch_ != process_epoch()) {
            fd_.release();
            return;
        }
        keep_in_child(fd_.get());
        fd_.reset();
    }

private:
    Fd fd_;
    std::uint64_t epoch_ = 0;
};

}  // namespace ipcfs::detail
