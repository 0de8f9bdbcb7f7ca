// Shared memory: creating it, mapping it at huge page boundaries, and checking memory from others.
// Internal to the client header. Raw system calls without state; any thread.
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

// From this size on, in bytes, memory gets huge pages if the machine has them for shared memory:
// that may double the memory used, and saves hundreds of page faults.
inline constexpr std::size_t kHugeFrom = std::size_t{1} << 20;

// The length of a mapping of `size` bytes. From kHugeFrom on it is rounded up to a huge page,
// beyond the end of the file: the kernel only uses huge pages that lie completely within a mapping.
constexpr std::size_t mapped_length(std::size_t size) noexcept {
    return round_up(size, size < kHugeFrom ? kPage : kHugePage);
}

// Owns a mapping and unmaps it. `size` is the requested size, `length` what is mapped; both in
// bytes.
class Mapping {
public:
    Mapping() = default;
    Mapping(std::byte* data, std::size_t size) noexcept
        : Mapping(data, size, round_up(size, kPage)) {}
    Mapping(std::byte* data, std::size_t size, std::size_t length) noexcept
        : data_(data), size_(size), length_(length) {}
    Mapping(Mapping&& other) noexcept { swap(other); }
    Mapping& operator=(Mapping&& other) noexcept {
        swap(other);
        return *this;
    }
    ~Mapping() { reset(); }

    std::byte* data() const noexcept { return data_; }
    std::size_t size() const noexcept { return size_; }
    explicit operator bool() const noexcept { return data_ != nullptr; }
    std::byte* release() noexcept {
        size_ = length_ = 0;
        return std::exchange(data_, nullptr);
    }
    void reset() noexcept {
        if (data_ != nullptr) ::munmap(data_, length_);
        release();
    }
    // Calls madvise(2) for the whole mapping.
    void advise(int advice) const noexcept { ::madvise(data_, length_, advice); }

private:
    void swap(Mapping& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        std::swap(length_, other.length_);
    }

    std::byte* data_ = nullptr;
    std::size_t size_ = 0;
    std::size_t length_ = 0;
};

// Maps `size` > 0 bytes of `fd` shared. From kHugeFrom on, aligns the address to a huge page, which
// the kernel does not do for FUSE files.
inline Expected<Mapping> map_shared(int fd, std::size_t size, int protection,
                                    const char* operation) {
    const std::size_t length = mapped_length(size);
    if (size < kHugeFrom) {
        void* data = ::mmap(nullptr, length, protection, MAP_SHARED, fd, 0);
        if (data == MAP_FAILED) return last_error(operation);
        return Mapping(static_cast<std::byte*>(data), size, length);
    }
    const std::size_t room = length + kHugePage;
    if (room < size) return Error{EOVERFLOW, operation};
    void* reserved =
        ::mmap(nullptr, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (reserved == MAP_FAILED) return last_error(operation);
    auto* start = static_cast<std::byte*>(reserved);
    auto* at = reinterpret_cast<std::byte*>(
        round_up(reinterpret_cast<std::uintptr_t>(reserved), kHugePage));
    if (::mmap(at, length, protection, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED) {
        Error error = last_error(operation);
        ::munmap(reserved, room);
        return error;
    }
    if (at != start) ::munmap(start, static_cast<std::size_t>(at - start));
    if (std::byte* end = at + length; end != start + room)
        ::munmap(end, static_cast<std::size_t>(start + room - end));
    return Mapping(at, size, length);
}

// Creates a zero-filled memfd of `size` bytes that can be sealed.
inline Expected<Fd> make_memfd(const char* name, std::size_t size, unsigned flags,
                               const char* operation) {
    Fd fd(::memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | flags));
    if (!fd) return last_error(operation);
    if (::ftruncate(fd.get(), static_cast<off_t>(size)) != 0) return last_error(operation);
    return fd;
}

// The seals of a memory file; 0 if `fd` is none.
inline unsigned seals_of(int fd) noexcept {
    const int seals = ::fcntl(fd, F_GET_SEALS);
    return seals < 0 ? 0 : static_cast<unsigned>(seals);
}

// Whether `fd` has at least `size` bytes; otherwise access to its mapping could raise SIGBUS.
inline bool has_size(int fd, std::uint64_t size) noexcept {
    struct stat about {};
    return ::fstat(fd, &about) == 0 && about.st_size >= 0 &&
           static_cast<std::uint64_t>(about.st_size) >= size;
}

}  // namespace ipcfs::detail
