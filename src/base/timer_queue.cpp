// A binary heap of deadlines.
#include <algorithm>

#include <base/timer_queue.hpp>

namespace ipcfs {

void TimerQueue::arm(std::weak_ptr<Timed> timed, Nanos deadline) {
    bool earliest = heap_.with([&](auto& heap) {
        bool first = heap.empty() || deadline < heap.front().deadline;
        heap.push_back({deadline, std::move(timed)});
        std::push_heap(heap.begin(), heap.end());
        return first;
    });
    if (earliest && kick_) kick_();
}

std::optional<Nanos> TimerQueue::next() const {
    return heap_.with([](const auto& heap) -> std::optional<Nanos> {
        if (heap.empty()) return std::nullopt;
        return heap.front().deadline;
    });
}

void TimerQueue::run(Nanos now) {
    for (;;) {
        std::shared_ptr<Timed> due;
        bool found = heap_.with([&](auto& heap) {
            if (heap.empty() || heap.front().deadline > now) return false;
            std::pop_heap(heap.begin(), heap.end());
            due = heap.back().timed.lock();
            heap.pop_back();
            return true;
        });
        if (!found) return;
        if (due) due->on_time(now);
    }
}

}  // namespace ipcfs
