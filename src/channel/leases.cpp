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
    if (earliest_expiry_ != kNever) drop_expired(locked);
    to = take_next();
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
    Leased leased{leases_.add(message, deadline, holder), message->envelope};
    arm(locked, deadline);
    if (!enrolled_) enrolled_ = locked.effects.enrol = true;
    return leased;
}

bool Channel::has_lease(std::uint64_t lease) const noexcept {
    std::scoped_lock hold(mutex_);
    return leases_.find(lease) != nullptr;
}

bool Channel::ack(std::uint64_t lease) noexcept {
    Locked locked(*this);
    MessageRef message = leases_.end(lease);
    if (!message) return false;
    ++counters_.acked;
    stored_gone(locked, *message);
    locked.discard(std::move(message));
    admit_waiters(locked);
    return true;
}

bool Channel::nack(std::uint64_t lease, Nanos delay) noexcept {
    Locked locked(*this);
    MessageRef message = leases_.end(lease);
    if (!message) return false;
    ++counters_.nacked;
    requeue(locked, std::move(message), delay);
    came_back(locked);
    return true;
}

bool Channel::extend(std::uint64_t lease, Nanos time) noexcept {
    Locked locked(*this);
    if (!leases_.find(lease)) return false;
    const Nanos deadline = locked.now() + std::min(time, kNever - locked.now());
    leases_.extend(lease, deadline);
    arm(locked, deadline);
    return true;
}

bool Channel::bury(std::uint64_t lease) noexcept {
    Locked locked(*this);
    MessageRef message = leases_.end(lease);
    if (!message) return false;
    ++counters_.lease_buried;
    message->envelope.redelivered = true;
    to_dead(locked, std::move(message));
    admit_waiters(locked);
    return true;
}

bool Channel::end_lease(std::uint64_t lease) noexcept {
    Locked locked(*this);
    MessageRef message = leases_.end(lease);
    if (!message) return false;
    ++counters_.lease_returns;
    requeue(locked, std::move(message), 0);
    came_back(locked);
    return true;
}

bool Channel::undo_lease(std::uint64_t lease) noexcept {
    Locked locked(*this);
    MessageRef message = leases_.end(lease);
    if (!message) return false;
    ++counters_.lease_undone;
    --message->envelope.deliveries;
    message->envelope.redelivered = true;
    requeue(locked, std::move(message));
    came_back(locked);
    return true;
}

// Where a message goes whose lease is over without an ack. Whoever calls this calls came_back().
void Channel::requeue(Locked& locked, MessageRef message, Nanos delay) noexcept {
    message->envelope.redelivered = true;
    if (exhausted(*message)) return to_dead(locked, std::move(message));
    if (delay <= 0) return requeue(locked, std::move(message));
    const Nanos due = locked.now() + std::min(delay, kNever - locked.now());
    stored_back(locked, *message, due);
    delayed_.add(std::move(message), due);
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
    if (leases_.earliest() <= now) {
        std::vector<MessageRef> due = leases_.end_due(now);
        counters_.lease_timeouts += due.size();
        requeue(locked, std::move(due));
    }
    if (delayed_.earliest() <= now) {
        std::vector<MessageRef> due = delayed_.take_due(now);
        std::sort(due.begin(), due.end(), ahead);
        for (auto at = due.rbegin(); at != due.rend(); ++at) requeue(locked, std::move(*at));
        came_back(locked);
    }
}

std::size_t Channel::sweep_leases() noexcept {
    std::vector<pid_t> gone;
    {
        std::scoped_lock hold(mutex_);
        gone = leases_.holders();
    }
    std::erase_if(gone, [](pid_t pid) { return pid <= 0 || kill(pid, 0) == 0 || errno != ESRCH; });
    if (gone.empty()) return 0;
    Locked locked(*this);
    std::vector<MessageRef> back = leases_.end_if(
        [&](pid_t holder) { return std::binary_search(gone.begin(), gone.end(), holder); });
    const std::size_t ended = back.size();
    counters_.lease_returns += ended;
    if (ended > 0) requeue(locked, std::move(back));
    return ended;
}

bool Channel::still_leasing() noexcept {
    std::scoped_lock hold(mutex_);
    return enrolled_ = !leases_.empty();
}

std::size_t sweep_leases(Environment& environment) {
    using List = std::vector<std::weak_ptr<Channel>>;
    List all = environment.leasing.with([](List& list) { return std::exchange(list, {}); });
    if (all.empty()) return 0;
    std::size_t ended = 0;
    std::erase_if(all, [&](const std::weak_ptr<Channel>& weak) {
        auto channel = weak.lock();
        if (!channel) return true;
        ended += channel->sweep_leases();
        return !channel->still_leasing();
    });
    environment.leasing.with([&](List& list) { list.insert(list.end(), all.begin(), all.end()); });
    return ended;
}

// ---- dead letters -------------------------------------------------------------------------------

// Whoever calls this reconsiders: a dead letter takes no room.
void Channel::to_dead(Locked& locked, MessageRef message) noexcept {
    queue::Envelope& envelope = message->envelope;
    ++counters_.dead;
    envelope.dead = true;
    envelope.place = ++place_;
    emit(locked, EventKind::kDead, envelope.priority, envelope.type, envelope.deliveries);
    stored_dead(locked, *message);
    dead_.push_back(std::move(message));
    serve_dead(locked);
}

// All dead letters to the back of the queue, as if they had just come, whatever the bounds say.
void Channel::redrive(Locked& locked) noexcept {
    if (dead_.empty()) return;
    const Nanos now = locked.now();
    dead_.for_each([&](Message& message) {
        queue::Envelope& envelope = message.envelope;
        ++counters_.redriven;
        envelope.dead = false;
        envelope.deliveries = 0;
        envelope.place = ++place_;
        envelope.enqueued = now;
        stamp_expiry(locked, envelope);
        stored_redriven(locked, message);
        emit(locked, EventKind::kArrival, envelope.priority, envelope.type, message.total());
        queue_.push_back(dead_.remove(message));
        return true;
    });
    gather(locked);
    offer(locked);
    pause_if_high(locked);
    ring(locked);
    admit_more(locked);
}

// ---- the gate of batches ------------------------------------------------------------------------

// After messages came, or time has passed: lets them out, if there are enough or the first has waited
// for long enough. Whether it did.
bool Channel::gather(Locked& locked) noexcept {
    if (!gated() || queue_.size() == ready_) return false;
    if (gathering_since_ == kNever) gathering_since_ = locked.now();
    // More than up to the high mark would not come.
    const std::uint64_t enough = std::min<std::uint64_t>(gate_.count, settings_.high_mark());
    const Nanos due = gathering_since_ + gate_.delay;
    if (queue_.size() - ready_ >= enough || due <= locked.now()) return open_gate(locked);
    arm(locked, due);
    return false;
}

// Whether that let something out.
bool Channel::open_gate(Locked& locked) noexcept {
    if (!gated() || queue_.size() == ready_) return false;
    ready_ = queue_.size();
    gathering_since_ = kNever;
    // Readers may take more than what has just come.
    const std::uint64_t before = load();
    offer(locked);
    made_room_ |= load() < before;
    return true;
}

}  // namespace ipcfs::channel
