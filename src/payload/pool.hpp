// A pool of chunks that a sender lends to the receivers of one channel (include/ipcfs/pool.hpp has what
// the three share). Here: which chunk is in a queue and which one somebody holds, so that what a dead
// peer held comes back. Everything in the ledger may have been written by a hostile peer: it decides
// about nothing but chunks of this pool. Thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <sys/types.h>
#include <vector>

#include <access/account.hpp>
#include <base/fd.hpp>
#include <base/guarded.hpp>
#include <base/result.hpp>
#include <ipcfs/pool.hpp>

namespace ipcfs::payload {

struct PoolShape {
    std::uint64_t chunk_size = 0;
    std::uint64_t stride = 0;
    std::uint32_t chunk_count = 0;
};

class Pool {
public:
    // `memory`: the sender's memfd, sealed as a pool. EINVAL for a shape that does not fit it.
    static Result<std::shared_ptr<Pool>> make(std::uint64_t id, std::uint64_t channel, uid_t owner,
                                              pid_t pid, const PoolShape& shape, const Fd& memory,
                                              access::Charge charge);
    ~Pool();
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    const std::uint64_t id, channel;
    const uid_t owner;
    const pid_t pid;  // of the process that opened it
    const PoolShape shape;

    int memory() const noexcept { return memory_.get(); }  // read-only
    int ledger() const noexcept { return ledger_.get(); }
    std::uint64_t offset(std::uint32_t chunk) const noexcept { return chunk * shape.stride; }

    // The sender's reference becomes the message's. EINVAL where it has none of that generation;
    // EBUSY: the chunk is queued or lent already.
    Result<void> enqueue(std::uint32_t chunk, std::uint32_t generation, std::uint64_t size);
    // The opposite of enqueue().
    void undo(std::uint32_t chunk, std::uint32_t generation) noexcept;
    // The message's reference becomes that process'.
    void pass(std::uint32_t chunk, std::uint32_t generation, pid_t to) noexcept;
    // Gives back the message's reference.
    void drop(std::uint32_t chunk, std::uint32_t generation) noexcept;
    // A process that may hold chunks is gone: gives back for it. Returns how many.
    std::size_t gone(pid_t pid) noexcept;

    // Processes that have chunks now.
    std::set<pid_t> holders() const;

    struct Use {
        std::uint32_t queued = 0;
        std::uint32_t lent = 0;
        std::uint64_t hits = 0, misses = 0;
    };
    Use use() const noexcept;

private:
    enum class Where : std::uint8_t { kSender, kQueued, kLent };
    struct Slot {
        std::uint32_t generation = 0;
        pid_t holder = 0;
        Where where = Where::kSender;
    };

    Pool(std::uint64_t id, std::uint64_t channel, uid_t owner, pid_t pid, const PoolShape& shape);
    void give_back(std::uint32_t chunk, std::uint32_t generation) noexcept;

    Fd memory_, ledger_;
    PoolLedger* shared_ = nullptr;
    access::Charge charge_;
    mutable Guarded<std::vector<Slot>> slots_;
};

}  // namespace ipcfs::payload
