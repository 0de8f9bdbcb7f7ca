// A channel: a priority queue with its bounds, the operations that wait at it, its settings,
// counters and events. All state is behind one short lock; whatever calls out (finishing a waiter,
// poll wake-ups, events, the doorbell, freeing) is collected under it and done after it. Any
// thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <sys/types.h>
#include <vector>

#include <boost/intrusive/list.hpp>

#include <access/account.hpp>
#include <base/clock.hpp>
#include <base/guarded.hpp>
#include <base/timer_queue.hpp>
#include <channel/backlog.hpp>
#include <channel/endpoint.hpp>
#include <channel/environment.hpp>
#include <channel/events.hpp>
#include <channel/flow.hpp>
#include <channel/keeper.hpp>
#include <channel/settings.hpp>
#include <channel/waiters.hpp>
#include <insight/histogram.hpp>
#include <queue/message.hpp>
#include <queue/waiter.hpp>

namespace ipcfs::channel {

class Channel;
class Discipline;
class Filter;
class Locked;
class Registry;
class Subscription;
class Topic;
struct Circle;

class Channel final : public Timed, public std::enable_shared_from_this<Channel> {
public:
    Channel(Environment& environment, std::uint64_t id, const Settings& settings);
    // A subscription's, not yet attached; `topic` is the channel that it subscribes to.
    Channel(const std::shared_ptr<Channel>& topic, std::uint64_t id,
            const access::Identity& subscriber, access::Account& account, bool is_named);
    ~Channel() override;
    Channel(const Channel&) = delete;
    Channel& operator=(const Channel&) = delete;

    std::uint64_t id() const noexcept { return id_; }
    Environment& environment() const noexcept { return env_; }
    EventHub& events() noexcept { return hub_; }
    Role role() const noexcept { return subscription_ ? Role::kSubscription : Role::kChannel; }
    // Of a channel of role subscription; else null.
    Subscription* subscription() const noexcept { return subscription_.get(); }
    // Type topic or multicast, at the moment.
    bool is_topic() const noexcept { return is_topic_.load(std::memory_order_relaxed); }

    // A subscription without a name, from now on: it starts with the retained messages that match, and
    // is gone with the last reference. Its messages are taken from its channel(). Bounds and policies
    // are the topic's, but for overflow: drop-oldest where the topic blocks. Null when this is no topic
    // or is removed.
    std::shared_ptr<Subscription> subscribe(const access::Identity& subscriber,
                                            access::Account& account);
    // For the registry: a named one takes part from here on. False when this is no topic, or gone.
    // Without `replay` it does not get what is retained: it has been there before.
    bool attach(Subscription& subscription, bool replay = true) noexcept;
    void detach(Subscription& subscription) noexcept;
    // What a new subscription has.
    Settings subscription_settings() const;

    // Reading. try_take never waits; take() finishes the waiter at once or parks it. A message that
    // was taken is either delivered() or given back; given back, it is the next one again, flagged.
    // With `room`, kEmpty also when the next one's extensions and body are larger than that. kEnded
    // only with `view`.
    Take try_take(queue::MessageRef& to, std::uint64_t room = UINT64_MAX, Lane lane = Lane::kMain,
                  const StreamView* view = nullptr) noexcept;
    void take(queue::ReadWaiter& waiter) noexcept;
    void delivered(queue::Message& message) noexcept;
    void give_back(queue::MessageRef message) noexcept;
    // How often the last writer has closed; what a StreamView starts with.
    std::uint64_t stream_since() const noexcept;

    // Reading on trial: of `to`, only content and payload may be looked at, see Leased. A lease ends
    // with one of the calls below, at its time (the setting `lease`), or with its holder, and unless
    // it ended with ack or bury, its message comes back: to the front, or as a dead letter if it was
    // given out max-deliveries times. False: the lease had ended already.
    Take try_lease(queue::MessageRef& to, Leased& lease, pid_t holder) noexcept;
    bool ack(std::uint64_t lease) noexcept;
    bool nack(std::uint64_t lease, Nanos delay) noexcept;
    bool extend(std::uint64_t lease, Nanos time) noexcept;  // from now
    bool bury(std::uint64_t lease) noexcept;                // among the dead letters
    bool end_lease(std::uint64_t lease) noexcept;           // its file is closed
    bool undo_lease(std::uint64_t lease) noexcept;  // it never reached its holder: does not count
    bool has_lease(std::uint64_t lease) const noexcept;
    // Ends those whose holder is gone. How many. See LeaseWatch.
    std::size_t sweep_leases() noexcept;
    // Whether there are leases. If not, the next one enrols the channel again.
    bool still_leasing() noexcept;

    // Writing. On kQueued the batch is empty; otherwise it is untouched. try_push with `may_wait`
    // false answers for a nonblocking writer. push() finishes the waiter at once or parks it; its
    // batch must fit (as try_push with kWait says).
    Push try_push(queue::Batch& batch, queue::Via via, bool may_wait, WriteTicket* ticket) noexcept;
    void push(queue::WriteWaiter& waiter, WriteTicket* ticket) noexcept;

    // The gate for opens that only write and may wait. On kOpen `ticket` may hold a credit.
    Gate try_gate(WriteTicket& ticket) noexcept;
    void gate(OpenWaiter& waiter, WriteTicket& ticket) noexcept;
    void leave(WriteTicket& ticket) noexcept;

    // Ends a waiter with `why`, unless it is finished or about to be. A cancel that comes before
    // the waiter was parked takes effect then.
    void cancel(queue::ReadWaiter& waiter, queue::Wake why) noexcept;
    void cancel(queue::WriteWaiter& waiter, queue::Wake why) noexcept;
    void cancel(OpenWaiter& waiter, queue::Wake why) noexcept;

    // Poll: what holds now (POLLIN POLLOUT POLLHUP), for a writer of critical messages if `critical`;
    // `fresh`, if any, replaces the slot's ticket.
    // POLLIN is that of `lane`. On type stream, with `view`, its end of file is POLLIN and POLLHUP.
    unsigned poll(PollSlot& slot, std::unique_ptr<PollTicket> fresh, bool critical = false,
                  Lane lane = Lane::kMain, const StreamView* view = nullptr) noexcept;
    void forget(PollSlot& slot) noexcept;

    // Open message files, for `status` and for the rule that the type changes while unopened.
    // Empty when the channel is removed.
    bool opened(bool reads, bool writes) noexcept;
    void closed(bool reads, bool writes) noexcept;

    // All or nothing. EINVAL, EBUSY; the reason stays in `status`.
    Result<void> control(std::string_view text);
    // Publishes an event about the channel itself (created, removed: of a sub-channel).
    void announce(EventKind kind, std::uint64_t detail) noexcept;
    // A text for `last-error` in `status`.
    void note_error(std::string text) noexcept;

    // ENOTEMPTY while messages are queued, delayed, leased or dead. Afterwards everything waiting has ended.
    Result<void> remove();
    bool removed() const noexcept { return removed_.load(std::memory_order_acquire); }
    // The daemon ends: everything waiting ends with kShutdown, and nothing waits any more.
    void shut_down() noexcept;

    // After a restart, before anybody uses it: a message that the store kept, `may_be_seen` where marks
    // of deliveries may have been lost; and the highest key that was ever given.
    void restore(queue::MessageRef message, const store::Recovered& from,
                 bool may_be_seen) noexcept;
    void restore_sequence(std::uint64_t last) noexcept;
    void restore_settings(const Settings& settings) noexcept;
    // Of a topic: what newcomers get, and what its subscriptions have not got yet, or not all of them.
    void restore_retained(queue::MessageRef message) noexcept;
    void publish_again(queue::MessageRef message) noexcept;

    Snapshot snapshot() const;
    Settings settings() const;
    std::vector<Listed> list(Lane lane = Lane::kMain) const;
    std::uint64_t depth() const noexcept;
    // Whether a nonblocking writer of an ordinary message would be told to wait or refused.
    bool full() const noexcept;
    // Last arrival and delivery, since the epoch.
    std::pair<Nanos, Nanos> times() const noexcept;
    // Whether a delivery by another file than `queue` has to refresh what the kernel keeps.
    std::atomic<bool> attributes_cached{false};
    // Owned by the doorbell: whether a ring is pending, and when the last one was (monotonic).
    std::atomic<bool> bell_pending{false};
    std::atomic<Nanos> last_ring{0};

    void on_time(Nanos now) noexcept override;

private:
    friend class Subscription;
    friend class Topic;
    friend class Discipline;
    friend class Locked;
    bool readable() const noexcept;
    bool writable(bool critical) const noexcept;
    Push make_room(Locked& locked, queue::Batch& batch) noexcept;
    Push admit(Locked& locked, queue::Batch& batch, queue::Via via, bool was_waiting);
    void enqueue(Locked& locked, queue::Batch& batch, queue::Via via, queue::WriteWaiter* waiter);
    void stamp_expiry(Locked& locked, queue::Envelope& envelope) noexcept;
    void mind_expiry(Locked& locked, const queue::Envelope& envelope) noexcept;
    bool gather(Locked& locked) noexcept;
    bool let_out(Locked& locked) noexcept;
    void pause_if_high(Locked& locked) noexcept;
    void serve_readers(Locked& locked) noexcept;
    void serve(Locked& locked, queue::ReadWaiter& reader, queue::MessageRef message) noexcept;
    bool hand_over(Locked& locked, queue::MessageRef& message) noexcept;
    void offer(Locked& locked) noexcept;
    void end_stream(Locked& locked) noexcept;
    void note_taken(Locked& locked, queue::Message& message, bool on_lease) noexcept;
    Leased lease_out(Locked& locked, const queue::MessageRef& message, pid_t holder);
    template <class F>
    bool settle(std::uint64_t lease, F&& how) noexcept;
    void requeue(Locked& locked, queue::MessageRef message) noexcept;
    void requeue(Locked& locked, queue::MessageRef message, Nanos delay) noexcept;
    void requeue(Locked& locked, std::vector<queue::MessageRef> messages) noexcept;
    void came_back(Locked& locked) noexcept;
    bool exhausted(const queue::Message& message) const noexcept;
    void to_dead(Locked& locked, queue::MessageRef message) noexcept;
    void serve_dead(Locked& locked) noexcept;
    void redrive(Locked& locked) noexcept;
    void purge(Locked& locked) noexcept;
    void run_leases(Locked& locked) noexcept;

    // Topics (subscribing.cpp). Of the topic:
    void follow_settings() noexcept;
    void refresh_reach() noexcept;                     // without the lock, before publishing
    void retry_publishers(bool is_relieved) noexcept;  // likewise
    std::shared_ptr<Circle> circle() const;            // null when nobody is in it
    void change_filter(Subscription& of, std::shared_ptr<const Filter>& filter,
                       access::Charge& charge) noexcept;
    // Of a subscription, under the topic's lock:
    bool has_room(Locked& topic, Channel& publisher, const queue::Batch& like) noexcept;
    bool receive(Locked& topic, Channel& publisher, queue::Batch& shares,
                 std::uint64_t lost) noexcept;
    void drop_replayed(Locked& topic, bool is_multicast) noexcept;
    void stamp_share(Locked& locked, queue::Message& share) noexcept;
    // And under its own:
    bool blocks_publishers() const noexcept { return settings_.overflow == Overflow::kBlock; }
    bool hold_up(Channel& publisher, bool critical) noexcept;
    void relieve(Locked& locked) noexcept;
    void close_down() noexcept;  // without it

    // Durable channels (durable.cpp).
    struct Commit;
    std::unique_ptr<Keeper> make_keeper(Durable durable) const;
    Push keep_first(Locked& locked, queue::Batch& batch) noexcept;  // kQueued: go on
    Result<store::Lsn> keep(Locked& locked, queue::Batch& batch) noexcept;
    void note_store_fault(const Fault& fault) noexcept;
    void let_in(Locked& locked, queue::WriteWaiter& writer, Push push) noexcept;
    void stage(Locked& locked, queue::WriteWaiter& writer) noexcept;
    void unstage(Locked& locked, queue::WriteWaiter& writer, queue::Wake why) noexcept;
    void end_staged(Locked& locked, queue::Wake why) noexcept;
    void committed(Commit& commit, int error) noexcept;
    void degrade(Locked& locked, int error) noexcept;
    Result<void> change_keeping(const Settings& settings);
    void stamp(Locked& locked, queue::Message& message) noexcept;
    void stamp(Locked& locked, queue::Batch& batch) noexcept;
    void end_queue_file_write(Locked& locked, const queue::WriteWaiter& writer) noexcept;

    void drop(Locked& locked, queue::MessageRef message, queue::Wake why) noexcept;
    std::uint64_t drop_expired(Locked& locked) noexcept;
    void sweep_expired(Locked& locked) noexcept;
    void admit_waiters(Locked& locked) noexcept;
    void let_writers_in(Locked& locked) noexcept;
    void admit_openers(Locked& locked) noexcept;
    void admit_more(Locked& locked) noexcept;
    void ring(Locked& locked) noexcept;
    void pause(Locked& locked) noexcept;
    void park(Locked& locked, queue::WriteWaiter& writer, Nanos deadline) noexcept;
    void enqueue_sync(Locked& locked, queue::WriteWaiter& writer);
    void resolve(Locked& locked, queue::WriteWaiter& writer) noexcept;
    void withdraw(Locked& locked, queue::WriteWaiter& writer, queue::Wake why) noexcept;
    void unpark(Locked& locked, queue::WriteWaiter& writer, queue::Wake why) noexcept;
    void emit(Locked& locked, EventKind kind, std::uint8_t priority, std::uint8_t type,
              std::uint64_t detail) noexcept;
    void arm(Locked& locked, Nanos deadline) noexcept;
    void arm_all(Locked& locked) noexcept;
    void wake_polls(Locked& locked, unsigned events, Lane lane = Lane::kMain) noexcept;
    void end_all(Locked& locked, queue::Wake why) noexcept;
    void apply(Locked& locked, const Settings& settings) noexcept;
    void run(Locked& locked, const Command& command) noexcept;

    Environment& env_;
    const std::uint64_t id_;
    const Nanos created_;
    const std::unique_ptr<Subscription> subscription_;  // role subscription
    EventHub hub_;
    std::atomic<bool> removed_{false};
    std::atomic<bool> is_topic_{false};  // whether topic_ is there

    mutable std::mutex mutex_;
    // Under mutex_:
    Settings settings_;
    Backlog backlog_;
    std::unique_ptr<Keeper> keeper_;  // never null
    bool is_kept_ = false;            // by it; known without looking there
    Waiters waiters_;
    Flow flow_{settings_, backlog_};
    std::vector<Nanos> armed_;  // entries in the timers, falling: the last is the next
    std::uint64_t sequence_ = 0;
    bool is_degraded_ = false;      // a write could not be made durable
    std::vector<Commit*> commits_;  // on their way to the disk
    std::uint64_t open_readers_ = 0, open_writers_ = 0;
    bool made_room_ = false;               // opening it did, see admit_waiters()
    bool enrolled_ = false;                // in Environment::leases
    std::uint64_t queue_file_writes_ = 0;  // parked writes that hold the inode lock of `queue`
    bool bell_deferred_ = false;
    Nanos last_arrival_ = 0, last_delivery_ = 0;
    Nanos epoch_ = 0;  // real time less monotonic time, at the last arrival
    Counters counters_;
    std::unique_ptr<insight::Histogram> latency_;
    std::string last_error_;
    std::unique_ptr<Discipline> discipline_;  // never null: what the type decides
    Type discipline_type_ = Type::kQueue;
    Topic* topic_ = nullptr;  // it, of types topic and multicast
};

}  // namespace ipcfs::channel
