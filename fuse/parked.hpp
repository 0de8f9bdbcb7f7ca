// Requests that wait. An operation that cannot be answered at once parks: then an interrupt finds it, and a ring that
// runs short of entries can make it give up. FUSE_INTERRUPT travels by another queue than the request and can overtake
// it, so interrupts for unknown requests are remembered until the request parks or is stale.
// Owned by Session; any thread. Locks are leaves: nothing of the operation is called under them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <sys/types.h>
#include <unordered_map>
#include <vector>

#include <base/clock.hpp>
#include <base/guarded.hpp>

namespace ipcfs::fuse {

// When ring entries run short, the lowest rank gives up first: every program repeats interrupted reads.
enum class ParkRank : std::uint8_t { kRead, kOpen, kWrite };

// A waiting operation, seen from the transport.
class Parked {
public:
    virtual ~Parked() = default;
    // Completes the operation with errno `error`, unless it is complete or about to be: then does
    // nothing. Called on any thread, with no lock of the transport held, possibly before
    // Session::park has returned on the thread that parks it.
    virtual void interrupt(int error) noexcept = 0;
};

class ParkedTable {
public:
    // False: an interrupt for `unique` came first; it is forgotten now and nothing was added.
    // `tid` is the requester's thread, 0 where its interrupts cannot be lost (see lost_interrupts) or it is not
    // visible.
    bool add(std::uint64_t unique, std::shared_ptr<Parked> op, pid_t tid = 0);
    // The caller answers the operation.
    void remove(std::uint64_t unique);

    std::shared_ptr<Parked> find(std::uint64_t unique);  // null: none is parked
    // The operation to interrupt; null if none is parked, which is remembered.
    std::shared_ptr<Parked> find_or_remember(std::uint64_t unique, Nanos now);

    // Operations whose interrupt the kernel lost: over io_uring it forgets a signal that arrives after a request was
    // queued and before the ring got it, and then waits, unkillable, for the answer alone. Such a requester is in
    // state D (others in S). Each operation is checked once, at the second call after it parked; by then no
    // interrupt can be lost any more.
    std::vector<std::shared_ptr<Parked>> lost_interrupts();

    std::vector<std::shared_ptr<Parked>> operations() const;
    std::size_t size() const;  // operations parked

private:
    struct Record {
        std::shared_ptr<Parked> op;
        pid_t tid = 0;
        std::uint8_t calls = 0;  // of lost_interrupts()
    };
    struct Early {
        std::uint64_t unique;
        Nanos when;
    };
    struct Shard {
        std::unordered_map<std::uint64_t, Record> records;
        std::deque<Early> early;  // oldest first, at most kMaxEarly
    };
    static constexpr std::size_t kShards = 64;
    static constexpr std::size_t kMaxEarly = 1024;
    static constexpr Nanos kEarlyAge = 10 * kSecond;

    // The kernel counts uniques up in steps, from a different start on each CPU: mix the bits.
    Guarded<Shard>& shard(std::uint64_t unique) {
        return shards_[(unique * 0x9E3779B97F4A7C15ULL) >> 58];
    }
    std::array<Guarded<Shard>, kShards> shards_;
};

}  // namespace ipcfs::fuse
