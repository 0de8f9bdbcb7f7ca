// userfaultfd(2) for lazy payloads: accesses to missing pages of a receiver's range are reported on
// a descriptor and resolved by filling or poisoning the page. Internal to the client header.
// Stateless; any thread. Constants that older kernel headers lack are defined here; the running
// kernel is asked whether it supports them.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <ipcfs/process.hpp>
#include <ipcfs/result.hpp>

namespace ipcfs::detail {

inline std::size_t page_size() noexcept {
    static const auto size = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    return size;
}

// Rounds up to whole pages; 0 on overflow.
inline std::size_t whole_pages(std::size_t bytes) noexcept {
    const std::size_t mask = page_size() - 1;
    return bytes > SIZE_MAX - mask ? 0 : (bytes + mask) & ~mask;
}

namespace uffd {

inline constexpr int kUserModeOnly = 1;                       // Linux 5.11
inline constexpr unsigned long kNewDevice = _IO(0xAA, 0x00);  // of /dev/userfaultfd, Linux 6.1

struct Poison {  // uffdio_poison, Linux 6.6
    uffdio_range range;
    std::uint64_t mode;
    std::int64_t updated;
};
inline constexpr unsigned long kPoison = _IOWR(UFFDIO, 0x08, Poison);

struct Opened {
    Fd fd;
    // Whether system calls (read(2) into the range, write(2) from it) wait for missing pages.
    // Otherwise they fail with EFAULT, and only loads and stores wait.
    bool kernel_faults = false;
};

inline Fd create(int flags) noexcept {
    return Fd(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | flags)));
}

// Opens the most capable userfaultfd that this process may use. The sysctl
// vm.unprivileged_userfaultfd, CAP_SYS_PTRACE and the mode of /dev/userfaultfd decide on
// kernel_faults; a seccomp filter may forbid all.
inline Expected<Opened> open() {
    Opened opened{create(0), true};
    if (!opened.fd) {
        const Fd device(::open("/dev/userfaultfd", O_RDWR | O_CLOEXEC));
        if (device) opened.fd.reset(::ioctl(device.get(), kNewDevice, O_CLOEXEC | O_NONBLOCK));
    }
    if (!opened.fd) opened = Opened{create(kUserModeOnly), false};
    if (!opened.fd) return last_error("userfaultfd");
    uffdio_api api{UFFD_API, UFFD_FEATURE_THREAD_ID, 0};  // Linux 4.14
    if (::ioctl(opened.fd.get(), UFFDIO_API, &api) != 0) return last_error("userfaultfd");
    return opened;
}

// Whether `fd`, which comes from another process, is a nonblocking userfaultfd. Files cannot fake
// the kernel's name: theirs start with a slash.
inline bool is_one(int fd) noexcept {
    char link[32] = "/proc/self/fd/";
    char* at = link + std::strlen(link);
    char digits[12];
    int count = 0;
    for (int rest = fd; rest > 0 || count == 0; rest /= 10)
        digits[count++] = static_cast<char>('0' + rest % 10);
    while (count > 0) *at++ = digits[--count];
    *at = '\0';
    char name[64];
    const ssize_t length = ::readlink(link, name, sizeof name);
    constexpr char kName[] = "anon_inode:[userfaultfd]";
    const int flags = ::fcntl(fd, F_GETFL);
    return length == sizeof kName - 1 && std::memcmp(name, kName, sizeof kName - 1) == 0 &&
           flags >= 0 && (flags & O_NONBLOCK) != 0;
}

// Starts reporting accesses to missing pages of the range. `can_poison`: whether poison() works.
inline Expected<void> watch(int fd, const std::byte* address, std::size_t length,
                            bool& can_poison) {
    uffdio_register range{
        {reinterpret_cast<std::uintptr_t>(address), length}, UFFDIO_REGISTER_MODE_MISSING, 0};
    if (::ioctl(fd, UFFDIO_REGISTER, &range) != 0) return last_error("register userfaultfd");
    can_poison = (range.ioctls >> 8 & 1U) != 0;
    return {};
}

// Wakes the threads that wait in the range, so that they retry the access.
inline void wake(int fd, std::uint64_t address, std::uint64_t length) noexcept {
    uffdio_range range{address, length};
    ::ioctl(fd, UFFDIO_WAKE, &range);
}

// Makes access to a missing page raise SIGBUS. Returns 0 or an errno; EEXIST if the page is present.
inline int poison(int fd, std::uint64_t address, std::uint64_t length) noexcept {
    Poison poison{{address, length}, 0, 0};
    return ::ioctl(fd, kPoison, &poison) == 0 ? 0 : errno;
}

// The result of a copy: how many bytes were copied, and an errno if not all.
struct Copied {
    std::size_t bytes = 0;
    int error = 0;
};

// Copies `length` bytes (whole pages; `from` needs no alignment) into missing pages of the
// userfaultfd's process and wakes the threads that wait for them. Never overwrites: EEXIST.
inline Copied copy(int fd, std::uint64_t to, const std::byte* from, std::size_t length) noexcept {
    uffdio_copy copy{to, reinterpret_cast<std::uintptr_t>(from), length, 0, 0};
    if (::ioctl(fd, UFFDIO_COPY, &copy) == 0) return {length, 0};
    // A partial copy returns EAGAIN and sets `copy` to the bytes done; otherwise `copy` is a
    // negative errno.
    return {copy.copy > 0 ? static_cast<std::size_t>(copy.copy) : 0, errno};
}

}  // namespace uffd
}  // namespace ipcfs::detail
