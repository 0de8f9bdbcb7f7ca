// Messages in order: 256 priority levels, first in first out inside a level. Only levels in use
// take memory. Not thread-safe: a channel holds its lock around it.
#pragma once

#include <cstdint>
#include <vector>

#include <queue/message.hpp>

namespace ipcfs::queue {

// strict: the highest level first. fair: stride scheduling (Waldspurger 1995), a level's share
// grows with its priority, from 1 to 16, so that no level starves.
enum class Schedule : std::uint8_t { kStrict, kFair };

using MessageList = boost::intrusive::list<Message, boost::intrusive::constant_time_size<false>>;

// The list's reference becomes the caller's.
MessageRef take_front(MessageList& list) noexcept;

class PriorityQueue {
public:
    PriorityQueue() = default;
    PriorityQueue(PriorityQueue&&) = delete;
    ~PriorityQueue();

    // May allocate the first time a level is used; otherwise never.
    void push_back(MessageRef message);
    // For a message that comes back: it is the next of its level, but for earlier ones that came
    // back too.
    void push_front(MessageRef message);

    // The next one, or null. front() names what pop() would take, without taking it.
    MessageRef pop(Schedule schedule) noexcept;
    Message* front(Schedule schedule) noexcept;

    // Takes this very message, which is in this queue.
    MessageRef remove(Message& message) noexcept;

    // What drop-oldest gives up for a message of `priority`: the oldest of the lowest level that is
    // not above it, or null.
    Message* victim(std::uint8_t priority) noexcept;

    std::uint64_t size() const noexcept { return size_; }
    std::uint64_t bytes() const noexcept { return bytes_; }
    bool empty() const noexcept { return size_ == 0; }
    // The oldest message's time of enqueueing, monotonic; kNever when empty.
    Nanos oldest() const noexcept;

    // In strict order; stops when `visit` returns false. `visit` may remove what it is given.
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

    std::vector<Level> levels_;  // by falling priority; stays once made
    std::uint64_t size_ = 0;
    std::uint64_t bytes_ = 0;
    std::uint64_t pass_ = 0;  // of the level served last
};

}  // namespace ipcfs::queue
