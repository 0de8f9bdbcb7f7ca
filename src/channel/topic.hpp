// What a channel of type topic or multicast decides, and has beside its settings: who subscribes to it, what it
// retains for newcomers, and which subscriptions above it take what is published here, too. Private to
// src/channel; all under the channel's lock but for recursive groups, which have their own.
//
// Order of locks: a topic's channel, then recursive groups by rising id, then a subscription's channel. The
// registry's lock and the right to receive are asked for before all of them, see Reach.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <channel/discipline.hpp>
#include <channel/subscription.hpp>

namespace ipcfs::channel {

// The recursive subscriptions of a topic. Publishers at the topics below it deliver to them, too: the
// lock gives those messages one order for all of them.
struct RecursiveGroup {
    explicit RecursiveGroup(std::uint64_t id) : topic(id) {}
    const std::uint64_t topic;
    std::mutex mutex;
    std::vector<Subscription*> members;  // under mutex; changed under the topic's lock, too
};

// Of a topic, the recursive subscriptions above it that may have what is published here. Made without
// locks, kept until Recursion::version moves on.
struct Reach {
    struct Group {
        std::shared_ptr<RecursiveGroup> recursive_group;
        struct Member {
            std::weak_ptr<Channel> channel;  // it may have left
            bool wants_path;                 // its filter lets the publishing channel through
        };
        std::vector<Member> to;
    };
    std::vector<Group> groups;  // each topic once
};

class Topic final : public Discipline {
public:
    explicit Topic(Core& core)
        : Discipline(core), recursive_group(std::make_shared<RecursiveGroup>(core.id)) {}

    // Of a channel that may be a topic: asks the registry and for rights what its recursive subscribers above may
    // have, if that has changed. Without locks, before anything is published; what changes until the lock is taken
    // counts as later than that.
    static void refresh_reach(Core& core) noexcept {
        if (core.is_topic.load(std::memory_order_relaxed) &&
            core.env.recursion.subscriptions.load(std::memory_order_acquire) > 0) {
            look_above(core);
        }
    }
    // A subscription that blocked publishers has room: for all messages, or for critical ones only. Without locks.
    static void retry(Core& core, bool has_room_for_all) noexcept;
    // Takes `of` out of the lists while its filter changes. Afterwards `filter` and `charge` are the previous ones.
    static void change_filter(Core& core, Subscription& of, std::shared_ptr<const Filter>& filter,
                              access::Charge& charge) noexcept;

    Admission admit(Locked& locked, const queue::Batch& batch, bool was_waiting) noexcept override;
    bool deliver(Locked& locked, queue::Batch& batch, queue::Via via) noexcept override;
    // It has a message until its subscriptions have.
    store::Place first_place() const noexcept override { return store::Place::kTaken; }
    // What `overflow` says is for its subscriptions.
    bool blocks() const noexcept override { return true; }
    bool is_low() const noexcept override { return blocking == 0; }
    bool is_writable(bool critical) const noexcept override;
    bool is_idle() const noexcept override { return size() == 0 && retained.empty(); }
    Result<void> may_be_removed() const override;
    void end(Locked& locked) noexcept override;
    void shut_down(Locked& locked) noexcept override;
    void settings_changed(Locked& locked) noexcept override;
    std::uint64_t purge(Locked& locked) noexcept override;
    void collect(std::vector<queue::MessageRef>& to) const override {
        to.insert(to.end(), retained.begin(), retained.end());
    }
    void describe(Snapshot& to) const noexcept override;

    void enter(Subscription& subscription) noexcept;
    void leave(Subscription& subscription) noexcept;
    std::uint64_t size() const noexcept { return direct.size() + recursive; }
    // Keeps it for newcomers, with its charges, as long as the settings allow.
    void retain(Locked& locked, queue::MessageRef message) noexcept;
    // Gives a new subscription the retained messages that match.
    void replay(Locked& locked, Subscription& to) noexcept;

    std::vector<Subscription*> direct;  // those that are not recursive
    const std::shared_ptr<RecursiveGroup> recursive_group;
    std::uint64_t recursive = 0;  // members of that
    std::uint64_t named = 0;
    std::shared_ptr<const Reach> reach;
    std::uint64_t reach_version = 0;

    std::deque<queue::MessageRef> retained;
    std::uint64_t retained_bytes = 0;

    std::uint64_t blocking = 0;    // subscriptions that block and have no room
    bool reserve_is_full = false;  // of one of them: not even for critical messages

private:
    template <class F>
    void for_each_subscriber(Locked& locked, F&& use);
    static void look_above(Core& core) noexcept;
    bool is_multicast() const noexcept { return type == Type::kMulticast; }
    void drop_first(Locked& locked) noexcept;
};

}  // namespace ipcfs::channel
