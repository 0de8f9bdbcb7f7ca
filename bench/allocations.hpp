// Counts what this program allocates: allocations.cpp replaces malloc and its kin, which operator
// new ends in. Each thread counts its own.
#pragma once

#include <cstdint>

namespace ipcfs::bench {

// Allocations (malloc, calloc, realloc, aligned ones) of the calling thread so far.
std::uint64_t allocations() noexcept;
// Bytes in use in the heap, the allocator's own overhead included.
std::uint64_t heap_in_use() noexcept;

}  // namespace ipcfs::bench
