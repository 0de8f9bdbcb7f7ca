// userfaultfd(2) as lazy payloads need it: a range of the receiver's in which every touch of a
// missing page is reported on a descriptor, and is answered by putting the page there or by
// poisoning it. Internal to the client header. No state; any thread. Numbers that older kernel
// headers lack are given here; whether the running kernel knows them is asked of it.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <ipcfs/process.hpp>
#include <ipcfs/result.hpp>

namespace ipcfs::detail {

inline std::size_t page_size() noexcept {
    static const auto size = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    return size;
}

// Up to whole pages; 0 where that does not fit.
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
    // Touches by system calls (read(2) into the range, write(2) from it) wait as well. Otherwise
    // they fail with EFAULT where a page is missing, and only the program's own loads wait.
    bool kernel_faults = false;
};

inline Fd create(int flags) noexcept {
    return Fd(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | flags)));
}

// The most that this process is allowed. The sysctl vm.unprivileged_userfaultfd, CAP_SYS_PTRACE and
// the mode of /dev/userfaultfd decide on kernel_faults; a seccomp filter may forbid all.
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

// Whether `fd` is one, and one that never blocks: what comes from another process is not believed.
// The kernel's name of it cannot be had by a file, whose name here would start with a slash.
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

// From now on touches of missing pages there are reported. `can_poison`: see poison().
inline Expected<void> watch(int fd, const std::byte* address, std::size_t length,
                            bool& can_poison) {
    uffdio_register range{
        {reinterpret_cast<std::uintptr_t>(address), length}, UFFDIO_REGISTER_MODE_MISSING, 0};
    if (::ioctl(fd, UFFDIO_REGISTER, &range) != 0) return last_error("register userfaultfd");
    can_poison = (range.ioctls >> 8 & 1U) != 0;
    return {};
}

// Has the threads that wait in that range look again.
inline void wake(int fd, std::uint64_t address, std::uint64_t length) noexcept {
    uffdio_range range{address, length};
    ::ioctl(fd, UFFDIO_WAKE, &range);
}

// A touch of that missing page is SIGBUS from now on. 0 or an errno, EEXIST if it is there.
inline int poison(int fd, std::uint64_t address, std::uint64_t length) noexcept {
    Poison poison{{address, length}, 0, 0};
    return ::ioctl(fd, kPoison, &poison) == 0 ? 0 : errno;
}

// What came of a copy: how many bytes of it are done, and an errno if that is not all.
struct Copied {
    std::size_t bytes = 0;
    int error = 0;
};

// Puts `length` bytes (whole pages; `from` needs no alignment) into missing pages of the process
// that the userfaultfd is of, and wakes who waits for them. Never overwrites: EEXIST.
inline Copied copy(int fd, std::uint64_t to, const std::byte* from, std::size_t length) noexcept {
    uffdio_copy copy{to, reinterpret_cast<std::uintptr_t>(from), length, 0, 0};
    if (::ioctl(fd, UFFDIO_COPY, &copy) == 0) return {length, 0};
    // A copy cut short says EAGAIN and how far it came; else `copy` is a negative errno.
    return {copy.copy > 0 ? static_cast<std::size_t>(copy.copy) : 0, errno};
}

}  // namespace uffd
}  // namespace ipcfs::detail
