// Operations that wait at a channel (after NNG's aio: one object with one cancel). A waiter is
// parked under the channel's lock, unlinked under it for whatever reason comes first, and finished
// exactly once, on any thread, with no lock held. The door owns it and keeps it alive until
// finish() returns.
#pragma once

#include <atomic>
#include <cstdint>
#include <sys/types.h>

#include <boost/intrusive/list.hpp>

#include <base/clock.hpp>
#include <queue/priority_queue.hpp>

namespace ipcfs::queue {

enum class Wake : std::uint8_t {
    kServed,       // it has what it waited for
    kRemoved,      // the channel is gone
    kTimedOut,     // its time is over
    kInterrupted,  // the client was interrupted or died, or an entry was needed
    kShutdown,     // the daemon ends
    kPurged,       // sync: the message was purged before it was taken
    kEnded,        // type stream: empty, and the last writer has closed
    kNoSpace,      // durable: the disk is full
    kDiskFailed,   // durable: it could not be written
};

class Waiter : public boost::intrusive::list_base_hook<> {
public:
    virtual ~Waiter() = default;

    // Called once. `why` says how it ended.
    virtual void finish() noexcept = 0;

    Wake why = Wake::kServed;
    // Under the channel's lock: whether it is in one of the channel's lists; and whether a cancel
    // came before it was parked.
    bool parked = false;
    bool cancelled = false;
};

using WaiterList = boost::intrusive::list<Waiter, boost::intrusive::constant_time_size<false>>;

// What a channel keeps for readers: its queue, and its dead letters.
enum class Lane : std::uint8_t { kMain, kDead };

// A message on trial, as its holder sees it. The envelope is as it was when it was given out, since
// the message's own changes once the lease has ended.
struct Leased {
    std::uint64_t id = 0;  // never used again; 0: none
    Envelope envelope;
};

// What an open file knows of a channel of type stream, for its end of file.
struct StreamView {
    std::uint64_t since = 0;  // stream_since() when it was opened
    bool has_read = false;    // it has got bytes
};

class ReadWaiter : public Waiter {
public:
    MessageRef message;  // kServed: what was taken
    Lane lane = Lane::kMain;
    bool leases = false;  // takes on lease, for the process `holder`; kMain only
    pid_t holder = 0;
    Leased lease;          // kServed, if `leases`
    bool may_end = false;  // finished with kEnded as `view` says
    StreamView view;
};

// How a message came: a write on the file `queue` itself, for which the kernel makes the inotify
// event and holds the inode lock, or any other way.
enum class Via : std::uint8_t { kQueueFile, kOther };

// One or several messages that are enqueued together or not at all.
class Batch {
public:
    Batch() = default;
    Batch(Batch&& other) noexcept { take(other); }
    Batch& operator=(Batch&& other) noexcept {
        if (this != &other) {
            clear();
            take(other);
        }
        return *this;
    }
    ~Batch() { clear(); }

    void add(MessageRef message) noexcept {
        bytes += message->size();
        if (message->size() > largest) largest = message->size();
        if (message->envelope.priority != kCritical) critical = false;
        ++count;
        messages.push_back(*message.detach());
    }
    // They were never queued: chunks of pools stay the sender's.
    void withdraw() noexcept {
        for (Message& message : messages) {
            if (message.payload) message.payload->withdraw();
        }
    }
    void clear() noexcept {
        while (take_front(messages)) {
        }
        count = bytes = largest = 0;
        critical = true;
        is_prepared = false;
    }

    MessageList messages;
    std::uint64_t count = 0;
    std::uint64_t bytes = 0;
    std::uint64_t largest = 0;
    bool critical = true;  // all of them are
    // The client's request that brought it, as the door names it: the same for one that a killed daemon
    // left unanswered and its successor is given again. 0: none, or it cannot come again.
    std::uint64_t request = 0;
    bool is_nonblocking = false;  // its writer waits for a disk, but not for room
    bool is_prepared =
        false;  // sequences and times are given, and it is in the store if it has to be

private:
    void take(Batch& other) noexcept {
        request = other.request;
        is_nonblocking = other.is_nonblocking;
        is_prepared = other.is_prepared;
        messages.swap(other.messages);
        count = other.count;
        bytes = other.bytes;
        largest = other.largest;
        critical = other.critical;
        other.clear();
    }
};

class WriteWaiter : public Waiter {
public:
    Batch batch;
    Via via = Via::kOther;
    Nanos deadline = kNever;  // set when parked
    // Type sync, once enqueued: messages neither delivered nor withdrawn yet, and of these the ones
    // that are in a reader's hands.
    std::uint64_t unresolved = 0;
    std::uint64_t in_flight = 0;
    bool enqueued = false;
    Wake ending = Wake::kInterrupted;  // sync: why it was withdrawn while messages were in flight
    bool urgent = false;               // parked with critical messages only
    bool is_staged = false;            // its messages are on their way to the disk
};

}  // namespace ipcfs::queue
