// Leases, dead letters, and the gate of batches. Any thread; every private function runs under the
// channel's lock.
#include <algorithm>
#include <csignal>

#include <channel/channel.hpp>
#include <channel/locked.hpp>

namespace ipcfs::channel {

using queue::Message;
using queue::MessageRef;

namespace {

bool ahead(const MessageRef& a, const MessageRef& b) noexcept {
    return a->envelope.place < b->envelope.place;
}

}  // namespace

// ---- leases -------------------------------------------------------------------------------------

Take Channel::try_lease(MessageRef& to, Leased& lease, pid_t holder) noexcept {
    Locked locked(*this);
    if (removed_.load(std::memory_order_relaxed)) return Take::kRemoved;
    if (!readable()) return Take::kEmpty;
    if (backlog_.may_expire()) drop_expired(locked);
    to = backlog_.take(settings_.schedule);
    if (to) {
        note_taken(locked, *to, true);
        lease = lease_out(locked, to, holder);
    }
    admit_waiters(locked);
    return to ? Take::kTaken : Take::kEmpty;
}

Leased Channel::lease_out(Locked& locked, const MessageRef& message, pid_t holder) {
    ++counters_.leased;
    const Nanos deadline = locked.now() + settings_.lease;
    Leased leased{backlog_.leases.add(message, deadline, holder), message->envelope};
    arm(locked, deadline);
    if (!enrolled_) enrolled_ = locked.effects.enrol = true;
    return leased;
}

bool Channel::has_lease(std::uint64_t lease) const noexcept {
    std::scoped_lock hold(mutex_);
    return backlog_.leases.find(lease) != nullptr;
}

// Ends a lease: settles its message by `how`. False when there is none of that number.
template <class F>
bool Channel::settle(std::uint64_t lease, F&& how) noexcept {
    Locked locked(*this);
    MessageRef message = backlog_.leases.end(lease);
    if (!message) return false;
    how(locked, std::move(message));
    return true;
}

bool Channel::ack(std::uint64_t lease) noexcept {
    return settle(lease, [this](Locked& locked, MessageRef message) {
        ++counters_.acked;
        keeper_->gone(*message);
        locked.discard(std::move(message));
        admit_waiters(locked);
    });
}

bool Channel::nack(std::uint64_t lease, Nanos delay) noexcept {
    return settle(lease, [this, delay](Locked& locked, MessageRef message) {
        ++counters_.nacked;
        requeue(locked, std::move(message), delay);
        came_back(locked);
    });
}

bool Channel::bury(std::uint64_t lease) noexcept {
    return settle(lease, [this](Locked& locked, MessageRef message) {
        ++counters_.lease_buried;
        message->envelope.redelivered = true;
        to_dead(locked, std::move(message));
        admit_waiters(locked);
    });
}

bool Channel::end_lease(std::uint64_t lease) noexcept {
    return settle(lease, [this](Locked& locked, MessageRef message) {
        ++counters_.lease_returns;
        requeue(locked, std::move(message), 0);
        came_back(locked);
    });
}

bool Channel::undo_lease(std::uint64_t lease) noexcept {
    return settle(lease, [this](Locked& locked, MessageRef message) {
        ++counters_.lease_undone;
        --message->envelope.deliveries;
        message->envelope.redelivered = true;
        requeue(locked, std::move(message));
        came_back(locked);
    });
}

bool Channel::extend(std::uint64_t lease, Nanos time) noexcept {
    Locked locked(*this);
    if (!backlog_.leases.find(lease)) return false;
    const Nanos deadline = locked.now() + std::min(time, kNever - locked.now());
    backlog_.leases.extend(lease, deadline);
    arm(locked, deadline);
    return true;
}

// Where a message goes whose lease is over without an ack. Whoever calls this calls came_back().
void Channel::requeue(Locked& locked, MessageRef message, Nanos delay) noexcept {
    message->envelope.redelivered = true;
    if (exhausted(*message)) return to_dead(locked, std::move(message));
    if (delay <= 0) return requeue(locked, std::move(message));
    const Nanos due = locked.now() + std::min(delay, kNever - locked.now());
    keeper_->back(*message, due + epoch_);
    backlog_.delayed.add(std::move(message), due);
    arm(locked, due);
}

bool Channel::exhausted(const Message& message) const noexcept {
    return message.envelope.deliveries >= settings_.max_deliveries;
}

void Channel::requeue(Locked& locked, std::vector<MessageRef> messages) noexcept {
    std::sort(messages.begin(), messages.end(), ahead);
    for (MessageRef& message : messages) {
        if (exhausted(*message)) requeue(locked, std::move(message), 0);
    }
    // The last in line first, so that each one goes to the very front.
    for (auto at = messages.rbegin(); at != messages.rend(); ++at) {
        if (*at) requeue(locked, std::move(*at), 0);
    }
    came_back(locked);
}

void Channel::run_leases(Locked& locked) noexcept {
    const Nanos now = locked.now();
    if (backlog_.leases.earliest() <= now) {
        std::vector<MessageRef> due = backlog_.leases.end_due(now);
        counters_.lease_timeouts += due.size();
        requeue(locked, std::move(due));
    }
    if (backlog_.delayed.earliest() <= now) {
        std::vector<MessageRef> due = backlog_.delayed.take_due(now);
        std::sort(due.begin(), due.end(), ahead);
        for (auto at = due.rbegin(); at != due.rend(); ++at) requeue(locked, std::move(*at));
        came_back(locked);
    }
}

std::size_t Channel::sweep_leases() noexcept {
    std::vector<pid_t> gone;
    {
        std::scoped_lock hold(mutex_);
        gone = backlog_.leases.holders();
    }
    std::erase_if(gone, [](pid_t pid) { return pid <= 0 || kill(pid, 0) == 0 || errno != ESRCH; });
    if (gone.empty()) return 0;
    Locked locked(*this);
    std::vector<MessageRef> back = backlog_.leases.end_if(
        [&](pid_t holder) { return std::binary_search(gone.begin(), gone.end(), holder); });
    const std::size_t ended = back.size();
    counters_.lease_returns += ended;
    if (ended > 0) requeue(locked, std::move(back));
    return ended;
}

bool Channel::still_leasing() noexcept {
    std::scoped_lock hold(mutex_);
    return enrolled_ = !backlog_.leases.empty();
}

// ---- dead letters -------------------------------------------------------------------------------

// Whoever calls this reconsiders: a dead letter takes no room.
void Channel::to_dead(Locked& locked, MessageRef message) noexcept {
    queue::Envelope& envelope = message->envelope;
    ++counters_.dead;
    envelope.dead = true;
    envelope.place = backlog_.new_place();
    emit(locked, EventKind::kDead, envelope.priority, envelope.type, envelope.deliveries);
    keeper_->back(*message, 0);
    backlog_.dead.push_back(std::move(message));
    serve_dead(locked);
}

// All dead letters to the back of the queue, as if they had just come, whatever the bounds say.
void Channel::redrive(Locked& locked) noexcept {
    if (backlog_.dead.empty()) return;
    const Nanos now = locked.now();
    backlog_.dead.for_each([&](Message& message) {
        queue::Envelope& envelope = message.envelope;
        ++counters_.redriven;
        envelope.dead = false;
        envelope.deliveries = 0;
        envelope.place = backlog_.new_place();
        envelope.enqueued = now;
        stamp_expiry(locked, envelope);
        keeper_->back(message, 0);
        emit(locked, EventKind::kArrival, envelope.priority, envelope.type, message.total());
        backlog_.add(backlog_.dead.remove(message));
        return true;
    });
    gather(locked);
    offer(locked);
    pause_if_high(locked);
    ring(locked);
    admit_more(locked);
}

// ---- the gate of batches ------------------------------------------------------------------------

// After messages came, or time has passed. Whether the gate let some out.
bool Channel::gather(Locked& locked) noexcept {
    if (!backlog_.gated()) return false;
    // More than up to the high mark would not come.
    if (backlog_.gather(locked.now(), settings_.high_mark())) return let_out(locked);
    if (const Nanos next = backlog_.next_event(); next != kNever) arm(locked, next);
    return false;
}

// True. Readers may take more than what has just come.
bool Channel::let_out(Locked& locked) noexcept {
    const std::uint64_t before = backlog_.load();
    offer(locked);
    made_room_ |= backlog_.load() < before;
    return true;
}

}  // namespace ipcfs::channel
