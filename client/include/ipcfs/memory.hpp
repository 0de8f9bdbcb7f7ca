// Memory that is handed over: making it, mapping it where large pages fit, and checking what others
// made. Internal to the client header. Raw system calls without state; any thread.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

#include <ipcfs/process.hpp>
#include <ipcfs/result.hpp>

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif
#ifndef MFD_HUGE_2MB
#define MFD_HUGE_2MB (21U << 26)
#endif

namespace ipcfs::detail {

inline constexpr std::size_t kPage = 4096;
inline constexpr std::size_t kHugePage = std::size_t{2} << 20;

constexpr std::size_t round_up(std::size_t size, std::size_t unit) noexcept {
    return (size + unit - 1) / unit * unit;
}

// A mapping, unmapped at the end. `size` is what was asked for, in bytes.
class Mapping {
public:
    Mapping() = default;
    Mapping(std::byte* data, std::size_t size) noexcept : data_(data), size_(size) {}
    Mapping(Mapping&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
    Mapping& operator=(Mapping&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        return *this;
    }
    ~Mapping() { reset(); }

    std::byte* data() const noexcept { return data_; }
    std::size_t size() const noexcept { return size_; }
    explicit operator bool() const noexcept { return data_ != nullptr; }
    std::byte* release() noexcept {
        size_ = 0;
        return std::exchange(data_, nullptr);
    }
    void reset() noexcept {
        if (data_ != nullptr) ::munmap(data_, round_up(size_, kPage));
        data_ = nullptr;
        size_ = 0;
    }

private:
    std::byte* data_ = nullptr;
    std::size_t size_ = 0;
};

// Maps `size` > 0 bytes of `fd` shared. From 2 MiB on the address is a multiple of that, without which
// no huge page can be mapped whole; through FUSE the kernel does not choose such a one by itself.
inline Expected<Mapping> map_shared(int fd, std::size_t size, int protection, const char* operation,
                                    int extra_flags = 0) {
    const int flags = MAP_SHARED | extra_flags;
    if (size < kHugePage) {
        void* data = ::mmap(nullptr, size, protection, flags, fd, 0);
        if (data == MAP_FAILED) return last_error(operation);
        return Mapping(static_cast<std::byte*>(data), size);
    }
    const std::size_t whole = round_up(size, kHugePage);
    const std::size_t room = whole + kHugePage;
    if (room < size) return Error{EOVERFLOW, operation};
    void* reserved =
        ::mmap(nullptr, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (reserved == MAP_FAILED) return last_error(operation);
    auto* start = static_cast<std::byte*>(reserved);
    std::byte* at = reinterpret_cast<std::byte*>(
        round_up(reinterpret_cast<std::uintptr_t>(reserved), kHugePage));
    if (::mmap(at, size, protection, flags | MAP_FIXED, fd, 0) == MAP_FAILED) {
        Error error = last_error(operation);
        ::munmap(reserved, room);
        return error;
    }
    const std::size_t used = round_up(size, kPage);
    if (at != start) ::munmap(start, static_cast<std::size_t>(at - start));
    if (std::byte* end = at + used; end != start + room)
        ::munmap(end, static_cast<std::size_t>(start + room - end));
    return Mapping(at, size);
}

// An empty memfd of `size` bytes that can be sealed.
inline Expected<Fd> make_memfd(const char* name, std::size_t size, unsigned flags,
                               const char* operation) {
    Fd fd(::memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | flags));
    if (!fd) return last_error(operation);
    if (::ftruncate(fd.get(), static_cast<off_t>(size)) != 0) return last_error(operation);
    return fd;
}

// Seals that a memory has for good; 0 where it is none.
inline unsigned seals_of(int fd) noexcept {
    const int seals = ::fcntl(fd, F_GET_SEALS);
    return seals < 0 ? 0 : static_cast<unsigned>(seals);
}

// Whether `fd` has at least `size` bytes; else a touch of the mapping could be a SIGBUS.
inline bool measures(int fd, std::uint64_t size) noexcept {
    struct stat about {};
    return ::fstat(fd, &about) == 0 && about.st_size >= 0 &&
           static_cast<std::uint64_t>(about.st_size) >= size;
}

}  // namespace ipcfs::detail
