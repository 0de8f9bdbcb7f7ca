// When more operations wait in a ring queue's entries than it can spare, the oldest give up in turn and come again,
// so that there is always an entry for a request that does not wait. On the ring's thread, but for overload().
#include <algorithm>
#include <cerrno>
#include <tuple>
#include <utility>
#include <vector>

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

// When to look next whether operations must give up. On a timer and never at an arrival: those that
// gave up come right back.
Nanos RingQueue::next_tick() {
    if (overloaded_since_.load(std::memory_order_relaxed) == 0) {
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

// Looks at all entries: this is rare, and parking and answering need no lock for it.
void RingQueue::rotate() {
    using Waiting = std::tuple<ParkRank, std::uint64_t, std::uint64_t>;  // rank, order, unique
    std::vector<Waiting> waiting;
    waiting.reserve(entries_.size());
    for (const RingEntry& entry : entries_) {
        if (const std::uint64_t order = entry.parked_as.load(std::memory_order_acquire))
            waiting.emplace_back(entry.rank, order, entry.unique);
    }
    const auto count = static_cast<std::ptrdiff_t>(std::min(kRotateAtOnce, waiting.size()));
    std::partial_sort(waiting.begin(), waiting.begin() + count, waiting.end());
    std::uint64_t rotated = 0;
    for (auto at = waiting.begin(); at != waiting.begin() + count; ++at) {
        if (std::get<ParkRank>(*at) != std::get<ParkRank>(waiting.front())) break;
        if (auto op = settings_.parked->find(std::get<2>(*at))) op->interrupt(EINTR);
        ++rotated;
    }
    rotations_.fetch_add(rotated, std::memory_order_relaxed);
}

Overload RingQueue::overload() const noexcept {
    return {overloaded_since_.load(std::memory_order_relaxed),
            rotations_.load(std::memory_order_relaxed), parked_.load(std::memory_order_relaxed),
            lost_.load(std::memory_order_relaxed)};
}

}  // namespace ipcfs::fuse
