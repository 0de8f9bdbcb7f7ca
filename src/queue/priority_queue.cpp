// Priority levels and the two schedules. Under the channel's lock.
#include <algorithm>

#include <base/check.hpp>
#include <queue/priority_queue.hpp>

namespace ipcfs::queue {
namespace {

constexpr std::uint64_t kStrideUnit = 720'720;  // divisible by every weight from 1 to 16

std::uint64_t stride(std::uint8_t priority) {
    return kStrideUnit / (1 + priority / 16);
}

}  // namespace

PriorityQueue::~PriorityQueue() {
    for (Level& level : levels_) {
        while (take_front(level.messages)) {
        }
    }
}

PriorityQueue::Level& PriorityQueue::level(std::uint8_t priority) {
    auto at = std::lower_bound(levels_.begin(), levels_.end(), priority,
                               [](const Level& l, std::uint8_t p) { return l.priority > p; });
    if (at == levels_.end() || at->priority != priority) at = levels_.emplace(at, priority);
    return *at;
}

void PriorityQueue::added(Level& level, const Message& message) noexcept {
    // A level that was idle must not catch up on the turns it did not need.
    if (level.messages.empty()) level.pass = std::max(level.pass, pass_);
    ++size_;
    bytes_ += message.size();
}

void PriorityQueue::push_back(MessageRef message) {
    Level& to = level(message->envelope.priority);
    added(to, *message);
    to.messages.push_back(*message.detach());
}

void PriorityQueue::push_front(MessageRef message) {
    Level& to = level(message->envelope.priority);
    added(to, *message);
    auto at = to.messages.begin();
    while (at != to.messages.end() && at->envelope.position < message->envelope.position) ++at;
    to.messages.insert(at, *message.detach());
}

PriorityQueue::Level* PriorityQueue::pick(Schedule schedule) noexcept {
    Level* best = nullptr;
    for (Level& level : levels_) {
        if (level.messages.empty()) continue;
        if (schedule == Schedule::kStrict) return &level;
        if (!best || level.pass < best->pass) best = &level;
    }
    return best;
}

Message* PriorityQueue::front(Schedule schedule) noexcept {
    Level* from = pick(schedule);
    return from ? &from->messages.front() : nullptr;
}

MessageRef PriorityQueue::pop(Schedule schedule) noexcept {
    Level* from = pick(schedule);
    if (!from) return nullptr;
    if (schedule == Schedule::kFair) {
        pass_ = from->pass;
        from->pass += stride(from->priority);
    }
    MessageRef message = take_front(from->messages);
    --size_;
    bytes_ -= message->size();
    return message;
}

MessageRef PriorityQueue::remove(Message& message) noexcept {
    IPCFS_CHECK(message.is_linked());
    Level& from = level(message.envelope.priority);
    from.messages.erase(from.messages.iterator_to(message));
    --size_;
    bytes_ -= message.size();
    return MessageRef(&message, false);
}

Message* PriorityQueue::victim(std::uint8_t priority) noexcept {
    for (auto at = levels_.rbegin(); at != levels_.rend(); ++at) {
        if (at->priority > priority) return nullptr;
        if (!at->messages.empty()) return &at->messages.front();
    }
    return nullptr;
}

Nanos PriorityQueue::oldest() const noexcept {
    Nanos oldest = kNever;
    for (const Level& level : levels_) {
        if (!level.messages.empty()) {
            oldest = std::min(oldest, level.messages.front().envelope.enqueued);
        }
    }
    return oldest;
}

}  // namespace ipcfs::queue
