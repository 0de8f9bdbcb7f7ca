// What a durable channel keeps: a journal of changes and the messages that are alive. Knows no
// channel, queue or FUSE: only keys, places and bytes. Everything that changes (`put`, `move`,
// `erase`, `put_channel`, `erase_channel`) copies memory under one short lock, and waits only in a
// burst for a new segment, so it may be called under a channel's lock; it is in order with everything
// appended before, survives the death of the process at once, and power loss once its Lsn is durable.
//
// Two implementations: MemoryStore (memory_store.hpp), the model and what tests use, and SegmentStore
// (segment_store.hpp), a log in segments. See docs/store.md. All of it is thread-safe unless it
// says otherwise.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include <base/clock.hpp>
#include <base/fd.hpp>
#include <base/result.hpp>

namespace ipcfs::store {

using Lsn =
    std::uint64_t;  // the end of a change in the journal; grows, 0 is durable from the start

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

// A message that is to be kept. The spans are copied before `put` returns.
struct Put {
    Key key;
    State state;
    std::span<const std::byte> head;     // whatever the caller needs to make the message again
    std::span<const std::byte> content;  // empty where `origin` is given
    Key origin;                          // its content is that message's; channel 0: its own
    std::uint64_t payload = 0;           // the id of a saved payload; 0: none
};

// A message that came back. The spans live as long as the call. `content` is the origin's where
// there is one, which may be gone itself by now (its content stays as long as somebody refers to it).
struct Recovered {
    Key key;
    State state;
    std::span<const std::byte> head;
    std::span<const std::byte> content;
    Key origin;
    std::uint64_t payload = 0;
};

// Who is told what was there. One thread, in this order: each channel, and after it its messages
// in the order of their sequence; channels whose messages have an origin elsewhere come last.
class Recovery {
public:
    virtual ~Recovery() = default;
    // `last_sequence`: the highest ever put, also when that message is gone.
    virtual void channel(std::uint64_t id, std::span<const std::byte> record,
                         std::uint64_t last_sequence) = 0;
    virtual void message(const Recovered& message) = 0;
    // A request that was put and perhaps not answered: at least the last 1,024 are told.
    virtual void request(std::uint64_t id) = 0;
};

// Waits for an Lsn. Owned by the caller, who keeps it alive until it has been called.
class Completion {
public:
    Completion() = default;
    Completion(const Completion&) = delete;
    Completion& operator=(const Completion&) = delete;
    virtual ~Completion() = default;
    // Exactly once, on the commit thread, without any lock of the store. 0, or EIO: what was
    // waited for could not be made durable. A put that ends so is gone from the store as if
    // it had never been; everything else in the store goes on. May append; must not wait.
    virtual void durable(int error) noexcept = 0;

private:
    friend class Waiting;  // of the store: a list of those
    Completion* next_ = nullptr;
    Lsn lsn_ = 0;
};

struct Health {
    bool full = false;       // puts fail with ENOSPC
    bool failed = false;     // latched: nothing can be made durable any more, puts fail with EIO
    bool damaged = false;    // what was found at the start was not all there
    std::string quarantine;  // where the damaged store was put aside; empty: it was not damaged
    std::string text;        // one line for people; empty when all is well
    std::uint64_t failed_syncs = 0;
    std::uint64_t syncs = 0;          // of the journal
    std::uint64_t puts = 0;           // messages since the start
    std::uint64_t cleaned = 0;        // segments that were emptied since the start
    std::uint64_t copied_bytes = 0;   // for that
    std::uint64_t messages = 0;       // alive
    std::uint64_t journal_bytes = 0;  // of segments that are in use
    std::uint64_t salvaged = 0;       // messages saved out of a damaged store
    bool degraded() const { return full || failed || damaged || failed_syncs != 0; }
};

class Store {
public:
    virtual ~Store() = default;

    // Once, before anything else; blocks for as long as it takes. Makes no files. EPROTO: the store is of another
    // version, and was not touched; EBUSY: another process has it. A damaged store is put
    // aside, what is provably good in it is told, and `health` says so.
    virtual Result<void> recover(Recovery& to) = 0;

    // Makes the files of a store that has none: a daemon that keeps nothing writes nothing. Blocks, so
    // call it without a lock before the first `put_channel`, which does it too. After a fault
    // the store is as before, and the next call tries again.
    virtual Result<void> open() { return {}; }

    // All of `together` or nothing. ENOSPC, EIO (the store has failed), ENOENT (unknown channel),
    // EEXIST (a key that is there), EMSGSIZE (more than a segment holds). `request`: identifies who
    // asked, for deduplication after a restart, 0 for nobody; the caller sees to it that
    // numbers of different mounts differ.
    virtual Result<Lsn> put(std::span<const Put> together, std::uint64_t request) = 0;
    // These do not fail for lack of space. `move` of what is not there: ENOENT; `erase`: nothing.
    virtual Result<Lsn> move(Key key, const State& state) = 0;
    virtual Result<Lsn> erase(Key key) = 0;

    // A channel, new or changed, and its end with all its messages. ENOSPC, EIO.
    virtual Result<Lsn> put_channel(std::uint64_t id, std::span<const std::byte> record) = 0;
    virtual Result<Lsn> erase_channel(std::uint64_t id) = 0;

    // Calls `then` when everything up to `lsn` is on disk: those that wait share a sync.
    virtual void when_durable(Lsn lsn, Completion& then) = 0;

    // Copies `size` bytes of `file` from `offset` beside the store, under an id that was never used
    // (`put` then refers to it; it goes with the last message that does). Blocks: for a
    // worker. `sync`: on disk when it returns. EEXIST, ENOSPC, EIO.
    virtual Result<void> save_payload(std::uint64_t id, int file, std::uint64_t offset,
                                      std::uint64_t size, bool sync) = 0;
    // Read-only. Checks length and checksum, so it reads all of it: for a worker. ENOENT, EIO.
    virtual Result<Fd> open_payload(std::uint64_t id) = 0;
    // A saved payload that no put refers to after all (the put failed). Otherwise nothing.
    virtual void drop_payload(std::uint64_t id) = 0;
    // Larger than the id of every payload that was there at `recover`.
    virtual std::uint64_t first_free_payload() = 0;

    virtual std::uint64_t generation() = 0;  // 1 at the first recover, then one more each, durable
    virtual bool may_have_lost_marks() = 0;  // power was lost: kTaken may be missing everywhere
    virtual Health health() = 0;
    // Everything durable, everybody who waits called, the threads ended. Nothing else after it
    // (appends then fail with EIO). Also done by the destructor.
    virtual void close() = 0;
};

}  // namespace ipcfs::store
