// A queue with 256 priority levels, first in first out within a level. Only levels in use take
// memory. Not thread-safe: the channel's lock guards it.
#pragma once

#include <cstdint>
#include <vector>

#include <queue/message.hpp>

namespace ipcfs::queue {

// kStrict serves the highest level first. kFair is stride scheduling (Waldspurger 1995): a level's
// share grows with its priority, from 1 to 16, so that none starves.
enum class Schedule : std::uint8_t { kStrict, kFair };

using MessageList = boost::intrusive::list<Message, boost::intrusive::constant_time_size<false>>;

// Removes the first message and passes the list's reference to the caller; null if empty.
inline MessageRef take_front(MessageList& list) noexcept {
    if (list.empty()) return nullptr;
    Message* message = &list.front();
    list.pop_front();
    return MessageRef(message, false);
}

class PriorityQueue {
public:
    PriorityQueue() = default;
    PriorityQueue(PriorityQueue&&) = delete;
    ~PriorityQueue();

    // Allocates only when a level is first used.
    void push_back(MessageRef message);
    // Requeues a message at the front of its level, behind requeued ones with a smaller `position`.
    void push_front(MessageRef message);

    // pop() removes the next message; front() returns it without removing it. Null if empty.
    MessageRef pop(Schedule schedule) noexcept;
    Message* front(Schedule schedule) noexcept;

    // Removes `message`, which must be in this queue.
    MessageRef remove(Message& message) noexcept;

    // The message that drop-oldest discards for a new one of `priority`: the oldest of the lowest
    // level that is not above `priority`; null if there is none.
    Message* victim(std::uint8_t priority) noexcept;

    std::uint64_t size() const noexcept { return size_; }
    std::uint64_t bytes() const noexcept { return bytes_; }
    bool empty() const noexcept { return size_ == 0; }
    // The monotonic time at which the oldest message was enqueued; kNever if empty.
    Nanos oldest() const noexcept;

    // Visits messages in strict order until `visit` returns false. `visit` may remove the message
    // it is given.
    template <class F>
    void for_each(F&& visit) {
        for (Level& level : levels_) {
            for (auto at = level.messages.begin(); at != level.messages.end();) {
                Message& message = *at++;
                if (!visit(message)) return;
            }
        }
    }

private:
    struct Level {
        std::uint8_t priority;
        std::uint64_t pass = 0;  // stride scheduling: the smallest goes next
        MessageList messages;
        explicit Level(std::uint8_t p) : priority(p) {}
    };
    Level& level(std::uint8_t priority);
    Level* pick(Schedule schedule) noexcept;
    void added(Level& level, const Message& message) noexcept;

    std::vector<Level> levels_;  // by descending priority; never removed
    std::uint64_t size_ = 0;
    std::uint64_t bytes_ = 0;
    std::uint64_t pass_ = 0;  // pass of the level served last
};

}  // namespace ipcfs::queue
