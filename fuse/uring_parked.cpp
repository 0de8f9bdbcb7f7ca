// The entries of a ring queue whose operations wait: on the ring's thread, but for unlink() and overload().
// When they are more than the queue can spare, the oldest give up in turn and come again, so that there
// is always an entry for who does not wait.

#include <array>
#include <cerrno>
#include <utility>

#include <fuse/uring.hpp>

namespace ipcfs::fuse {

namespace {

constexpr std::size_t kRotateAtOnce = 8;
constexpr Nanos kRotateIdle = 10 * kMillisecond;
constexpr Nanos kRotateBusy = 2 * kMillisecond;
constexpr Nanos kOverloadOver = kSecond;        // without a rotation
constexpr Nanos kBusyFor = 100 * kMillisecond;  // after the last request that did not park

Nanos now() {
    return SystemClock().monotonic();
}

}  // namespace

void RingQueue::link(RingEntry& entry, std::shared_ptr<Parked> op, ParkRank rank) {
    const auto list = static_cast<std::size_t>(rank);
    lists_.with([&](Lists& lists) {
        entry.op = std::move(op);
        entry.rank = rank;
        entry.next = nullptr;
        entry.previous = std::exchange(lists.newest[list], &entry);
        (entry.previous ? entry.previous->next : lists.oldest[list]) = &entry;
        entry.linked.store(true, std::memory_order_release);
    });
    parked_.fetch_add(1, std::memory_order_relaxed);
}

void RingQueue::unlink(RingEntry& entry) noexcept {
    Lease last;
    lists_.with([&](Lists& lists) {
        if (!entry.linked.exchange(false)) return;
        const auto list = static_cast<std::size_t>(entry.rank);
        (entry.previous ? entry.previous->next : lists.oldest[list]) = entry.next;
        (entry.next ? entry.next->previous : lists.newest[list]) = entry.previous;
        last = std::move(entry.op);
    });
    if (last) parked_.fetch_sub(1, std::memory_order_relaxed);
}

// When to look next whether operations must give up; 0: no need to. On a timer and never at an
// arrival: those that gave up come right back.
Nanos RingQueue::next_tick() {
    if (overloaded_since_.load(std::memory_order_relaxed) == 0) {
        if (parked_.load(std::memory_order_relaxed) <= limit_) return 0;
        last_tick_ = last_rotation_ = now();
        busy_until_ = 0;
        traffic_ = false;
        overloaded_since_.store(last_tick_, std::memory_order_relaxed);
    }
    if (std::exchange(traffic_, false)) busy_until_ = now() + kBusyFor;
    return last_tick_ + (last_tick_ < busy_until_ ? kRotateBusy : kRotateIdle);
}

void RingQueue::tick(Nanos due) {
    const Nanos moment = now();
    if (moment < due) return;
    last_tick_ = moment;
    if (parked_.load(std::memory_order_relaxed) > limit_) {
        last_rotation_ = moment;
        rotate();
    } else if (moment - last_rotation_ > kOverloadOver) {
        overloaded_since_.store(0, std::memory_order_relaxed);
    }
}

void RingQueue::rotate() {
    std::array<Lease, kRotateAtOnce> oldest;
    const std::size_t count = lists_.with([&](Lists& lists) -> std::size_t {
        for (std::size_t list = 0; list < kParkRanks; ++list) {
            std::size_t taken = 0;
            for (RingEntry* entry = lists.oldest[list]; entry && taken < kRotateAtOnce;
                 entry = entry->next)
                oldest[taken++] = entry->op;
            if (taken) return taken;
        }
        return 0;
    });
    for (std::size_t i = 0; i < count; ++i) oldest[i]->interrupt(EINTR);
    rotations_.fetch_add(count, std::memory_order_relaxed);
}

Overload RingQueue::overload() const noexcept {
    return {overloaded_since_.load(std::memory_order_relaxed),
            rotations_.load(std::memory_order_relaxed), parked_.load(std::memory_order_relaxed),
            lost_.load(std::memory_order_relaxed)};
}

}  // namespace ipcfs::fuse
