// The store of durable channels: a journal of changes, and the messages that are alive. It knows keys, places and
// bytes, and nothing of channels, queues or FUSE. A change (`put`, `move`, `erase`, `put_channel`, `erase_channel`) is a
// copy in memory under one short lock, so it may be made under a channel's lock; it waits only when a burst has used up
// all segments that were ready. Changes keep their order. A change survives the death of the process once the call
// has returned, and power loss once its Lsn is durable.
//
// SegmentStore (segment_store.hpp) implements it; tests have a model of it. See docs/store.md. All of
// it is thread-safe unless it says otherwise.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include <boost/intrusive/slist.hpp>

#include <base/clock.hpp>
#include <base/fd.hpp>
#include <base/result.hpp>

namespace ipcfs::store {

// Where a change ends in the journal; grows. 0 is durable from the start.
using Lsn = std::uint64_t;

// A Result<Lsn> of success (the implicit conversion is ambiguous: a Fault starts with a number).
inline Result<Lsn> appended(Lsn lsn) {
    return {boost::system::in_place_value, lsn};
}

struct Key {
    std::uint64_t channel = 0;   // 0: no key
    std::uint64_t sequence = 0;  // from 1, never used twice in a channel
    auto operator<=>(const Key&) const = default;
};

enum class Place : std::uint8_t { kQueued, kTaken /* leased or being delivered */, kDead };

struct State {
    Place place = Place::kQueued;
    bool redelivered = false;
    std::uint32_t deliveries = 0;
    Nanos not_before = 0;  // CLOCK_REALTIME; 0: none
    bool operator==(const State&) const = default;
};

// A message to keep. The spans are copied before `put` returns.
struct Put {
    Key key;
    State state;
    std::span<const std::byte> head;     // whatever the caller needs to restore the message
    std::span<const std::byte> content;  // empty where `origin` is given
    Key origin;                          // the message whose content it shares; channel 0: its own
    std::uint64_t payload = 0;           // the id of a saved payload; 0: none
};

// A message that recovery found. The spans live as long as the call. `content` is the origin's where there is
// one, even if the origin was erased in the meantime.
using Recovered = Put;

// Receives what recovery finds. One thread, in this order: each channel, followed by its messages in order of
// sequence; channels whose messages have an origin elsewhere come last.
class Recovery {
public:
    virtual ~Recovery() = default;
    // `last_sequence`: the highest ever put, also when that message is gone.
    virtual void channel(std::uint64_t id, std::span<const std::byte> record,
                         std::uint64_t last_sequence) = 0;
    virtual void message(const Recovered& message) = 0;
    // A request that was put and perhaps not answered; the last 1,024 at least.
    virtual void request(std::uint64_t id) = 0;
};

// Waits for an Lsn. Owned by the caller, who keeps it alive until it has been called.
class Completion : public boost::intrusive::slist_base_hook<> {
public:
    Completion() = default;
    Completion(const Completion&) = delete;
    Completion& operator=(const Completion&) = delete;
    virtual ~Completion() = default;
    // Called once, on the commit thread, without any lock of the store. 0, or EIO: what was waited for could
    // not be made durable. A put that ends so is gone from the store, and everything else goes on. May
    // append; must not wait.
    virtual void durable(int error) noexcept = 0;

private:
    friend class Waiting;  // a list of those
    Lsn lsn_ = 0;
};

struct Health {
    bool full = false;       // puts fail with ENOSPC
    bool failed = false;     // latched: nothing can be made durable any more, puts fail with EIO
    bool damaged = false;    // something was missing or damaged at the start
    std::string quarantine;  // where the damaged store was moved; empty: it was not damaged
    std::string text;        // one line for people; empty when all is well
    std::uint64_t failed_syncs = 0;
    std::uint64_t syncs = 0;          // of the journal
    std::uint64_t puts = 0;           // messages since the start
    std::uint64_t cleaned = 0;        // segments emptied since the start
    std::uint64_t copied_bytes = 0;   // for that
    std::uint64_t messages = 0;       // alive
    std::uint64_t journal_bytes = 0;  // of segments in use
    std::uint64_t salvaged = 0;       // messages saved out of a damaged store
    bool degraded() const { return full || failed || damaged || failed_syncs != 0; }
};

class Store {
public:
    virtual ~Store() = default;

    // Once, before anything else. Blocks. Makes no files. EPROTO: another version wrote the store, which is left
    // untouched. EBUSY: another process has it. A damaged store is moved aside; what is provably good in it
    // is recovered, and `health` says so.
    virtual Result<void> recover(Recovery& to) = 0;

    // Makes the files of a store that has none: a daemon that keeps nothing writes nothing. Blocks, so
    // call it without a lock before the first `put_channel`, which does it too. After a fault
    // the store is as before, and the next call tries again.
    virtual Result<void> open() { return {}; }

    // All of `together` or nothing. ENOSPC, EIO (the store has failed), ENOENT (unknown channel), EEXIST (the key is in
    // use), EMSGSIZE (more than a segment holds). `request` identifies who asked, for deduplication after a
    // restart; 0: nobody. The caller makes sure that numbers of different mounts differ.
    virtual Result<Lsn> put(std::span<const Put> together, std::uint64_t request) = 0;
    // These do not fail for lack of space. ENOENT: `move` of an unknown key; `erase` ignores one.
    virtual Result<Lsn> move(Key key, const State& state) = 0;
    virtual Result<Lsn> erase(Key key) = 0;

    // A channel, new or changed, and its end with all its messages. ENOSPC, EIO.
    virtual Result<Lsn> put_channel(std::uint64_t id, std::span<const std::byte> record) = 0;
    virtual Result<Lsn> erase_channel(std::uint64_t id) = 0;

    // Calls `then` when everything up to `lsn` is on disk. Those that wait share a sync.
    virtual void when_durable(Lsn lsn, Completion& then) = 0;

    // Copies `size` bytes of `file` from `offset` beside the store, under an id that was never used. A `put` then refers to
    // it, and it goes with the last message that does. Blocks: for a worker. `sync`: on disk when it
    // returns. EEXIST, ENOSPC, EIO.
    virtual Result<void> save_payload(std::uint64_t id, int file, std::uint64_t offset,
                                      std::uint64_t size, bool sync) = 0;
    // Read-only. Checks length and checksum, so it reads all of it: for a worker. ENOENT, EIO.
    virtual Result<Fd> open_payload(std::uint64_t id) = 0;
    // Removes a saved payload that no message refers to, as its put failed.
    virtual void drop_payload(std::uint64_t id) = 0;
    // Larger than the id of every payload found by `recover`.
    virtual std::uint64_t first_free_payload() = 0;

    virtual std::uint64_t generation() = 0;  // 1 at the first recover, then one more each; durable
    virtual bool may_have_lost_marks() = 0;  // power was lost: any kTaken may be missing
    virtual Health health() = 0;
    // Syncs everything, calls everybody who waits and ends the threads. Later appends fail with EIO. The destructor does
    // it, too.
    virtual void close() = 0;
};

}  // namespace ipcfs::store
