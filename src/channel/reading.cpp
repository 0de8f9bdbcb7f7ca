// Any thread.
#include <poll.h>

#include <store/store.hpp>

#include <channel/discipline.hpp>
#include <channel/duties.hpp>

namespace ipcfs::channel {

namespace reading {
namespace {

void note_taken(Locked& locked, Message& message, bool on_lease) noexcept {
    Core& core = *locked;
    message.envelope.deliveries += on_lease;
    if (message.writer) ++message.writer->in_flight;
    // Saves a reading of the clock; a step of it shows at the next arrival.
    core.last_delivery = locked.now() + core.epoch;
    ++core.counters.delivered;
    core.counters.redelivered += message.envelope.redelivered;
    core.keeper->taken(message);
    core.counters.delivered_bytes += message.total();
    if (!core.latency) core.latency = std::make_unique<insight::Histogram>();
    const Nanos waited = locked.now() - message.envelope.enqueued;
    core.latency->record(waited > 0 ? static_cast<std::uint64_t>(waited) : 0);
    if (locked.listening && core.backlog.empty()) locked.emit(EventKind::kDrained, 0);
}

void serve(Locked& locked, ReadWaiter& reader, MessageRef message) noexcept {
    locked->waiters.readers.remove(reader);
    note_taken(locked, *message, reader.leases);
    if (reader.leases) reader.lease = leasing::begin(locked, message, reader.holder);
    reader.message = std::move(message);
    locked.finish(reader, Wake::kServed);
}

// A dead letter, for a reader.
MessageRef take_dead(Locked& locked, Message& message) noexcept {
    ++locked->counters.dead_taken;
    locked->keeper->taken(message);
    return locked->backlog.dead.remove(message);
}

// Readers that have come to the end of a stream.
void end_stream(Locked& locked) noexcept {
    if (locked->open_writers > 0) return;
    locked->waiters.readers.for_each([&](ReadWaiter& reader) {
        if (!reader.may_end || !locked->discipline->has_ended(reader.view)) return;
        locked->waiters.readers.remove(reader);
        locked.finish(reader, Wake::kEnded);
    });
}

void serve_readers(Locked& locked) noexcept {
    Core& core = *locked;
    if (core.flow.held()) return;
    while (ReadWaiter* const reader = core.waiters.readers.first()) {
        if (core.backlog.may_expire()) drop_expired(locked);
        MessageRef message = core.backlog.take(core.settings.schedule);
        if (!message) return end_stream(locked);
        serve(locked, *reader, std::move(message));
    }
}

}  // namespace

MessageRef take(Locked& locked, std::uint64_t room, Leased* lease, pid_t holder) noexcept {
    Core& core = *locked;
    if (!core.readable()) return nullptr;
    if (core.backlog.may_expire()) drop_expired(locked);
    const auto schedule = core.settings.schedule;
    const Message* next = room == UINT64_MAX ? nullptr : core.backlog.front(schedule);
    MessageRef message;
    if (!next || next->size() <= room) message = core.backlog.take(schedule);
    if (message) note_taken(locked, *message, lease != nullptr);
    if (message && lease) *lease = leasing::begin(locked, message, holder);
    writing::admit_waiters(locked);
    return message;
}

void offer(Locked& locked) noexcept {
    serve_readers(locked);
    if (!locked->waiters.polls.empty() && locked->readable()) locked.wake_polls(POLLIN);
}

void serve_dead(Locked& locked) noexcept {
    auto& dead = locked->backlog.dead;
    while (!dead.empty() && !locked->flow.down()) {
        ReadWaiter* const reader = locked->waiters.dead_readers.first();
        if (!reader) break;
        locked->waiters.dead_readers.remove(*reader);
        reader->message = take_dead(locked, *dead.front(queue::Schedule::kStrict));
        locked.finish(*reader, Wake::kServed);
    }
    if (!dead.empty()) locked.wake_polls(POLLIN, Lane::kDead);
}

bool hand_over(Locked& locked, MessageRef& message) noexcept {
    Core& core = *locked;
    if (core.waiters.readers.empty()) return false;
    // Events tell of the queue in between, and a fair schedule counts turns there.
    if (locked.listening || core.settings.schedule != queue::Schedule::kStrict) return false;
    if (core.flow.held() || !core.backlog.empty() || core.backlog.gated()) return false;
    if (message->envelope.expires <= locked.now()) return false;
    serve(locked, *core.waiters.readers.first(), std::move(message));
    return true;
}

void drop(Locked& locked, MessageRef message, Wake why) noexcept {
    if (WriteWaiter* writer = std::exchange(message->writer, nullptr)) {
        rendezvous::resolve(locked, *writer, why);
    }
    locked.discard(std::move(message));
}

std::uint64_t drop_expired(Locked& locked, bool all) noexcept {
    const auto end = [&](MessageRef message) { drop(locked, std::move(message), Wake::kTimedOut); };
    Backlog& backlog = locked->backlog;
    const std::uint64_t lost =
        all ? backlog.drop_all_expired(locked.now(), end)
            : backlog.drop_expired_front(locked->settings.schedule, locked.now(), end);
    locked->counters.expired += lost;
    if (lost) locked.emit(EventKind::kExpired, lost);
    return lost;
}

void purge(Locked& locked) noexcept {
    std::uint64_t lost = 0;
    MessageList all = locked->backlog.clear();
    while (MessageRef message = take_front(all)) {
        ++lost;
        drop(locked, std::move(message), Wake::kPurged);
    }
    lost += locked->discipline->purge(locked);
    locked->counters.purged += lost;
    if (lost) locked.emit(EventKind::kDrained, lost);
    writing::admit_waiters(locked);
}

}  // namespace reading

// ---- what the tree calls ------------------------------------------------------------------------

Take Channel::try_take(MessageRef& to, std::uint64_t room, Lane lane,
                       const StreamView* view) noexcept {
    Locked locked(core_);
    if (core_.removed()) return Take::kRemoved;
    if (lane == Lane::kDead) {
        Message* next =
            core_.flow.down() ? nullptr : core_.backlog.dead.front(queue::Schedule::kStrict);
        if (!next || next->size() > room) return Take::kEmpty;
        to = reading::take_dead(locked, *next);
        return Take::kTaken;
    }
    to = reading::take(locked, room);
    if (to) return Take::kTaken;
    return view && core_.discipline->has_ended(*view) ? Take::kEnded : Take::kEmpty;
}

void Channel::take(ReadWaiter& waiter) noexcept {
    Locked locked(core_);
    if (locked.refuse(waiter)) return;
    core_.waiters.line(waiter.lane).add(waiter);
    if (waiter.lane == Lane::kDead) return reading::serve_dead(locked);
    const bool there_was = core_.readable();
    reading::serve_readers(locked);
    if (there_was) writing::admit_waiters(locked);
    if (core_.discipline->is_rendezvous()) locked.wake_polls(POLLOUT);
}

void Channel::delivered(Message& message) noexcept {
    // Without the lock: it is the reader's.
    if (message.kept_sequence) {
        const store::Key key{message.kept_channel, message.kept_sequence};
        if (core_.env.lingering) {
            core_.env.lingering->add(key);
        } else {
            (void)core_.env.store->erase(key);
        }
    }
    if (!message.writer) return;  // set before the message was taken, by the taking thread's lock
    Locked locked(core_);
    WriteWaiter* writer = std::exchange(message.writer, nullptr);
    if (!writer) return;
    --writer->in_flight;
    rendezvous::resolve(locked, *writer, writer->why);
}

void Channel::refresh_attributes() noexcept {
    if (attributes_cached_.exchange(false, std::memory_order_relaxed)) {
        core_.env.bell.refresh(*this);
    }
}

void Channel::give_back(MessageRef message) noexcept {
    Locked locked(core_);
    ++core_.counters.given_back;
    message->envelope.redelivered = true;
    if (WriteWaiter* writer = message->writer) {
        --writer->in_flight;
        if (writer->cancelled) {
            ++core_.counters.withdrawn;
            return reading::drop(locked, std::move(message), writer->ending);
        }
    }
    if (core_.removed()) return reading::drop(locked, std::move(message), Wake::kRemoved);
    if (message->envelope.dead) {
        core_.keeper->back(*message, 0);
        core_.backlog.dead.push_front(std::move(message));
        return reading::serve_dead(locked);
    }
    leasing::requeue(locked, std::move(message));
    leasing::after_requeue(locked);
}

std::uint64_t Channel::stream_since() const noexcept {
    std::scoped_lock hold(core_.mutex);
    return core_.discipline->closings();
}

bool Channel::opened(bool reads, bool writes) noexcept {
    std::scoped_lock hold(core_.mutex);
    if (core_.removed()) return false;
    core_.open_readers += reads;
    core_.open_writers += writes;
    return true;
}

void Channel::closed(bool reads, bool writes) noexcept {
    Locked locked(core_);
    core_.open_readers -= reads;
    core_.open_writers -= writes;
    if (!writes || core_.open_writers > 0 || !core_.discipline->last_writer_closed()) return;
    if (core_.backlog.open_gate()) writing::gate_opened(locked);
    writing::admit_more(locked);
    reading::end_stream(locked);
    locked.wake_polls(kHangUp);
}

}  // namespace ipcfs::channel
