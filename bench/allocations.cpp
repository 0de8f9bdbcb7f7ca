// malloc and its kin, counted, in front of glibc's. Any thread.
#include "allocations.hpp"

#include <cerrno>
#include <cstddef>
#include <malloc.h>

extern "C" {
void* __libc_malloc(std::size_t size);
void* __libc_calloc(std::size_t count, std::size_t size);
void* __libc_realloc(void* old, std::size_t size);
void* __libc_memalign(std::size_t alignment, std::size_t size);
}

namespace {
thread_local std::uint64_t counted __attribute__((tls_model("initial-exec"))) = 0;
}

extern "C" {

void* malloc(std::size_t size) {
    ++counted;
    return __libc_malloc(size);
}
void* calloc(std::size_t nmemb, std::size_t size) {
    ++counted;
    return __libc_calloc(nmemb, size);
}
void* realloc(void* ptr, std::size_t size) {
    ++counted;
    return __libc_realloc(ptr, size);
}
void* memalign(std::size_t alignment, std::size_t size) {
    ++counted;
    return __libc_memalign(alignment, size);
}
void* aligned_alloc(std::size_t alignment, std::size_t size) {
    ++counted;
    return __libc_memalign(alignment, size);
}
// By the linker's name alone: clang's headers declare it in another way than libc's.
int counted_posix_memalign(void** to, std::size_t alignment,
                           std::size_t size) __asm__("posix_memalign");
int counted_posix_memalign(void** to, std::size_t alignment, std::size_t size) {
    ++counted;
    *to = __libc_memalign(alignment, size);
    return *to == nullptr ? ENOMEM : 0;
}

}  // extern "C"

namespace ipcfs::bench {

std::uint64_t allocations() noexcept {
    return counted;
}

std::uint64_t heap_in_use() noexcept {
    const struct mallinfo2 now = mallinfo2();
    return now.uordblks + now.hblkhd;
}

}  // namespace ipcfs::bench
