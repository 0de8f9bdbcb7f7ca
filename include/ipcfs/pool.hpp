// The ledger of a pool: memory that the sender, its receivers and the daemon share and in which they
// count who has a chunk, so that giving one back costs an atomic operation and no call. The chunks
// themselves are in another memfd, which only the sender maps writable (F_SEAL_FUTURE_WRITE).
// An ABI. Any thread of any of the processes; a peer that writes nonsense here can spoil this pool for
// those who share it (a channel's `payloads pooled` says that they trust each other), never the daemon.
//
// A chunk's word is generation << 32 | references. The sender takes a free chunk (references 0) by
// making it generation + 1 with one reference; with the message that reference goes to the receiver,
// who gives it back. Whoever finds another generation than the one it was lent touches nothing.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace ipcfs {

inline constexpr std::uint32_t kPoolMagic = 0x50435049;  // the bytes I P C P
inline constexpr std::uint32_t kMaxPoolChunks = 4096;

struct alignas(64) PoolChunk {
    std::atomic<std::uint64_t> word{0};
};

struct alignas(64) PoolLedger {
    std::uint32_t magic = kPoolMagic;
    std::uint32_t version = 1;
    std::uint64_t chunk_size = 0;  // for information: believe the daemon's ControlPool
    std::uint64_t stride = 0;
    std::uint32_t chunk_count = 0;
    std::uint32_t reserved = 0;
    alignas(64) std::atomic<std::uint64_t> hits{0};  // loans that found a chunk at once
    std::atomic<std::uint64_t> misses{0};            // loans that had to wait or to look elsewhere
    // Bumped with every chunk that becomes free, and a futex: `waiters` says whether to wake.
    alignas(64) std::atomic<std::uint32_t> freed{0};
    std::atomic<std::uint32_t> waiters{0};

    PoolChunk* chunks() noexcept { return reinterpret_cast<PoolChunk*>(this + 1); }
};

static_assert(sizeof(PoolChunk) == 64 && sizeof(PoolLedger) == 192);
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);

constexpr std::size_t pool_ledger_size(std::uint32_t chunks) noexcept {
    return sizeof(PoolLedger) + chunks * sizeof(PoolChunk);
}
constexpr std::uint32_t pool_generation(std::uint64_t word) noexcept {
    return static_cast<std::uint32_t>(word >> 32);
}
constexpr std::uint32_t pool_references(std::uint64_t word) noexcept {
    return static_cast<std::uint32_t>(word);
}

// The sender's: takes the chunk if it is free. Returns its new generation, 0 if it is not free.
inline std::uint32_t pool_take(PoolChunk& chunk) noexcept {
    std::uint64_t word = chunk.word.load(std::memory_order_relaxed);
    if (pool_references(word) != 0) return 0;
    std::uint32_t generation = pool_generation(word) + 1;
    if (generation == 0) generation = 1;
    const std::uint64_t taken = std::uint64_t{generation} << 32 | 1;
    return chunk.word.compare_exchange_strong(word, taken, std::memory_order_acquire) ? generation
                                                                                      : 0;
}

// Gives back one reference of that generation. True if the chunk became free by it.
inline bool pool_give_back(PoolChunk& chunk, std::uint32_t generation) noexcept {
    std::uint64_t word = chunk.word.load(std::memory_order_relaxed);
    do {
        if (pool_generation(word) != generation || pool_references(word) == 0) return false;
    } while (!chunk.word.compare_exchange_weak(word, word - 1, std::memory_order_release,
                                               std::memory_order_relaxed));
    return pool_references(word) == 1;
}

}  // namespace ipcfs
