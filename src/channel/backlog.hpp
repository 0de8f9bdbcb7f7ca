// What a channel keeps: the queue, messages on lease, messages that come back later, dead letters. It knows which
// of the queued messages the batch gate lets out, and when the first of them expires. It decides nothing, tells
// nobody and has no lock of its own: the channel holds its lock around every call.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include <base/clock.hpp>
#include <channel/settings.hpp>
#include <queue/leases.hpp>
#include <queue/message.hpp>
#include <queue/priority_queue.hpp>
#include <queue/waiter.hpp>

namespace ipcfs::channel {

class Backlog {
public:
    explicit Backlog(const BatchGate& gate) : gate_(gate) {}

    // Lines of their own, not bound to the queue.
    queue::Leases leases;  // and delayed messages
    queue::PriorityQueue dead;

    // ---- the queue ----
    std::uint64_t size() const noexcept { return queue_.size(); }
    std::uint64_t bytes() const noexcept { return queue_.bytes(); }
    bool empty() const noexcept { return queue_.empty(); }
    Nanos oldest() const noexcept { return queue_.oldest(); }
    void add(queue::MessageRef message) { queue_.push_back(std::move(message)); }
    // For a message that comes back: to where it was in line. The gate has let it out before.
    void put_back(queue::MessageRef message) {
        queue_.push_front(std::move(message));
        if (gated()) ++ready_;
    }
    // The next one in line, let out or not; null when there is none.
    queue::Message* front(queue::Schedule schedule) noexcept { return queue_.front(schedule); }
    // The next one that the gate has let out, or null.
    queue::MessageRef take(queue::Schedule schedule) noexcept {
        if (ready() == 0) return nullptr;
        if (gated()) --ready_;
        return queue_.pop(schedule);
    }
    // This very message, which is queued.
    queue::MessageRef remove(queue::Message& message) noexcept;
    // See PriorityQueue::victim().
    queue::Message* victim(std::uint8_t priority) noexcept { return queue_.victim(priority); }
    // As PriorityQueue::for_each(); `visit` may remove() what it is given.
    template <class F>
    void for_each(F&& visit) {
        queue_.for_each(std::forward<F>(visit));
    }
    // The next position in line, see queue::Envelope::position.
    std::uint64_t new_position() noexcept { return ++position_; }
    // All of it, in the order in which it came.
    std::vector<queue::MessageRef> everything();
    queue::MessageList clear() noexcept;

    // ---- what counts against the bounds: queued, delayed, on lease, on its way to the disk ----
    std::uint64_t load() const noexcept {
        return queue_.size() + leases.delayed().count + leases.leased().count + staged_;
    }
    std::uint64_t load_bytes() const noexcept {
        return queue_.bytes() + leases.delayed().bytes + leases.leased().bytes + staged_bytes_;
    }
    void stage(const queue::Batch& batch) noexcept {
        staged_ += batch.count;
        staged_bytes_ += batch.bytes;
    }
    void unstage(const queue::Batch& batch) noexcept {
        staged_ -= batch.count;
        staged_bytes_ -= batch.bytes;
    }

    // ---- the gate of batches ----
    bool gated() const noexcept { return gate_.count > 0; }
    std::uint64_t ready() const noexcept { return gated() ? ready_ : queue_.size(); }
    // Whatever the gate has let out stays so. True when all else is let out with it.
    bool set_gate(const BatchGate& gate) noexcept;
    // After messages came, or time has passed: lets them out if there are enough (never more than `most`),
    // or the first has waited for long enough. Whether it did.
    bool open_gate_if_due(Nanos now, std::uint64_t most) noexcept;
    // Releases all that it holds back. Whether there was anything.
    bool open_gate() noexcept;

    // ---- what expires ----
    // Sets the end of a message that came now. `ttl` 0: none.
    static void set_expiry(queue::Envelope& envelope, Nanos ttl, Nanos now,
                           Nanos realtime) noexcept {
        envelope.expires = ttl > 0 ? now + ttl : kNever;
        if (envelope.drop_when_late && envelope.deadline > 0) {
            const Nanos left = std::max<Nanos>(0, envelope.deadline - realtime);
            envelope.expires = std::min(envelope.expires, now + std::min(left, kNever - now));
        }
    }
    // Whether it is the first to expire.
    bool note_expiry(const queue::Envelope& envelope) noexcept {
        if (envelope.expires >= earliest_expiry_) return false;
        earliest_expiry_ = envelope.expires;
        return true;
    }
    bool may_expire() const noexcept { return earliest_expiry_ != kNever; }
    // Calls drop(message) for what is over at the front of the line. How many there were.
    template <class F>
    std::uint64_t drop_expired_front(queue::Schedule schedule, Nanos now, F&& drop) {
        std::uint64_t lost = 0;
        for (queue::Message* front = queue_.front(schedule);
             front && front->envelope.expires <= now; front = queue_.front(schedule)) {
            ++lost;
            drop(remove(*front));
        }
        return lost;
    }
    // The same for all that is over, when it is time for that.
    template <class F>
    std::uint64_t drop_all_expired(Nanos now, F&& drop) {
        if (earliest_expiry_ > now) return 0;
        std::uint64_t lost = 0;
        earliest_expiry_ = kNever;
        queue_.for_each([&](queue::Message& message) {
            if (message.envelope.expires <= now) {
                ++lost;
                drop(remove(message));
            } else {
                note_expiry(message.envelope);
            }
            return true;
        });
        // A steady flow with a ttl must not sweep for every single message.
        if (earliest_expiry_ != kNever)
            earliest_expiry_ = std::max(earliest_expiry_, now + kSweepPeriod);
        return lost;
    }

    // When time has something to do here; kNever: nothing waits for it. May be in the past.
    Nanos next_event() const noexcept {
        const Nanos gathered =
            gated() && holding_back_since_ != kNever ? holding_back_since_ + gate_.delay : kNever;
        return std::min({earliest_expiry_, leases.earliest(), gathered});
    }

private:
    static constexpr Nanos kSweepPeriod = 20 * kMillisecond;

    queue::PriorityQueue queue_;
    std::uint64_t staged_ = 0, staged_bytes_ = 0;
    std::uint64_t position_ = 0;  // the last one in line
    BatchGate gate_;
    std::uint64_t ready_ = 0;            // if gated: messages that it has let out
    Nanos holding_back_since_ = kNever;  // if gated: since when it holds back others
    Nanos earliest_expiry_ = kNever;     // when to look; a message may have ended before
};

}  // namespace ipcfs::channel
