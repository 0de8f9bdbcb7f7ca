// Any thread.
#include <algorithm>
#include <csignal>

#include <channel/discipline.hpp>
#include <channel/duties.hpp>

namespace ipcfs::channel {

namespace leasing {
namespace {

// The last in line first: so that each one goes to the very front.
void sort_backwards(std::vector<MessageRef>& messages) noexcept {
    std::sort(messages.begin(), messages.end(), [](const MessageRef& a, const MessageRef& b) {
        return a->envelope.position > b->envelope.position;
    });
}

bool is_exhausted(const Locked& locked, const Message& message) noexcept {
    return message.envelope.deliveries >= locked->settings.max_deliveries;
}

// The caller admits whoever waits for room: a dead letter takes none.
void to_dead(Locked& locked, MessageRef message) noexcept {
    Envelope& envelope = message->envelope;
    ++locked->counters.dead;
    envelope.redelivered = envelope.dead = true;
    envelope.position = locked->backlog.new_position();
    locked.emit(EventKind::kDead, envelope.deliveries, envelope.priority, envelope.type);
    locked->keeper->back(*message, 0);
    locked->backlog.dead.push_back(std::move(message));
    reading::serve_dead(locked);
}

// A message whose lease is over without an ack. The caller calls after_requeue().
void end_without_ack(Locked& locked, MessageRef message, Nanos delay) noexcept {
    message->envelope.redelivered = true;
    if (is_exhausted(locked, *message)) return to_dead(locked, std::move(message));
    if (delay <= 0) return requeue(locked, std::move(message));
    const Nanos due = locked.now() + std::min(delay, kNever - locked.now());
    locked->keeper->back(*message, due + locked->epoch);
    locked->backlog.leases.add(std::move(message), due, queue::Leases::kNobody);
    locked.arm(due);
}

void end_without_ack(Locked& locked, std::vector<MessageRef> messages) noexcept {
    sort_backwards(messages);
    // Dead letters are in the order in which they were in line.
    for (auto at = messages.rbegin(); at != messages.rend(); ++at) {
        if (is_exhausted(locked, **at)) end_without_ack(locked, std::move(*at), 0);
    }
    for (MessageRef& message : messages) {
        if (message) end_without_ack(locked, std::move(message), 0);
    }
    after_requeue(locked);
}

// Ends a lease: settles its message by `how`. False when there is none of that number.
template <class F>
bool settle(Core& core, std::uint64_t lease, F&& how) noexcept {
    Locked locked(core);
    MessageRef message = core.backlog.leases.end(lease);
    if (!message) return false;
    how(locked, std::move(message));
    return true;
}

}  // namespace

Leased begin(Locked& locked, const MessageRef& message, pid_t holder) {
    ++locked->counters.leased;
    const Nanos deadline = locked.now() + locked->settings.lease;
    Leased leased{locked->backlog.leases.add(message, deadline, holder), message->envelope};
    locked.arm(deadline);
    if (!locked->is_enrolled) locked->is_enrolled = locked.effects.enrol = true;
    return leased;
}

void requeue(Locked& locked, MessageRef message) noexcept {
    if (locked->backlog.note_expiry(message->envelope)) locked.arm(message->envelope.expires);
    locked->keeper->back(*message, 0);
    locked->backlog.put_back(std::move(message));
}

void after_requeue(Locked& locked) noexcept {
    reading::offer(locked);
    if (!locked->backlog.empty()) locked.ring();
    writing::admit_waiters(locked);
}

void run(Locked& locked) noexcept {
    queue::Leases& leases = locked->backlog.leases;
    if (auto due = leases.end_due(locked.now(), false); !due.empty()) {
        locked->counters.lease_timeouts += due.size();
        end_without_ack(locked, std::move(due));
    }
    if (auto due = leases.end_due(locked.now(), true); !due.empty()) {
        sort_backwards(due);
        for (MessageRef& message : due) requeue(locked, std::move(message));
        after_requeue(locked);
    }
}

void redrive(Locked& locked) noexcept {
    Backlog& backlog = locked->backlog;
    if (backlog.dead.empty()) return;
    backlog.dead.for_each([&](Message& message) {
        Envelope& envelope = message.envelope;
        ++locked->counters.redriven;
        envelope.dead = false;
        envelope.deliveries = 0;
        envelope.position = backlog.new_position();
        envelope.enqueued = locked.now();
        Backlog::set_expiry(envelope, locked->settings.ttl, locked.now(), locked.realtime());
        backlog.note_expiry(envelope);
        locked->keeper->back(message, 0);
        locked.emit(EventKind::kArrival, message.total(), envelope.priority, envelope.type);
        locked->discipline->enqueue(backlog.dead.remove(message));
        return true;
    });
    locked.arm(backlog.next_event());
    writing::open_gate_if_due(locked);
    reading::offer(locked);
    writing::pause_if_high(locked);
    locked.ring();
    writing::admit_more(locked);
}

}  // namespace leasing

// ---- what the tree calls ------------------------------------------------------------------------

Take Channel::try_lease(MessageRef& to, Leased& lease, pid_t holder) noexcept {
    Locked locked(core_);
    if (core_.removed()) return Take::kRemoved;
    to = reading::take(locked, UINT64_MAX, &lease, holder);
    return to ? Take::kTaken : Take::kEmpty;
}

bool Channel::ack(std::uint64_t lease) noexcept {
    return leasing::settle(core_, lease, [](Locked& locked, MessageRef message) {
        ++locked->counters.acked;
        locked.discard(std::move(message));
        writing::admit_waiters(locked);
    });
}

bool Channel::nack(std::uint64_t lease, Nanos delay) noexcept {
    return leasing::settle(core_, lease, [delay](Locked& locked, MessageRef message) {
        ++locked->counters.nacked;
        leasing::end_without_ack(locked, std::move(message), delay);
        leasing::after_requeue(locked);
    });
}

bool Channel::bury(std::uint64_t lease) noexcept {
    return leasing::settle(core_, lease, [](Locked& locked, MessageRef message) {
        ++locked->counters.lease_buried;
        leasing::to_dead(locked, std::move(message));
        writing::admit_waiters(locked);
    });
}

bool Channel::end_lease(std::uint64_t lease) noexcept {
    return leasing::settle(core_, lease, [](Locked& locked, MessageRef message) {
        ++locked->counters.lease_returns;
        leasing::end_without_ack(locked, std::move(message), 0);
        leasing::after_requeue(locked);
    });
}

bool Channel::undo_lease(std::uint64_t lease) noexcept {
    return leasing::settle(core_, lease, [](Locked& locked, MessageRef message) {
        ++locked->counters.lease_undone;
        --message->envelope.deliveries;
        message->envelope.redelivered = true;
        leasing::requeue(locked, std::move(message));
        leasing::after_requeue(locked);
    });
}

bool Channel::extend(std::uint64_t lease, Nanos time) noexcept {
    Locked locked(core_);
    if (!core_.backlog.leases.find(lease)) return false;
    const Nanos deadline = locked.now() + std::min(time, kNever - locked.now());
    core_.backlog.leases.extend(lease, deadline);
    locked.arm(deadline);
    return true;
}

std::size_t Channel::sweep_leases() noexcept {
    std::vector<pid_t> gone;
    {
        std::scoped_lock hold(core_.mutex);
        gone = core_.backlog.leases.holders();
    }
    std::erase_if(gone, [](pid_t pid) { return pid <= 0 || kill(pid, 0) == 0 || errno != ESRCH; });
    if (gone.empty()) return 0;
    Locked locked(core_);
    std::vector<MessageRef> back = core_.backlog.leases.end_if(
        [&](pid_t holder) { return std::binary_search(gone.begin(), gone.end(), holder); });
    const std::size_t ended = back.size();
    core_.counters.lease_returns += ended;
    if (ended > 0) leasing::end_without_ack(locked, std::move(back));
    return ended;
}

bool Channel::still_leasing() noexcept {
    std::scoped_lock hold(core_.mutex);
    return core_.is_enrolled = core_.backlog.leases.leased().count > 0;
}

}  // namespace ipcfs::channel
