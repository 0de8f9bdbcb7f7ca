// Any thread.
#include <poll.h>

#include <channel/discipline.hpp>
#include <channel/duties.hpp>
#include <channel/subscription.hpp>
#include <channel/topic.hpp>

namespace ipcfs::channel {

namespace writing {
namespace {

// As `overflow` says: on kQueued there is room for the batch, or it was dropped and is empty.
Push make_room(Locked& locked, Batch& batch) noexcept {
    Core& core = *locked;
    const std::uint8_t priority = batch.messages.front().envelope.priority;
    const std::uint8_t type = batch.messages.front().envelope.type;
    if (core.settings.overflow == Overflow::kReject) {
        core.counters.rejected += batch.count;
        locked.emit(EventKind::kOverflow, batch.count, priority, type);
        return Push::kFull;
    }
    std::uint64_t lost = 0;
    if (core.settings.overflow == Overflow::kDropOldest) {
        while (!core.flow.fits(batch)) {
            Message* victim = core.backlog.victim(priority);
            if (!victim) break;
            ++lost;
            reading::drop(locked, core.backlog.remove(*victim), Wake::kPurged);
        }
        core.counters.dropped_oldest += lost;
    }
    if (!core.flow.fits(batch)) {
        core.counters.dropped_newest += batch.count;
        lost += batch.count;
        while (MessageRef message = take_front(batch.messages)) locked.discard(std::move(message));
        batch.clear();
    }
    locked.emit(EventKind::kOverflow, lost, priority, type);
    return Push::kQueued;
}

// A writer that waits for room until `deadline`.
void park(Locked& locked, WriteWaiter& writer, Nanos deadline) noexcept {
    writer.deadline = deadline;
    writer.urgent = writer.batch.critical;
    locked->waiters.writers.add(writer);
    if (writer.via == Via::kQueueFile) ++locked->queue_file_writes;
    locked.arm(deadline);
}

// Whether an open passes the gate now; then it has the turn or the credit that it needs.
bool pass(Locked& locked, WriteTicket& ticket) noexcept {
    Core& core = *locked;
    if (core.discipline->is_rendezvous()) {
        if (!core.flow.turn_is_free()) return false;
        core.flow.give_turn(ticket);
        return true;
    }
    if (!core.discipline->blocks()) return true;
    if (core.flow.paused()) return false;
    core.flow.lapse(locked.now());
    if (!core.flow.has_credit()) return false;
    core.flow.give(ticket, locked.now());
    return true;
}

void let_writers_in(Locked& locked) noexcept {
    Core& core = *locked;
    if (core.flow.paused() && core.discipline->is_low()) {
        core.flow.resume();
        locked.emit(EventKind::kLow, core.backlog.size());
    }
    if (core.subscription) core.subscription->release_publishers(locked);
    const auto let_in = [&](WriteWaiter& writer, Push push) {
        if (push == Push::kCommit) return committing::stage_parked(locked, writer);
        unpark(locked, writer, ending_of(push));
    };
    while (!core.flow.paused()) {
        WriteWaiter* const writer = core.waiters.writers.first();
        if (!writer) break;
        const Push push = admit(locked, writer->batch, writer->via, true);
        if (push != Push::kWait) {
            let_in(*writer, push);
        } else if (core.discipline->is_rendezvous()) {
            rendezvous::enter(locked, *writer);
        } else {
            break;
        }
    }
    // The reserve is for the critical ones, also of those that wait.
    if (core.waiters.writers.flagged() == 0) return;
    bool has_room = true;
    core.waiters.writers.for_each([&](WriteWaiter& writer) {
        if (!writer.urgent || !has_room) return;
        const Push push = admit(locked, writer.batch, writer.via, true);
        has_room = push == Push::kQueued || push == Push::kCommit;
        if (has_room) let_in(writer, push);
    });
}

}  // namespace

Push admit(Locked& locked, Batch& batch, Via via, bool was_waiting) noexcept {
    using Admission = Discipline::Admission;
    Core& core = *locked;
    // Type sync needs no room: what waited stays accepted when the bounds have changed.
    if (core.flow.never_fits(batch) && !(was_waiting && core.discipline->is_rendezvous())) {
        return Push::kTooLong;
    }
    // A subscription that was commanded to pause holds back its readers, not its publishers.
    if (core.flow.held() && !core.subscription) return Push::kWait;
    switch (core.discipline->admit(locked, batch, was_waiting)) {
        case Admission::kEnter: break;
        case Admission::kTake: enqueue(locked, batch, via); return Push::kQueued;
        case Admission::kRefused: return Push::kTooLong;
        case Admission::kPause:
            if (!core.flow.paused()) pause(locked);
            return Push::kWait;
        case Admission::kWait: return Push::kWait;
        case Admission::kOverflow:
            if (Push made = make_room(locked, batch); made != Push::kQueued) return made;
            if (batch.count == 0) return Push::kQueued;
            break;
    }
    if (core.is_kept) {
        if (Push kept = committing::keep_first(locked, batch); kept != Push::kQueued) return kept;
    }
    enqueue(locked, batch, via);
    return Push::kQueued;
}

void prepare(Locked& locked, Batch& batch) noexcept {
    if (batch.is_prepared) return;
    batch.is_prepared = true;
    Core& core = *locked;
    core.last_arrival = locked.realtime();
    core.epoch = core.last_arrival - locked.now();
    for (Message& message : batch.messages) {
        Envelope& envelope = message.envelope;
        envelope.position = core.backlog.new_position();
        envelope.enqueued = locked.now();
        if (core.subscription) {
            core.subscription->number(locked, envelope);
        } else {
            envelope.sequence = ++core.sequence;
            if (envelope.id == 0) envelope.id = core.env.messages.new_id();
            envelope.time = core.last_arrival;
            Backlog::set_expiry(envelope, core.settings.ttl, locked.now(), core.last_arrival);
        }
        if (core.backlog.note_expiry(envelope)) locked.arm(envelope.expires);
    }
}

void enqueue(Locked& locked, Batch& batch, Via via, WriteWaiter* waiter) noexcept {
    Core& core = *locked;
    prepare(locked, batch);
    core.counters.enqueued += batch.count;
    if (core.discipline->deliver(locked, batch, via)) return;
    const bool is_alone = batch.count == 1;
    bool is_queued = false;
    while (MessageRef message = take_front(batch.messages)) {
        const std::uint8_t priority = message->envelope.priority, type = message->envelope.type;
        const std::uint64_t size = message->total();
        core.counters.enqueued_bytes += size;
        if (waiter) {
            message->writer = waiter;
            ++waiter->unresolved;
        }
        if (is_alone && reading::hand_over(locked, message)) break;
        core.discipline->enqueue(std::move(message));
        is_queued = true;
        locked.emit(EventKind::kArrival, size, priority, type);
    }
    batch.clear();
    if (is_queued) {
        open_gate_if_due(locked);
        reading::offer(locked);
    }
    pause_if_high(locked);
    // The kernel tells inotify of a write on `queue` itself, once that write returns.
    if (via == Via::kOther || waiter != nullptr) locked.ring();
}

bool open_gate_if_due(Locked& locked) noexcept {
    Backlog& backlog = locked->backlog;
    if (!backlog.gated()) return false;
    // More than up to the high mark would not come.
    if (backlog.open_gate_if_due(locked.now(), locked->settings.high_mark()))
        return gate_opened(locked);
    locked.arm(backlog.next_event());
    return false;
}

bool gate_opened(Locked& locked) noexcept {
    // Readers may take more than what has just arrived.
    const std::uint64_t before = locked->backlog.load();
    reading::offer(locked);
    locked->has_made_room |= locked->backlog.load() < before;
    return true;
}

void pause(Locked& locked) noexcept {
    locked->flow.pause(locked.now());
    ++locked->counters.pauses;
    locked.emit(EventKind::kHigh, locked->backlog.size());
}

void pause_if_high(Locked& locked) noexcept {
    const Core& core = *locked;
    if (!core.flow.at_high() || core.flow.paused()) return;
    if (core.discipline->blocks() && !core.discipline->is_rendezvous()) pause(locked);
}

void unpark(Locked& locked, WriteWaiter& writer, Wake why) noexcept {
    locked->waiters.line(writer).remove(writer);
    locked.end_queue_file_write(writer);
    locked.finish(writer, why);
}

void admit_waiters(Locked& locked) noexcept {
    Core& core = *locked;
    if (core.flow.held()) return;
    do {
        core.has_made_room = false;
        let_writers_in(locked);
    } while (core.has_made_room);  // with them the gate of batches opened, and readers took more
    admit_openers(locked);
    locked.wake_polls(POLLOUT);
}

void admit_more(Locked& locked) noexcept {
    if (locked->has_made_room) {
        admit_waiters(locked);
    } else {
        admit_openers(locked);
    }
}

void admit_openers(Locked& locked) noexcept {
    Core& core = *locked;
    if (core.waiters.openers.empty()) return;
    core.flow.lapse(locked.now());
    const auto admit = [&](OpenWaiter& opener) {
        core.waiters.openers.remove(opener);
        locked.finish(opener, Wake::kServed);
    };
    // The reserve is for critical messages, whoever waits before them.
    if (!core.discipline->is_rendezvous() && !core.flow.held() && core.flow.reserve_has_room() &&
        core.waiters.openers.flagged() > 0) {
        core.waiters.openers.for_each([&](OpenWaiter& opener) {
            if (opener.critical) admit(opener);
        });
    }
    while (!core.waiters.openers.empty() && !core.flow.held()) {
        OpenWaiter& opener = *core.waiters.openers.first();
        if (!pass(locked, *opener.ticket)) return locked.arm(core.flow.credit_end());
        admit(opener);
    }
}

}  // namespace writing

// ---- what the tree calls ------------------------------------------------------------------------

Push Channel::try_push(Batch& batch, Via via, bool may_wait, WriteTicket* ticket) noexcept {
    Topic::refresh_reach(core_);
    Locked locked(core_);
    if (core_.removed()) return Push::kRemoved;
    if (ticket && !ticket->sync) core_.flow.release(*ticket);
    batch.is_nonblocking = !may_wait;
    const Push push = writing::admit(locked, batch, via, false);
    writing::admit_more(locked);  // the place that the open was given may have stayed free
    return push;
}

void Channel::push_now(WriteWaiter& waiter, WriteTicket* ticket) noexcept {
    Topic::refresh_reach(core_);
    Locked locked(core_);
    if (ticket && !ticket->sync) core_.flow.release(*ticket);
    if (locked.refuse(waiter)) return;
    const Push admitted = writing::admit(locked, waiter.batch, waiter.via, false);
    if (admitted == Push::kCommit) return committing::stage(locked, waiter);
    if (admitted == Push::kWait && core_.discipline->is_rendezvous() && !core_.flow.held()) {
        writing::park(locked, waiter, locked.now() + core_.settings.timeout);
        return rendezvous::enter(locked, waiter);
    }
    if (admitted != Push::kWait) {
        locked.finish(waiter, ending_of(admitted));
        return writing::admit_more(locked);
    }
    if (waiter.batch.is_nonblocking) return locked.finish(waiter, Wake::kTimedOut);
    const Nanos deadline = core_.flow.deadline();
    if (deadline <= locked.now()) {
        ++core_.counters.timed_out;
        return locked.finish(waiter, Wake::kTimedOut);
    }
    writing::park(locked, waiter, deadline);
}

MessageRef Channel::make_message(std::span<const std::byte> extensions,
                                 std::span<const std::byte> body) const noexcept {
    return core_.env.messages.make(extensions, body);
}

Gate Channel::try_gate(WriteTicket& ticket) noexcept {
    Locked locked(core_);
    const Discipline& type = *core_.discipline;
    if (core_.removed()) return Gate::kRemoved;
    if (core_.flow.held()) return Gate::kWait;
    if (ticket.critical && !type.is_rendezvous()) {
        const bool waits = type.blocks() &&
                           (core_.waiters.openers.flagged() > 0 || !core_.flow.reserve_has_room());
        return waits ? Gate::kWait : Gate::kOpen;
    }
    if (!core_.waiters.openers.empty()) return Gate::kWait;
    return writing::pass(locked, ticket) ? Gate::kOpen : Gate::kWait;
}

void Channel::gate(OpenWaiter& waiter, WriteTicket& ticket) noexcept {
    Locked locked(core_);
    if (locked.refuse(waiter)) return;
    waiter.ticket = &ticket;
    waiter.critical = ticket.critical;
    core_.waiters.openers.add(waiter);
    writing::admit_openers(locked);
    locked.arm_next();
}

void Channel::leave(WriteTicket& ticket) noexcept {
    Locked locked(core_);
    core_.flow.release(ticket);
    writing::admit_openers(locked);
}

}  // namespace ipcfs::channel
