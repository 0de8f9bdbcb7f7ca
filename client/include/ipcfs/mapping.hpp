// Mapping: memory of a payload, a region or a file; it stays mapped while a copy of this value
// lives. Any thread may hold, copy and drop copies. A forked child inherits the mapping; dropping
// copies there affects only the child.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <sys/mman.h>
#include <utility>

#include <ipcfs/memory.hpp>
#include <ipcfs/result.hpp>

namespace ipcfs {

// How memory is mapped. Writes to copy_on_write memory are visible only to this process.
enum class Access : std::uint8_t { read_only, copy_on_write, read_write };

class Mapping {
public:
    Mapping() = default;

    std::span<const std::byte> bytes() const noexcept { return bytes_; }
    // The same bytes, writable; empty if read_only.
    std::span<std::byte> writable_bytes() const noexcept {
        return access_ == Access::read_only ? std::span<std::byte>() : bytes_;
    }
    std::size_t size() const noexcept { return bytes_.size(); }
    Access access() const noexcept { return access_; }

    // Maps `size` bytes from the start of `fd`, which may be closed afterwards. Access beyond the
    // end of the file is SIGBUS. EACCES: `fd` is not open for this access.
    static Expected<Mapping> of(int fd, std::size_t size, Access access) {
        if (size == 0) return Mapping({}, access, nullptr);
        if (access == Access::copy_on_write) return private_of(fd, size, access);
        const int protection = access == Access::read_only ? PROT_READ : PROT_READ | PROT_WRITE;
        auto mapped = detail::map_shared(fd, size, protection, "map");
        if (!mapped) return std::move(mapped).error();
        return holding(std::move(mapped).value(), access);
    }

    // The same, but always MAP_PRIVATE, which all kernels allow for a writable descriptor of sealed
    // memory.
    static Expected<Mapping> private_of(int fd, std::size_t size, Access access) {
        const int protection = access == Access::read_only ? PROT_READ : PROT_READ | PROT_WRITE;
        void* data = ::mmap(nullptr, size, protection, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED) return detail::last_error("map");
        return holding(detail::Mapping(static_cast<std::byte*>(data), size), access);
    }

    // Wraps bytes that `holder` keeps valid.
    Mapping(std::span<std::byte> bytes, Access access, std::shared_ptr<const void> holder)
        : bytes_(bytes), access_(access), holder_(std::move(holder)) {}

private:
    static Mapping holding(detail::Mapping mapped, Access access) {
        auto holder = std::make_shared<detail::Mapping>(std::move(mapped));
        const std::span<std::byte> bytes(holder->data(), holder->size());
        return Mapping(bytes, access, std::move(holder));
    }

    std::span<std::byte> bytes_;
    Access access_ = Access::read_only;
    std::shared_ptr<const void> holder_;
};

}  // namespace ipcfs
