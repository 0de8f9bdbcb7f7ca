// Mapping: memory of a payload, a region or a file, mapped into this process for as long as a copy
// of the value lives. Copies share it; any thread may hold, copy and drop them. A forked child has
// the mapping too, and its copies of the value end only its own.
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

// How memory is mapped. What is written to copy_on_write memory is this process' alone.
enum class Access : std::uint8_t { read_only, copy_on_write, read_write };

class Mapping {
public:
    Mapping() = default;

    std::span<const std::byte> bytes() const noexcept { return bytes_; }
    // The same bytes to be written to; none when they are read_only.
    std::span<std::byte> writable_bytes() const noexcept {
        return access_ == Access::read_only ? std::span<std::byte>() : bytes_;
    }
    std::size_t size() const noexcept { return bytes_.size(); }
    Access access() const noexcept { return access_; }

    // `size` bytes from the start of the file `fd`, which may be closed afterwards. Beyond the end of
    // the file there is nothing: touching that is SIGBUS. EACCES: `fd` is not open for such access.
    static Expected<Mapping> of(int fd, std::size_t size, Access access) {
        if (size == 0) return Mapping({}, access, nullptr);
        if (access == Access::copy_on_write) return private_of(fd, size, access);
        const int protection = access == Access::read_only ? PROT_READ : PROT_READ | PROT_WRITE;
        auto mapped = detail::map_shared(fd, size, protection, "map");
        if (!mapped) return std::move(mapped).error();
        return holding(std::move(mapped).value(), access);
    }

    // The same, never MAP_SHARED: what a writable descriptor of sealed memory allows on all kernels.
    static Expected<Mapping> private_of(int fd, std::size_t size, Access access) {
        const int protection = access == Access::read_only ? PROT_READ : PROT_READ | PROT_WRITE;
        void* data = ::mmap(nullptr, size, protection, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED) return detail::last_error("map");
        return holding(detail::Mapping(static_cast<std::byte*>(data), size), access);
    }

    // Bytes that `holder` keeps where they are.
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
