// A channel: an Endpoint over a Core. What calls out (finishing a waiter, poll wake-ups, events, the doorbell, freeing)
// is collected under the channel's lock and done after it, by Locked. Any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <sys/types.h>
#include <vector>

#include <access/account.hpp>
#include <base/clock.hpp>
#include <base/timer_queue.hpp>
#include <channel/core.hpp>
#include <channel/endpoint.hpp>

namespace ipcfs::channel {

class Locked;

class Channel final : public Endpoint, public Timed, public std::enable_shared_from_this<Channel> {
public:
    Channel(Environment& environment, std::uint64_t id, const Settings& settings);
    // A subscription's, not yet attached; `topic` is the channel that it subscribes to.
    Channel(const std::shared_ptr<Channel>& topic, std::uint64_t id,
            const access::Identity& subscriber, access::Account& account, bool is_named);
    ~Channel() override;
    Channel(const Channel&) = delete;
    Channel& operator=(const Channel&) = delete;

    // For src/channel.
    Core& core() noexcept { return core_; }
    std::shared_ptr<Channel> self() { return shared_from_this(); }

    std::uint64_t id() const noexcept override { return core_.id; }
    Role role() const noexcept override {
        return core_.subscription ? Role::kSubscription : Role::kChannel;
    }
    bool is_topic() const noexcept override {
        return core_.is_topic.load(std::memory_order_relaxed);
    }
    bool removed() const noexcept override {
        return core_.is_removed.load(std::memory_order_acquire);
    }
    EventHub& events() noexcept override { return core_.hub; }
    access::Account& account(uid_t uid) const noexcept override {
        return core_.env.ledger.account(uid);
    }

    // ---- as a topic, and as a subscription ----
    // Of a channel of role subscription; else null.
    Subscription* subscription() const noexcept { return core_.subscription.get(); }
    // See open_subscription().
    std::shared_ptr<Subscription> subscribe(const access::Identity& subscriber,
                                            access::Account& account);
    std::shared_ptr<Endpoint> open_subscription(const access::Identity& subscriber,
                                                access::Account& account) override;
    // For the registry: a named one takes part from here on. False when this is no topic, or gone.
    // Without `replay` it does not get what is retained: it has been there before.
    bool attach(Subscription& subscription, bool replay = true) noexcept;
    void detach(Subscription& subscription) noexcept;
    std::string filter() const override;
    Result<void> set_filter(std::string_view text) override;

    // ---- reading ----
    Take try_take(queue::MessageRef& to, std::uint64_t room = UINT64_MAX, Lane lane = Lane::kMain,
                  const StreamView* view = nullptr) noexcept override;
    void take(queue::ReadWaiter& waiter) noexcept override;
    void delivered(queue::Message& message) noexcept override;
    void give_back(queue::MessageRef message) noexcept override;
    std::uint64_t stream_since() const noexcept override;

    Take try_lease(queue::MessageRef& to, Leased& lease, pid_t holder) noexcept override;
    bool ack(std::uint64_t lease) noexcept override;
    bool nack(std::uint64_t lease, Nanos delay) noexcept override;
    bool extend(std::uint64_t lease, Nanos time) noexcept override;
    bool bury(std::uint64_t lease) noexcept override;
    bool end_lease(std::uint64_t lease) noexcept override;
    bool undo_lease(std::uint64_t lease) noexcept override;
    // Ends those whose holder is gone. How many. See LeaseWatch.
    std::size_t sweep_leases() noexcept;
    // Whether there are leases. If not, the next one enrols the channel again.
    bool still_leasing() noexcept;

    // ---- writing ----
    queue::MessageRef make_message(std::span<const std::byte> extensions,
                                   std::span<const std::byte> body) const noexcept override;
    Push try_push(queue::Batch& batch, queue::Via via, bool may_wait,
                  WriteTicket* ticket) noexcept override;
    void push(queue::WriteWaiter& waiter, WriteTicket* ticket) noexcept override;
    bool full() const noexcept override;
    Gate try_gate(WriteTicket& ticket) noexcept override;
    void gate(OpenWaiter& waiter, WriteTicket& ticket) noexcept override;
    void leave(WriteTicket& ticket) noexcept override;

    // ---- waiting, open files ----
    void cancel(queue::ReadWaiter& waiter, queue::Wake why) noexcept override;
    void cancel(queue::WriteWaiter& waiter, queue::Wake why) noexcept override;
    void cancel(OpenWaiter& waiter, queue::Wake why) noexcept override;
    unsigned poll(PollSlot& slot, std::unique_ptr<PollTicket> fresh, bool critical = false,
                  Lane lane = Lane::kMain, const StreamView* view = nullptr) noexcept override;
    void forget(PollSlot& slot) noexcept override;
    bool opened(bool reads, bool writes) noexcept override;
    void closed(bool reads, bool writes) noexcept override;
    void note_attributes_cached() noexcept override;
    void refresh_attributes() noexcept override;

    // ---- settings, time, end ----
    Settings settings() const override;
    Result<void> control(std::string_view text) override;
    void announce(EventKind kind, std::uint64_t detail) noexcept override;
    void note_error(std::string text) noexcept override;
    Snapshot snapshot() const override;
    std::vector<Listed> list(Lane lane = Lane::kMain) const override;
    std::pair<Nanos, Nanos> times() const noexcept override;
    void on_time(Nanos now) noexcept override;
    // ENOTEMPTY while messages are queued, delayed, leased or dead. Afterwards everything waiting has ended.
    Result<void> remove();
    // Of a subscription that is over: drops what it has, and ends as after remove().
    void close_down() noexcept;
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

    // The doorbell's: whether a ring is pending, and when the last one was (monotonic).
    std::atomic<bool> bell_pending{false};
    std::atomic<Nanos> last_ring{0};

private:
    void push_now(queue::WriteWaiter& waiter, WriteTicket* ticket) noexcept;
    template <class W, class L>
    void cancel_in(L& line, W& waiter, queue::Wake why) noexcept;
    Result<void> change(std::string_view text);
    void apply(Locked& locked, const Settings& settings) noexcept;
    void run(Locked& locked, const Command& command) noexcept;
    void end_all(Locked& locked, queue::Wake why) noexcept;

    std::atomic<bool> attributes_cached_{false};
    Core core_;
};

}  // namespace ipcfs::channel
