// A pool of chunks that a sender lends to the receivers of one channel; include/ipcfs/pool.hpp
// defines the shared ledger. This class tracks which chunks are queued and which process holds
// which, so that chunks of dead processes come back. Hostile clients may write anything to the
// ledger: it must never affect more than the chunks of this pool. Thread-safe.
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
    // `memory` must be the sender's memfd, sealed as Sealing::kPool. EINVAL if the shape does not
    // fit it.
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

    // Moves the sender's reference to a message. EINVAL if there is no such chunk or the sender
    // holds no reference of that generation; EBUSY if the chunk is queued or lent already.
    Result<void> enqueue(std::uint32_t chunk, std::uint32_t generation, std::uint64_t size);
    // Undoes enqueue().
    void cancel_enqueue(std::uint32_t chunk, std::uint32_t generation) noexcept;
    // Moves the message's reference to process `to`.
    void lend(std::uint32_t chunk, std::uint32_t generation, pid_t to) noexcept;
    // Gives the message's reference back to the pool.
    void release(std::uint32_t chunk, std::uint32_t generation) noexcept;
    // Gives back the chunks that an ended process held. Returns how many.
    std::size_t reclaim(pid_t holder) noexcept;

    // Processes that hold chunks.
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
