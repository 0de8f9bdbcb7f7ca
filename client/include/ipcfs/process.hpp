// Per-process state: descriptors, and detecting a forked child, which must not use its parent's
// objects. Internal to the client header.
//
// Fork: an object records process_epoch() when it is made; it was inherited if the epoch has
// changed. Asking costs one load. A child never waits for a lock that a thread of the parent may
// have held: state behind locks is reached through an atomic pointer and made anew.
#pragma once

#include <array>
#include <atomic>
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

// A page that the kernel clears in a forked child (MADV_WIPEONFORK, Linux 4.14). If that fails,
// process_epoch() uses the pid.
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

// Identifies the process: the same in all its threads, another one in each forked child. Never 0.
inline std::uint64_t process_epoch() noexcept {
    auto* page = epoch_page.load(std::memory_order_acquire);
    if (page == nullptr) page = make_epoch_page();
    if (page == nullptr) return static_cast<std::uint64_t>(::getpid());
    std::uint64_t epoch = page->load(std::memory_order_acquire);
    if (epoch != 0) return epoch;
    const std::uint64_t mine = last_epoch.fetch_add(1) + 1;
    return page->compare_exchange_strong(epoch, mine) ? mine : epoch;
}

// The process's instance of T, made from its epoch and `from` at the first call. Never destroyed: a
// thread may outlive static destruction, and an inherited instance may be locked for ever. It stays
// reachable, so leak checkers accept it.
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

// Descriptors to close in a child right after fork(): the daemon takes the end of the last copy for
// the end of the process. Descriptors that find no free slot stay open.
inline constinit std::array<std::atomic<int>, 256> fork_closed{};  // fd + 1; 0: free slot
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

// A descriptor that belongs to this process only. A child has closed it, and its number may mean
// another file, so there it does nothing.
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
