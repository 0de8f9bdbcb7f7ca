// What a channel of type topic or multicast has beside its settings: who subscribes to it, what it
// retains for newcomers, and which subscriptions above it take what is published here, too. Private to
// src/channel; all under the channel's lock but for circles, which have their own.
//
// Order of locks: a topic's channel, then circles by rising id, then a subscription's channel. The
// registry's lock and the right to receive are asked for before all of them, see Reach.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <channel/channel.hpp>
#include <channel/subscription.hpp>

namespace ipcfs::channel {

// The recursive subscriptions of a topic. Publishers at the topics below it deliver to them, too: the
// lock gives those messages one order for all of them.
struct Circle {
    explicit Circle(std::uint64_t id) : topic(id) {}
    const std::uint64_t topic;
    std::mutex mutex;
    std::vector<Subscription*> members;  // under mutex; changed under the topic's lock, too
};

// Of a topic, the recursive subscriptions above it that may have what is published here. Made without
// locks, kept until Environment::reach_version moves on.
struct Reach {
    struct Group {
        std::shared_ptr<Circle> circle;
        struct Member {
            std::weak_ptr<Channel> channel;  // it may have left
            bool wants_path;                 // its filter lets the publishing channel through
        };
        std::vector<Member> to;
    };
    std::vector<Group> groups;  // each topic once
};

class Topic {
public:
    explicit Topic(Environment& environment, std::uint64_t id)
        : circle(std::make_shared<Circle>(id)), env_(environment) {}
    Topic(const Topic&) = delete;
    Topic& operator=(const Topic&) = delete;

    void enter(Subscription& subscription) noexcept;
    void leave(Subscription& subscription) noexcept;
    std::uint64_t size() const noexcept { return direct.size() + recursive; }
    bool is_idle() const noexcept { return size() == 0 && retained.empty(); }

    // Keeps it for newcomers, with its charges, as long as the settings allow.
    void retain(queue::MessageRef message, const Settings& settings, Keeper& keeper,
                queue::MessageList& garbage) noexcept;
    void trim(const Settings& settings, Keeper& keeper, queue::MessageList& garbage) noexcept;
    // All of them. How many there were.
    std::uint64_t forget(Keeper& keeper, queue::MessageList& garbage) noexcept;

    std::vector<Subscription*> direct;  // those that are not recursive
    const std::shared_ptr<Circle> circle;
    std::uint64_t recursive = 0;  // members of the circle
    std::uint64_t named = 0;
    std::shared_ptr<const Reach> reach;
    std::uint64_t reach_version = 0;

    std::deque<queue::MessageRef> retained;
    std::uint64_t retained_bytes = 0;

    std::uint64_t stuck = 0;       // subscriptions that block and have no room
    bool reserve_is_full = false;  // of one of them: not even for critical messages

private:
    void drop_first(Keeper& keeper, queue::MessageList& garbage) noexcept;
    Environment& env_;
};

}  // namespace ipcfs::channel
