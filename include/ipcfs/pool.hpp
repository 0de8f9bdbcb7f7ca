// The ledger of a pool: memory shared by sender, receivers and daemon, which holds the reference
// count of each chunk, so that giving a chunk back is one atomic operation instead of a call. The
// chunks are in another memfd, which only the sender maps writable (F_SEAL_FUTURE_WRITE). This is
// an ABI. Any thread of any of the processes. A peer that writes nonsense here can corrupt this
// pool for those who share it (a channel's `payloads pooled` says that they trust each other), but
// not the daemon.
//
// A chunk's word is generation << 32 | references. The sender takes a free chunk (0 references) by
// setting generation + 1 with one reference. The reference passes to the receiver with the message;
// the receiver gives it back. A process that finds another generation than the one it was lent must
// change nothing.
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
    std::uint64_t chunk_size = 0;  // for information only: use the daemon's ControlPool
    std::uint64_t stride = 0;
    std::uint32_t chunk_count = 0;
    std::uint32_t reserved = 0;
    alignas(64) std::atomic<std::uint64_t> hits{0};  // loans that found a chunk at once
    std::atomic<std::uint64_t> misses{0};            // loans that had to wait or use other memory
    // A futex, incremented with each freed chunk. `waiters` says whether to wake.
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

// Called by the sender: takes a free chunk. Returns its new generation, or 0 if it is not free.
inline std::uint32_t pool_take(PoolChunk& chunk) noexcept {
    std::uint64_t word = chunk.word.load(std::memory_order_relaxed);
    if (pool_references(word) != 0) return 0;
    std::uint32_t generation = pool_generation(word) + 1;
    if (generation == 0) generation = 1;
    const std::uint64_t taken = std::uint64_t{generation} << 32 | 1;
    return chunk.word.compare_exchange_strong(word, taken, std::memory_order_acquire) ? generation
                                                                                      : 0;
}

// Gives back one reference of `generation`. True if that freed the chunk.
inline bool pool_give_back(PoolChunk& chunk, std::uint32_t generation) noexcept {
    std::uint64_t word = chunk.word.load(std::memory_order_relaxed);
    do {
        if (pool_generation(word) != generation || pool_references(word) == 0) return false;
    } while (!chunk.word.compare_exchange_weak(word, word - 1, std::memory_order_release,
                                               std::memory_order_relaxed));
    return pool_references(word) == 1;
}

}  // namespace ipcfs
