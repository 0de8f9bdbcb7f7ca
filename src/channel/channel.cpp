// Enqueueing and delivering. Any thread; every private function runs under the channel's lock.
#include <algorithm>

#include <base/check.hpp>
#include <channel/channel.hpp>
#include <channel/discipline.hpp>
#include <channel/locked.hpp>
#include <channel/subscription.hpp>

namespace ipcfs::channel {

using queue::Batch;
using queue::Message;
using queue::MessageRef;
using queue::Via;
using queue::Wake;
using queue::WriteWaiter;

Channel::Channel(Environment& environment, std::uint64_t id, const Settings& settings)
    : env_(environment),
      id_(id),
      created_(environment.clock.realtime()),
      settings_(settings),
      backlog_(settings.batch_gate()) {
    follow_settings();
}

Channel::~Channel() {
    if (subscription_) subscription_->leave();
}

// ---- bounds -------------------------------------------------------------------------------------

bool Channel::readable() const noexcept {
    return !flow_.held() && backlog_.ready() > 0;
}

bool Channel::writable(bool critical) const noexcept {
    return !flow_.held() && discipline_->is_writable(critical);
}

// ---- writing ------------------------------------------------------------------------------------

Push Channel::try_push(Batch& batch, Via via, bool may_wait, WriteTicket* ticket) noexcept {
    refresh_reach();
    Locked locked(*this);
    if (removed_.load(std::memory_order_relaxed)) return Push::kRemoved;
    if (ticket && !ticket->sync) flow_.take_back(*ticket);
    batch.is_nonblocking = !may_wait;
    const Push push = admit(locked, batch, via, false);
    admit_more(locked);  // the turn's place may have stayed free
    return push;
}

// On kQueued it has entered, or was dropped as the settings say.
Push Channel::admit(Locked& locked, Batch& batch, Via via, bool was_waiting) {
    using Admission = Discipline::Admission;
    // Type sync needs no room: what waited stays accepted when the bounds have changed.
    if (flow_.never_fits(batch) && !(was_waiting && discipline_->meets())) return Push::kTooLong;
    // A subscription that was commanded to pause holds back its readers, not its publishers.
    if (flow_.held() && !subscription_) return Push::kWait;
    switch (discipline_->admit(locked, batch, was_waiting)) {
        case Admission::kEnter: break;
        case Admission::kTake: enqueue(locked, batch, via, nullptr); return Push::kQueued;
        case Admission::kRefused: return Push::kTooLong;
        case Admission::kPause:
            if (!flow_.paused()) pause(locked);
            return Push::kWait;
        case Admission::kWait: return Push::kWait;
        case Admission::kOverflow:
            if (Push made = make_room(locked, batch); made != Push::kQueued) return made;
            if (batch.count == 0) return Push::kQueued;
            break;
    }
    if (Push kept = keep_first(locked, batch); kept != Push::kQueued) return kept;
    enqueue(locked, batch, via, nullptr);
    return Push::kQueued;
}

// As `overflow` says: on kQueued there is room for the batch, or it was dropped and is empty.
Push Channel::make_room(Locked& locked, Batch& batch) noexcept {
    const std::uint8_t priority = batch.messages.front().envelope.priority;
    const std::uint8_t type = batch.messages.front().envelope.type;
    if (settings_.overflow == Overflow::kReject) {
        counters_.rejected += batch.count;
        emit(locked, EventKind::kOverflow, priority, type, batch.count);
        return Push::kFull;
    }
    std::uint64_t lost = 0;
    if (settings_.overflow == Overflow::kDropOldest) {
        while (!flow_.fits(batch)) {
            Message* victim = backlog_.victim(priority);
            if (!victim) break;
            ++lost;
            drop(locked, backlog_.remove(*victim), Wake::kPurged);
        }
        counters_.dropped_oldest += lost;
    }
    if (!flow_.fits(batch)) {
        counters_.dropped_newest += batch.count;
        lost += batch.count;
        while (MessageRef message = take_front(batch.messages)) locked.discard(std::move(message));
        batch.clear();
    }
    emit(locked, EventKind::kOverflow, priority, type, lost);
    return Push::kQueued;
}

void Channel::stamp(Locked& locked, Message& message) noexcept {
    if (subscription_) return stamp_share(locked, message);
    queue::Envelope& envelope = message.envelope;
    envelope.sequence = ++sequence_;
    envelope.place = backlog_.new_place();
    if (envelope.id == 0) {
        envelope.id = env_.messages.new_id();
    }
    envelope.time = last_arrival_;
    envelope.enqueued = locked.now();
    stamp_expiry(locked, envelope);
}

void Channel::stamp(Locked& locked, Batch& batch) noexcept {
    if (batch.is_prepared) return;
    last_arrival_ = locked.realtime();
    epoch_ = last_arrival_ - locked.now();
    for (Message& message : batch.messages) stamp(locked, message);
    batch.is_prepared = true;
}

void Channel::enqueue(Locked& locked, Batch& batch, Via via, WriteWaiter* waiter) {
    stamp(locked, batch);
    counters_.enqueued += batch.count;
    if (discipline_->deliver(locked, batch, via)) return;
    const bool is_alone = batch.count == 1;
    bool is_queued = false;
    while (MessageRef message = take_front(batch.messages)) {
        const std::uint8_t priority = message->envelope.priority, type = message->envelope.type;
        const std::uint64_t size = message->total();
        counters_.enqueued_bytes += size;
        if (waiter) {
            message->writer = waiter;
            ++waiter->unresolved;
        }
        if (is_alone && hand_over(locked, message)) break;
        discipline_->enqueue(std::move(message));
        is_queued = true;
        if (locked.listening) emit(locked, EventKind::kArrival, priority, type, size);
    }
    batch.clear();
    if (is_queued) {
        gather(locked);
        offer(locked);
    }
    pause_if_high(locked);

    // The kernel tells inotify of a write on `queue` itself, once that write returns.
    if (via == Via::kOther || waiter != nullptr) ring(locked);
}

void Channel::stamp_expiry(Locked& locked, queue::Envelope& envelope) noexcept {
    Backlog::set_expiry(envelope, settings_.ttl, locked.now(), locked.realtime());
    mind_expiry(locked, envelope);
}

void Channel::mind_expiry(Locked& locked, const queue::Envelope& envelope) noexcept {
    if (backlog_.note_expiry(envelope)) arm(locked, envelope.expires);
}

void Channel::pause_if_high(Locked& locked) noexcept {
    if (!flow_.at_high() || flow_.paused()) return;
    if (discipline_->blocks() && !discipline_->meets()) pause(locked);
}

void Channel::push(WriteWaiter& waiter, WriteTicket* ticket) noexcept {
    refresh_reach();
    Locked locked(*this);
    if (ticket && !ticket->sync) flow_.take_back(*ticket);
    if (removed_.load(std::memory_order_relaxed)) return locked.finish(waiter, Wake::kRemoved);
    if (flow_.down()) return locked.finish(waiter, Wake::kShutdown);
    if (waiter.cancelled) return locked.finish(waiter, Wake::kInterrupted);
    Push admitted = admit(locked, waiter.batch, waiter.via, false);
    if (admitted == Push::kCommit) return stage(locked, waiter);
    if (admitted == Push::kWait && discipline_->meets() && !flow_.held()) {
        park(locked, waiter, locked.now() + settings_.timeout);
        return enqueue_sync(locked, waiter);
    }
    if (admitted != Push::kWait) {
        locked.finish(waiter, ending_of(admitted));
        return admit_more(locked);
    }
    if (waiter.batch.is_nonblocking) return locked.finish(waiter, Wake::kTimedOut);
    const Nanos deadline = flow_.deadline();
    if (deadline <= locked.now()) {
        ++counters_.timed_out;
        return locked.finish(waiter, Wake::kTimedOut);
    }
    park(locked, waiter, deadline);
}

void Channel::park(Locked& locked, WriteWaiter& writer, Nanos deadline) noexcept {
    writer.deadline = deadline;
    waiters_.park(writer);
    if (writer.via == Via::kQueueFile) ++queue_file_writes_;
    arm(locked, deadline);
}

// From waiting for room to waiting to be taken.
void Channel::enqueue_sync(Locked& locked, WriteWaiter& writer) {
    waiters_.note_enqueued(writer);
    writer.deadline = locked.now() + settings_.timeout;
    arm(locked, writer.deadline);
    enqueue(locked, writer.batch, writer.via, &writer);
}

void Channel::unpark(Locked& locked, WriteWaiter& writer, Wake why) noexcept {
    waiters_.remove(writer);
    end_queue_file_write(locked, writer);
    locked.finish(writer, why);
}

void Channel::end_queue_file_write(Locked& locked, const WriteWaiter& writer) noexcept {
    if (writer.via != Via::kQueueFile || --queue_file_writes_ > 0 || !bell_deferred_) return;
    bell_deferred_ = false;
    locked.effects.ring = true;
    ++counters_.rings;
}

// A sync writer is done when none of its messages is left anywhere.
void Channel::resolve(Locked& locked, WriteWaiter& writer) noexcept {
    IPCFS_CHECK(writer.unresolved > 0);
    if (--writer.unresolved == 0) unpark(locked, writer, writer.why);
}

void Channel::withdraw(Locked& locked, WriteWaiter& writer, Wake why) noexcept {
    std::uint64_t queued = writer.unresolved - writer.in_flight;
    if (!writer.cancelled) writer.ending = why;
    writer.cancelled = true;  // what is in readers' hands does not come back to the queue
    if (queued == 0) return;  // and what becomes of it decides
    writer.why = why;
    backlog_.for_each([&](Message& message) {
        if (message.writer == &writer) {
            ++counters_.withdrawn;
            message.writer = nullptr;
            keeper_->gone(message);
            locked.discard(backlog_.remove(message));
            if (--queued == 0) return false;
        }
        return true;
    });
    writer.unresolved = writer.in_flight;
    if (writer.unresolved == 0) unpark(locked, writer, why);
}

// ---- what expires ------------------------------------------------------------------------------

void Channel::drop(Locked& locked, MessageRef message, Wake why) noexcept {
    if (WriteWaiter* writer = std::exchange(message->writer, nullptr)) {
        writer->why = why;
        resolve(locked, *writer);
    }
    keeper_->gone(*message);
    locked.discard(std::move(message));
}

// Whoever calls this reconsiders: it makes room.
std::uint64_t Channel::drop_expired(Locked& locked) noexcept {
    const std::uint64_t lost = backlog_.drop_expired_front(
        settings_.schedule, locked.now(),
        [&](MessageRef message) { drop(locked, std::move(message), Wake::kTimedOut); });
    counters_.expired += lost;
    if (lost) emit(locked, EventKind::kExpired, 255, 0, lost);
    return lost;
}

void Channel::sweep_expired(Locked& locked) noexcept {
    const std::uint64_t lost = backlog_.drop_all_expired(locked.now(), [&](MessageRef message) {
        drop(locked, std::move(message), Wake::kTimedOut);
    });
    counters_.expired += lost;
    if (lost) {
        emit(locked, EventKind::kExpired, 255, 0, lost);
        admit_waiters(locked);
    }
}

}  // namespace ipcfs::channel
