// What the tree calls, and the types of its answers: pushing, taking, leasing, polling, settings, statistics. An
// operation that waits is one object of the caller's: parked, and finished once, on any thread, without locks.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <utility>
#include <vector>

#include <boost/intrusive/list.hpp>

#include <access/account.hpp>
#include <access/subject.hpp>
#include <base/clock.hpp>
#include <base/result.hpp>
#include <channel/events.hpp>
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
    bool critical = false;  // the ticket's
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

// Where a file's messages come from and go to. Any thread.
class Endpoint {
public:
    virtual ~Endpoint() = default;

    virtual std::uint64_t id() const noexcept = 0;
    virtual Role role() const noexcept = 0;
    // Type topic or multicast, at the moment.
    virtual bool is_topic() const noexcept = 0;
    virtual bool removed() const noexcept = 0;
    virtual EventHub& events() noexcept = 0;
    // Of a user, who is charged for what it opens and sends here.
    virtual access::Account& account(uid_t uid) const noexcept = 0;

    // ---- reading ----
    // Of a topic: a new subscription without a name. It starts with the retained messages that match, and ends
    // with the last reference. Its bounds and policies are the topic's, but it drops the oldest message where the
    // topic blocks. Null when this is no topic or is removed.
    virtual std::shared_ptr<Endpoint> open_subscription(const access::Identity& subscriber,
                                                        access::Account& account) = 0;
    // try_take never waits; take() finishes the waiter at once or parks it. A message that was taken is
    // either delivered() or given back; given back, it is the next one again, flagged. With `room`, kEmpty also
    // when the next one's extensions and body are larger than that. kEnded only with `view`.
    virtual Take try_take(queue::MessageRef& to, std::uint64_t room = UINT64_MAX,
                          Lane lane = Lane::kMain, const StreamView* view = nullptr) noexcept = 0;
    virtual void take(queue::ReadWaiter& waiter) noexcept = 0;
    virtual void delivered(queue::Message& message) noexcept = 0;
    virtual void give_back(queue::MessageRef message) noexcept = 0;
    // How often the last writer has closed; what a StreamView starts with.
    virtual std::uint64_t stream_since() const noexcept = 0;

    // Reading on trial: of `to`, only content and payload may be looked at, see Leased. A lease ends
    // with one of the calls below, at its time (the setting `lease`), or with its holder, and unless
    // it ended with ack or bury, its message comes back: to the front, or as a dead letter if it was
    // given out max-deliveries times. False: the lease had ended already.
    virtual Take try_lease(queue::MessageRef& to, Leased& lease, pid_t holder) noexcept = 0;
    virtual bool ack(std::uint64_t lease) noexcept = 0;
    virtual bool nack(std::uint64_t lease, Nanos delay) noexcept = 0;
    virtual bool extend(std::uint64_t lease, Nanos time) noexcept = 0;  // from now
    virtual bool bury(std::uint64_t lease) noexcept = 0;                // among the dead letters
    virtual bool end_lease(std::uint64_t lease) noexcept = 0;           // its file is closed
    // It never reached its holder: it does not count.
    virtual bool undo_lease(std::uint64_t lease) noexcept = 0;

    // ---- writing ----
    // A message with copies of these, charged to nobody yet. Null without memory.
    virtual queue::MessageRef make_message(std::span<const std::byte> extensions,
                                           std::span<const std::byte> body) const noexcept = 0;
    // On kQueued the batch is empty; otherwise it is untouched. try_push with `may_wait` false answers for a
    // nonblocking writer. push() finishes the waiter at once or parks it; its batch must fit (as try_push with
    // kWait says). It may save large payloads first, which takes long: on another thread.
    virtual Push try_push(queue::Batch& batch, queue::Via via, bool may_wait,
                          WriteTicket* ticket) noexcept = 0;
    virtual void push(queue::WriteWaiter& waiter, WriteTicket* ticket) noexcept = 0;
    // Whether a nonblocking writer of an ordinary message would be told to wait or refused.
    virtual bool full() const noexcept = 0;

    // The gate for opens that only write and may wait. On kOpen `ticket` may hold a credit.
    virtual Gate try_gate(WriteTicket& ticket) noexcept = 0;
    virtual void gate(OpenWaiter& waiter, WriteTicket& ticket) noexcept = 0;
    virtual void leave(WriteTicket& ticket) noexcept = 0;

    // ---- waiting ----
    // Ends a waiter with `why`, unless it is finished or about to be. A cancel that comes before
    // the waiter was parked takes effect then.
    virtual void cancel(queue::ReadWaiter& waiter, queue::Wake why) noexcept = 0;
    virtual void cancel(queue::WriteWaiter& waiter, queue::Wake why) noexcept = 0;
    virtual void cancel(OpenWaiter& waiter, queue::Wake why) noexcept = 0;

    // Poll: what holds now (POLLIN POLLOUT POLLHUP), for a writer of critical messages if `critical`;
    // `fresh`, if any, replaces the slot's ticket. POLLIN is that of `lane`. On type stream, with `view`, its
    // end of file is POLLIN and POLLHUP.
    virtual unsigned poll(PollSlot& slot, std::unique_ptr<PollTicket> fresh, bool critical = false,
                          Lane lane = Lane::kMain, const StreamView* view = nullptr) noexcept = 0;
    virtual void forget(PollSlot& slot) noexcept = 0;

    // ---- open files ----
    // Of messages, for `status` and for the rule that the type changes while unopened. False when it is removed.
    virtual bool opened(bool reads, bool writes) noexcept = 0;
    virtual void closed(bool reads, bool writes) noexcept = 0;
    // A client's kernel keeps the attributes of `queue` from now on, until refresh_attributes(), which a delivery
    // by another file calls.
    virtual void note_attributes_cached() noexcept = 0;
    virtual void refresh_attributes() noexcept = 0;

    // ---- settings and statistics ----
    virtual Settings settings() const = 0;
    // All or nothing. EINVAL, EBUSY; the reason stays in `status`.
    virtual Result<void> control(std::string_view text) = 0;
    // Of role subscription, see Subscription.
    virtual std::string filter() const = 0;
    virtual Result<void> set_filter(std::string_view text) = 0;
    // Publishes an event about the channel itself (created, removed: of a sub-channel).
    virtual void announce(EventKind kind, std::uint64_t detail) noexcept = 0;
    // A text for `last-error` in `status`.
    virtual void note_error(std::string text) noexcept = 0;
    virtual Snapshot snapshot() const = 0;
    virtual std::vector<Listed> list(Lane lane = Lane::kMain) const = 0;
    // Last arrival and delivery, since the epoch.
    virtual std::pair<Nanos, Nanos> times() const noexcept = 0;
};

}  // namespace ipcfs::channel
