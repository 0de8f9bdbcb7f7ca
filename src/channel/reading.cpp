// Taking messages out: by those who read and those who wait for one, and what becomes of a message that
// was taken. Any thread; every private function runs under the channel's lock.
#include <poll.h>

#include <store/store.hpp>

#include <channel/channel.hpp>
#include <channel/discipline.hpp>
#include <channel/locked.hpp>
#include <channel/subscription.hpp>

namespace ipcfs::channel {

using queue::Lane;
using queue::Message;
using queue::MessageRef;
using queue::ReadWaiter;
using queue::Wake;
using queue::WriteWaiter;

Take Channel::try_take(MessageRef& to, std::uint64_t room, Lane lane,
                       const StreamView* view) noexcept {
    Locked locked(*this);
    if (removed_.load(std::memory_order_relaxed)) return Take::kRemoved;
    if (lane == Lane::kDead) {
        Message* next = flow_.down() ? nullptr : backlog_.dead.front(queue::Schedule::kStrict);
        if (!next || next->size() > room) return Take::kEmpty;
        to = backlog_.dead.remove(*next);
        ++counters_.dead_taken;
        keeper_->taken(*to);
        return Take::kTaken;
    }
    if (readable()) {
        if (backlog_.may_expire()) drop_expired(locked);
        Message* next = room == UINT64_MAX ? nullptr : backlog_.front(settings_.schedule);
        if (!next || next->size() <= room) to = backlog_.take(settings_.schedule);
        if (to) note_taken(locked, *to, false);
        admit_waiters(locked);
        if (to) return Take::kTaken;
    }
    return view && discipline_->has_ended(*view) ? Take::kEnded : Take::kEmpty;
}

void Channel::take(ReadWaiter& waiter) noexcept {
    Locked locked(*this);
    if (removed_.load(std::memory_order_relaxed)) return locked.finish(waiter, Wake::kRemoved);
    if (flow_.down()) return locked.finish(waiter, Wake::kShutdown);
    if (waiter.cancelled) return locked.finish(waiter, Wake::kInterrupted);
    waiters_.park(waiter);
    if (waiter.lane == Lane::kDead) return serve_dead(locked);
    const bool there_was = readable();
    serve_readers(locked);
    if (there_was) admit_waiters(locked);
    if (discipline_->meets()) wake_polls(locked, POLLOUT);
}

void Channel::serve_readers(Locked& locked) noexcept {
    if (flow_.held()) return;
    while (ReadWaiter* const reader = waiters_.first(Lane::kMain)) {
        if (backlog_.may_expire()) drop_expired(locked);
        MessageRef message = backlog_.take(settings_.schedule);
        if (!message) return end_stream(locked);
        serve(locked, *reader, std::move(message));
    }
}

void Channel::serve(Locked& locked, ReadWaiter& reader, MessageRef message) noexcept {
    waiters_.remove(reader);
    note_taken(locked, *message, reader.leases);
    if (reader.leases) reader.lease = lease_out(locked, message, reader.holder);
    reader.message = std::move(message);
    locked.finish(reader, Wake::kServed);
}

// The only message of a batch, straight to the reader that waits for it. Whether there is one. Whoever listens to
// events is told of the queue in between.
bool Channel::hand_over(Locked& locked, MessageRef& message) noexcept {
    if (locked.listening || flow_.held() || !backlog_.empty() || backlog_.gated()) return false;
    if (settings_.schedule != queue::Schedule::kStrict) return false;  // the queue counts turns
    ReadWaiter* const reader = waiters_.first(Lane::kMain);
    if (!reader || message->envelope.expires <= locked.now()) return false;
    serve(locked, *reader, std::move(message));
    return true;
}

void Channel::serve_dead(Locked& locked) noexcept {
    while (!backlog_.dead.empty() && !flow_.down()) {
        ReadWaiter* const reader = waiters_.first(Lane::kDead);
        if (!reader) break;
        waiters_.remove(*reader);
        reader->message = backlog_.dead.pop(queue::Schedule::kStrict);
        ++counters_.dead_taken;
        keeper_->taken(*reader->message);
        locked.finish(*reader, Wake::kServed);
    }
    if (!backlog_.dead.empty()) wake_polls(locked, POLLIN, Lane::kDead);
}

// Messages may have become readable: whoever waits for one.
void Channel::offer(Locked& locked) noexcept {
    serve_readers(locked);
    if (waiters_.has_polls() && readable()) wake_polls(locked, POLLIN);
}

void Channel::note_taken(Locked& locked, Message& message, bool on_lease) noexcept {
    message.envelope.deliveries += on_lease;
    if (message.writer) ++message.writer->in_flight;
    last_delivery_ = locked.now() + epoch_;  // one clock read less; a step of the clock shows at
                                             // the next arrival
    ++counters_.delivered;
    counters_.redelivered += message.envelope.redelivered;
    keeper_->taken(message);
    counters_.delivered_bytes += message.total();
    if (!latency_) latency_ = std::make_unique<insight::Histogram>();
    Nanos waited = locked.now() - message.envelope.enqueued;
    latency_->record(waited > 0 ? static_cast<std::uint64_t>(waited) : 0);
    if (locked.listening && backlog_.empty()) emit(locked, EventKind::kDrained, 255, 0, 0);
}

void Channel::delivered(Message& message) noexcept {
    // Without the lock: it is the reader's.
    if (message.kept_sequence) {
        const store::Key key{message.kept_channel, message.kept_sequence};
        if (env_.lingering) {
            env_.lingering->add(key);
        } else {
            (void)env_.store->erase(key);
        }
    }
    if (!message.writer) return;  // set before the message was taken, by the taking thread's lock
    Locked locked(*this);
    WriteWaiter* writer = std::exchange(message.writer, nullptr);
    if (!writer) return;
    --writer->in_flight;
    resolve(locked, *writer);
}

void Channel::give_back(MessageRef message) noexcept {
    Locked locked(*this);
    ++counters_.given_back;
    message->envelope.redelivered = true;
    if (WriteWaiter* writer = message->writer) {
        --writer->in_flight;
        if (writer->cancelled) {
            message->writer = nullptr;
            ++counters_.withdrawn;
            writer->why = writer->ending;
            keeper_->gone(*message);
            locked.discard(std::move(message));
            return resolve(locked, *writer);
        }
    }
    if (removed_.load(std::memory_order_relaxed)) {
        return drop(locked, std::move(message), Wake::kRemoved);
    }
    if (message->envelope.dead) {
        keeper_->back(*message, 0);
        backlog_.dead.push_front(std::move(message));
        return serve_dead(locked);
    }
    requeue(locked, std::move(message));
    came_back(locked);
}

// To where it was in line. Whoever calls this calls came_back().
void Channel::requeue(Locked& locked, MessageRef message) noexcept {
    mind_expiry(locked, message->envelope);
    keeper_->back(*message, 0);
    backlog_.put_back(std::move(message));
}

void Channel::came_back(Locked& locked) noexcept {
    offer(locked);
    if (!backlog_.empty()) ring(locked);
    admit_waiters(locked);
}

// For what the kernel does not tell inotify. A ring for `queue` would wait for its inode lock while
// a write is parked on it: that write's end rings instead; on sync, whose writes wait to be read,
// `next` does.
void Channel::ring(Locked& locked) noexcept {
    if (subscription_ && !subscription_->is_named()) return;  // there is no such file
    if (queue_file_writes_ > 0) {
        if (!discipline_->meets()) {
            bell_deferred_ = true;
            return;
        }
        locked.effects.ring_target = Doorbell::Target::kNext;
    }
    locked.effects.ring = true;
    ++counters_.rings;
}

}  // namespace ipcfs::channel
