// What becomes of a channel and of what waits there. Any thread.
#include <poll.h>

#include <channel/discipline.hpp>
#include <channel/duties.hpp>
#include <channel/subscription.hpp>
#include <channel/topic.hpp>

namespace ipcfs::channel {

Core::Core(Channel& its_channel, Environment& environment, std::uint64_t its_id,
           const Settings& first, std::unique_ptr<Subscription> its_subscription)
    : channel(its_channel),
      env(environment),
      id(its_id),
      created(environment.clock.realtime()),
      subscription(std::move(its_subscription)),
      settings(first),
      backlog(first.batch_gate()) {
    follow_settings();
}

Core::~Core() = default;

bool Core::writable(bool critical) const noexcept {
    return !flow.held() && discipline->is_writable(critical);
}

void Core::follow_settings() noexcept {
    if (!discipline || discipline->type != settings.type) {
        discipline = make_discipline(*this);
        topic = dynamic_cast<Topic*>(discipline.get());
        const bool was_topic = is_topic.exchange(topic != nullptr, std::memory_order_relaxed);
        if (was_topic || topic) env.recursion.changed();
    }
    const Durable durable = env.store ? settings.durable : Durable::kOff;
    if (!keeper || keeper->durable() != durable) {
        const std::uint64_t last = keeper ? keeper->last_key() : 0;
        if (durable == Durable::kOff) {
            keeper = std::make_unique<NoKeeper>(last);
        } else {
            keeper = std::make_unique<StoreKeeper>(*env.store, id, durable, subscription != nullptr,
                                                   last);
        }
    }
    is_kept = durable != Durable::kOff;
    if (subscription) subscription->follow(settings);
}

Channel::Channel(Environment& environment, std::uint64_t id, const Settings& settings)
    : core_(*this, environment, id, settings, nullptr) {}

Channel::Channel(const std::shared_ptr<Channel>& topic, std::uint64_t id,
                 const access::Identity& subscriber, access::Account& account, bool is_named)
    : core_(*this, topic->core_.env, id, Subscription::initial_settings(*topic, is_named),
            std::make_unique<Subscription>(core_, topic, subscriber, account, is_named)) {}

Channel::~Channel() {
    if (core_.subscription) core_.subscription->leave();
}

// ---- ending waits -------------------------------------------------------------------------------

template <class W, class L>
void Channel::cancel_in(L& line, W& waiter, Wake why) noexcept {
    Locked locked(core_);
    waiter.cancelled = true;
    if (!waiter.parked) return;
    line.remove(waiter);
    locked.finish(waiter, why);
}

void Channel::cancel(ReadWaiter& waiter, Wake why) noexcept {
    cancel_in(core_.waiters.line(waiter.lane), waiter, why);
}

void Channel::cancel(OpenWaiter& waiter, Wake why) noexcept {
    cancel_in(core_.waiters.openers, waiter, why);
}

void Channel::cancel(WriteWaiter& waiter, Wake why) noexcept {
    Locked locked(core_);
    if (!waiter.parked) {
        waiter.cancelled = true;
    } else if (waiter.enqueued) {
        rendezvous::withdraw(locked, waiter, why);
    } else if (waiter.is_staged) {
        committing::unstage(locked, waiter, why);
    } else {
        writing::unpark(locked, waiter, why);
    }
}

void Channel::end_all(Locked& locked, Wake why) noexcept {
    Waiters& waiters = core_.waiters;
    const auto end_line = [&](auto& line) {
        while (auto* const waiter = line.first()) {
            line.remove(*waiter);
            locked.finish(*waiter, why);
        }
    };
    end_line(waiters.readers);
    end_line(waiters.dead_readers);
    end_line(waiters.openers);
    while (WriteWaiter* const writer = waiters.writers.first()) {
        writing::unpark(locked, *writer, why);
    }
    waiters.enqueued.for_each(
        [&](WriteWaiter& writer) { rendezvous::withdraw(locked, writer, why); });
    committing::unstage_all(locked, why);
    locked.wake_polls(kHangUp);
}

Result<void> Channel::remove() {
    Locked locked(core_);
    if (core_.backlog.load() > 0 || !core_.backlog.dead.empty()) {
        return Fault{ENOTEMPTY, "messages are queued, leased or dead letters; purge first"};
    }
    if (auto may = core_.discipline->may_be_removed(); !may) return may;
    core_.discipline->end(locked);
    core_.is_removed.store(true, std::memory_order_release);
    end_all(locked, Wake::kRemoved);
    locked.emit(EventKind::kRemoved, 0);
    return {};
}

void Channel::close_down() noexcept {
    Locked locked(core_);
    reading::purge(locked);
    core_.is_removed.store(true, std::memory_order_release);
    end_all(locked, Wake::kRemoved);
    core_.subscription->release_publishers(locked);
}

void Channel::shut_down() noexcept {
    Locked locked(core_);
    core_.flow.go_down();
    end_all(locked, Wake::kShutdown);
    core_.discipline->shut_down(locked);
}

void Channel::on_time(Nanos now) noexcept {
    Topic::refresh_reach(core_);
    Locked locked(core_);
    while (!core_.armed.empty() && core_.armed.back() <= now) core_.armed.pop_back();
    if (core_.removed()) return;
    if (core_.flow.held_until() <= now) run(locked, Command{Command::Kind::kResume, 0, {}});
    core_.waiters.writers.for_each([&](WriteWaiter& writer) {
        if (writer.deadline > now) return;
        ++core_.counters.timed_out;
        writing::unpark(locked, writer, Wake::kTimedOut);
    });
    core_.waiters.enqueued.for_each([&](WriteWaiter& writer) {
        if (writer.deadline > now || writer.cancelled) return;
        ++core_.counters.timed_out;
        rendezvous::withdraw(locked, writer, Wake::kTimedOut);
    });
    leasing::run(locked);
    // The arrivals could not be read before.
    if (writing::open_gate_if_due(locked) && !core_.backlog.empty()) locked.ring();
    if (core_.has_made_room) writing::admit_waiters(locked);
    if (reading::drop_expired(locked, true) > 0) writing::admit_waiters(locked);
    writing::admit_openers(locked);
    locked.arm_next();
}

// ---- poll ---------------------------------------------------------------------------------------

unsigned Channel::poll(PollSlot& slot, std::unique_ptr<PollTicket> fresh, bool critical, Lane lane,
                       const StreamView* view) noexcept {
    std::unique_ptr<PollTicket> old;
    Locked locked(core_);
    if (core_.removed()) return POLLIN | POLLOUT | POLLHUP;
    if (core_.backlog.may_expire() && core_.readable() && reading::drop_expired(locked) > 0) {
        writing::admit_waiters(locked);
    }
    if (fresh) {
        fresh->critical = critical;
        fresh->lane = lane;
    }
    old = core_.waiters.replace(slot, std::move(fresh));
    if (lane == Lane::kDead) {
        return !core_.flow.down() && !core_.backlog.dead.empty() ? POLLIN : 0U;
    }
    if (view && core_.discipline->has_ended(*view)) return POLLIN | POLLHUP;
    return (core_.readable() ? POLLIN : 0U) | (core_.writable(critical) ? POLLOUT : 0U);
}

void Channel::forget(PollSlot& slot) noexcept {
    std::unique_ptr<PollTicket> old;
    std::scoped_lock hold(core_.mutex);
    old = core_.waiters.replace(slot, nullptr);
}

void Channel::note_attributes_cached() noexcept {
    attributes_cached_.store(true, std::memory_order_relaxed);
}

}  // namespace ipcfs::channel
