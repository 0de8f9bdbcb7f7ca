// Operations that wait on a channel (after NNG's aio: one object with one cancel). A waiter is parked
// under the channel's lock, unlinked under that lock by whatever ends it first, and finished exactly
// once, on any thread, without a lock. The door owns it and keeps it alive until finish() returns.
#pragma once

#include <atomic>
#include <cstdint>
#include <sys/types.h>
#include <utility>

#include <boost/intrusive/list.hpp>

#include <base/clock.hpp>
#include <queue/priority_queue.hpp>

namespace ipcfs::queue {

enum class Wake : std::uint8_t {
    kServed,       // the operation succeeded
    kRemoved,      // the channel was removed
    kTimedOut,     // its deadline passed
    kInterrupted,  // the client was interrupted or died, or its ring entry was needed
    kShutdown,     // the daemon stops
    kPurged,       // sync: the message was purged before it was taken
    kEnded,        // type stream: empty, and the last writer has closed
    kNoSpace,      // durable: the disk is full
    kDiskFailed,   // durable: writing failed
};

class Waiter : public boost::intrusive::list_base_hook<> {
public:
    virtual ~Waiter() = default;

    // Called exactly once, after `why` is set.
    virtual void finish() noexcept = 0;

    Wake why = Wake::kServed;
    // Both under the channel's lock: whether it is in one of the channel's lists, and whether
    // cancel came before it was parked.
    bool parked = false;
    bool cancelled = false;
};

using WaiterList = boost::intrusive::list<Waiter, boost::intrusive::constant_time_size<false>>;

// A channel's two queues: regular messages and dead letters.
enum class Lane : std::uint8_t { kMain, kDead };

// A leased message as its holder sees it. The envelope is a copy from the time of delivery, since
// the message's own changes once the lease ends.
struct Leased {
    std::uint64_t id = 0;  // never reused; 0: none
    Envelope envelope;
};

// An open file's state for end-of-file detection on a channel of type stream.
struct StreamView {
    std::uint64_t since = 0;  // stream_since() at open
    bool has_read = false;    // has received bytes
};

class ReadWaiter : public Waiter {
public:
    MessageRef message;  // if kServed: the message taken
    Lane lane = Lane::kMain;
    bool leases = false;  // take on lease for process `holder`; kMain only
    pid_t holder = 0;
    Leased lease;          // if kServed and `leases`
    bool may_end = false;  // may finish with kEnded, according to `view`
    StreamView view;
};

// How a message arrived: by a write on the file `queue` itself, for which the kernel generates the
// inotify event and holds the inode lock, or in any other way.
enum class Via : std::uint8_t { kQueueFile, kOther };

struct BatchFigures {
    std::uint64_t count = 0;
    std::uint64_t bytes = 0;
    bool critical = true;  // all have priority critical
    // Identifies the client's request: a successor daemon that gets a request left unanswered by a
    // killed one sees the same number. 0: none, or the request cannot be resent.
    std::uint64_t request = 0;
    bool is_nonblocking = false;  // the writer waits for the disk, but not for room
    bool is_prepared = false;     // sequences and times are set, and it is stored if durable
};

// Messages that are enqueued together or not at all.
class Batch : public BatchFigures {
public:
    Batch() = default;
    Batch(Batch&& other) noexcept { *this = std::move(other); }
    Batch& operator=(Batch&& other) noexcept {
        if (this == &other) return *this;
        clear();
        messages.swap(other.messages);
        BatchFigures::operator=(std::exchange(static_cast<BatchFigures&>(other), {}));
        return *this;
    }
    ~Batch() { clear(); }

    void add(MessageRef message) noexcept {
        bytes += message->size();
        if (message->envelope.priority != kCritical) critical = false;
        ++count;
        messages.push_back(*message.detach());
    }
    // For messages that were never queued: chunks of pools stay the sender's.
    void withdraw() noexcept {
        for (Message& message : messages) {
            if (message.payload) message.payload->withdraw();
        }
    }
    void clear() noexcept {
        while (take_front(messages)) {
        }
        count = bytes = 0;
        critical = true;
        is_prepared = false;
    }

    MessageList messages;
};

class WriteWaiter : public Waiter {
public:
    Batch batch;
    Via via = Via::kOther;
    Nanos deadline = kNever;  // set when parked
    // Type sync, once enqueued: how many messages are neither delivered nor withdrawn, and how many
    // of these a reader holds.
    std::uint64_t unresolved = 0;
    std::uint64_t in_flight = 0;
    bool enqueued = false;
    Wake ending = Wake::kInterrupted;  // sync: why it ends once no message is in flight
    bool urgent = false;               // parked with only critical messages
    bool is_staged = false;            // its messages are being written to disk
};

}  // namespace ipcfs::queue
