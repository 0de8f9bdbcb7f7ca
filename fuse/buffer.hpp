// Raw requests in memory. Private to fuse/.
#pragma once

#include <cstddef>
#include <cstring>
#include <sys/mman.h>

namespace ipcfs::fuse {

constexpr std::size_t kHeaderRoom = 4096;  // what libfuse and the kernel add to max_write

// A request's buffer: virtual until touched, so that its size costs nothing.
class Buffer {
public:
    explicit Buffer(std::size_t size)
        : size_(size),
          data_(::mmap(nullptr, size, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)) {}
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    ~Buffer() {
        if (*this) ::munmap(data_, size_);
    }
    explicit operator bool() const { return data_ != MAP_FAILED; }
    // Allocates all pages. A process that is being killed gets no new page, and the kernel ends a request with EIO
    // if it cannot copy it to its reader (Linux, fuse_dev_do_read()).
    void populate() const {
        constexpr std::size_t kPage = 4096;
        auto* at = static_cast<volatile std::byte*>(data_);
        for (std::size_t i = 0; i < size_; i += kPage) at[i] = std::byte{};
    }
    void* data() const { return data_; }
    std::size_t size() const { return size_; }

private:
    std::size_t size_;
    void* data_;
};

template <class T>
T read_struct(const void* from) {
    T value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

}  // namespace ipcfs::fuse
