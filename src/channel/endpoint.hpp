// What the tree calls, and what it is told: pushing, taking, leasing, polling, settings, statistics. What waits is
// one object of the caller's: parked, and finished once, on any thread, without locks.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include <boost/intrusive/list.hpp>

#include <base/clock.hpp>
#include <channel/settings.hpp>
#include <insight/histogram.hpp>
#include <queue/message.hpp>
#include <queue/waiter.hpp>

namespace ipcfs::channel {

using queue::Lane;
using queue::Leased;
using queue::StreamView;

// What a channel is for: one of the tree, or the messages of one subscriber of a topic.
enum class Role : std::uint8_t { kChannel, kSubscription };

// A registered poll: notified at most once, then gone.
class PollTicket : public boost::intrusive::list_base_hook<> {
public:
    virtual ~PollTicket() = default;
    virtual void notify() noexcept = 0;
    unsigned events = 0;    // POLLIN, POLLOUT wanted
    bool critical = false;  // by a writer of critical messages: the reserve is room too
    Lane lane = Lane::kMain;
    class PollSlot* slot = nullptr;
};
// Where an open file keeps its ticket. Touched under the channel's lock only.
class PollSlot {
public:
    PollTicket* ticket = nullptr;
};

// The right to write that an open waiting at the gate was given: it counts against the room until
// the first write, the close, or a second has passed. On type sync it is the turn, until the close.
class WriteTicket : public boost::intrusive::list_base_hook<> {
public:
    bool critical =
        false;  // for critical messages only: the reserve is enough, and no credit is held
    Nanos since = 0;
    bool sync = false;
    bool held = false;
};

// An open that waits at the gate.
class OpenWaiter : public queue::Waiter {
public:
    WriteTicket* ticket = nullptr;
};

enum class Push : std::uint8_t {
    kQueued,   // enqueued or handed over (or dropped, where overflow says drop-newest)
    kWait,     // would wait
    kFull,     // overflow reject
    kTooLong,  // over max-message, or never fits the bounds
    kRemoved,
    kCommit,      // durable: it fits; push() waits until it is on disk
    kNoSpace,     // durable: the disk is full
    kDiskFailed,  // durable: the channel is degraded
};
enum class Take : std::uint8_t {
    kTaken,
    kEmpty,
    kEnded,  // type stream: empty, and the last writer has closed
    kRemoved,
};
enum class Gate : std::uint8_t { kOpen, kWait, kRemoved };

struct Counters {
    std::uint64_t enqueued = 0;  // messages accepted
    std::uint64_t enqueued_bytes = 0;
    std::uint64_t delivered = 0;  // messages taken by readers
    std::uint64_t delivered_bytes = 0;
    std::uint64_t rejected = 0;   // ENOBUFS
    std::uint64_t timed_out = 0;  // writers that gave up waiting
    std::uint64_t dropped_oldest = 0;
    std::uint64_t dropped_newest = 0;
    std::uint64_t expired = 0;
    std::uint64_t purged = 0;
    std::uint64_t withdrawn = 0;   // sync: not taken in time, or the writer was interrupted
    std::uint64_t given_back = 0;  // taken, but the reply could not be delivered
    std::uint64_t pauses = 0;      // times the high mark was reached
    std::uint64_t rings = 0;       // doorbell rings asked for
    // Each lease is counted in delivered, too. All that were given out: leased; how they ended: acked,
    // nacked, lease_timeouts, lease_returns, lease_undone, buried by their holder, or by purge.
    std::uint64_t leased = 0;
    std::uint64_t acked = 0;
    std::uint64_t nacked = 0;
    std::uint64_t lease_timeouts = 0;
    std::uint64_t lease_returns = 0;  // by close, or by the end of the holder
    std::uint64_t lease_undone = 0;   // the reply could not be delivered
    std::uint64_t lease_buried = 0;   // by the holder's word
    std::uint64_t dead = 0;           // messages that went to the dead letters
    std::uint64_t dead_taken = 0;     // dead letters taken by readers
    std::uint64_t redriven = 0;       // dead letters that went back to the queue
    std::uint64_t redelivered = 0;    // deliveries of messages that had been given out before
    // Of topics: messages that no subscription took, and entries made in subscriptions.
    std::uint64_t unmatched = 0;
    std::uint64_t copies = 0;
    // Of a subscription: what it should have got, had its owner's quota and its bounds allowed it.
    std::uint64_t lost = 0;
};

enum class State : std::uint8_t { kOk, kPaused, kClosed, kDegraded };

// Everything at one moment. A copy: whoever reads it evaluates it without the channel's lock.
struct Snapshot {
    Settings settings;
    State state = State::kOk;
    const char* why = "";
    std::uint64_t depth = 0, bytes = 0;                      // of what is queued
    std::uint64_t ready = 0;                                 // of depth, what the batch lets out
    std::uint64_t leased = 0, leased_bytes = 0;              // these count against the bounds, too
    std::uint64_t delayed = 0, delayed_bytes = 0;            // and these
    std::uint64_t dead = 0, dead_bytes = 0;                  // these do not
    std::uint64_t readers = 0, writers = 0;                  // open files
    std::uint64_t waiting_readers = 0, waiting_writers = 0;  // writers: at the gate or in a write
    Nanos oldest_age = 0;
    std::string last_error;
    Counters counters;
    insight::Histogram latency;                              // enqueue to dequeue
    Nanos last_arrival = 0, last_delivery = 0, created = 0;  // since the epoch
    Role role = Role::kChannel;
    std::uint64_t subscriptions = 0;                 // of a topic: named and anonymous ones
    std::uint64_t named = 0;                         // of these, those with a name
    std::uint64_t retained = 0, retained_bytes = 0;  // for newcomers
};

// A line of `peek`.
struct Listed {
    queue::Envelope envelope;
    std::uint64_t size = 0;
};

}  // namespace ipcfs::channel
