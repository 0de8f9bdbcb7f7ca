// One subscriber of a topic: whose it is, what it takes, and the channel in which its messages wait (of
// type queue and role subscription, with bounds and policies of its own). The channel owns it. Its
// owner is charged for every message in it, so that a slow subscriber costs only itself. A named one is
// kept by the registry, an anonymous one by whoever subscribed. Any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <access/account.hpp>
#include <access/subject.hpp>
#include <base/guarded.hpp>
#include <base/result.hpp>
#include <channel/settings.hpp>
#include <queue/waiter.hpp>

namespace ipcfs::channel {

class Channel;
class Filter;
class Locked;
class Topic;
struct Core;

class Subscription {
public:
    // `core`: of the channel in which its messages wait.
    Subscription(Core& core, std::weak_ptr<Channel> topic, access::Identity subscriber,
                 access::Account& account, bool is_named);
    ~Subscription();
    Subscription(const Subscription&) = delete;
    Subscription& operator=(const Subscription&) = delete;

    // Where its messages wait, and are taken, leased and settled as at any channel.
    Channel& channel() const noexcept;
    // Null when the topic is gone.
    std::shared_ptr<Channel> topic() const noexcept { return topic_.lock(); }
    const access::Identity& subscriber() const noexcept { return subscriber_; }
    access::Account& account() const noexcept { return account_; }
    bool is_named() const noexcept { return is_named_; }

    // What `filter` shows: the canonical text, empty when it takes everything.
    std::string filter() const;
    // Takes effect for whatever is published from now on, and for retained messages that wait here. EINVAL
    // with the line and the reason, which stay in `status`; EDQUOT.
    Result<void> set_filter(std::string_view text);
    bool is_recursive() const noexcept { return is_recursive_.load(std::memory_order_relaxed); }

    // What a new one has.
    static Settings initial_settings(const Channel& topic, bool is_named);

    // It is over: nothing arrives any more, what waits here is dropped, its readers get end of file.
    // Idempotent.
    void end() noexcept;
    // Out of the topic's lists.
    void leave() noexcept;
    std::shared_ptr<const Filter> shared_filter() const;

    // ---- under its channel's lock ----
    // Settings have changed, or were given.
    void follow(const Settings& settings) noexcept;
    // Gives a share the number that its subscriber sees.
    void number(Locked& locked, queue::Envelope& envelope) noexcept;
    // Publishers that wait may try again, if there is room.
    void release_publishers(Locked& locked) noexcept;

private:
    friend class Channel;
    friend class Topic;

    // ---- under the topic's lock ----
    // Whether it has room for a batch with these figures. If not, `topic` is told when it has.
    bool has_room(Locked& topic, const queue::BatchFigures& like) noexcept;
    // Whether it was put into the queue. `lost`: messages that this subscriber has lost already.
    bool receive(Locked& topic, queue::Batch& shares, std::uint64_t lost) noexcept;
    // Drops retained messages that it was given before it had its filter and that do not match it.
    void drop_replayed(Locked& topic, bool is_multicast) noexcept;
    void install(std::shared_ptr<const Filter>& filter, access::Charge& charge) noexcept;
    // Publishers of `topic` wait for room here.
    void block(Locked& topic, bool critical) noexcept;

    Core& core_;
    const std::weak_ptr<Channel> topic_;
    const access::Identity subscriber_;
    access::Account& account_;
    const bool is_named_;
    std::atomic<bool> is_recursive_{false};

    struct Chosen {
        std::shared_ptr<const Filter> filter;  // null: everything
        access::Charge charge;                 // for it
    };
    bool blocks() const noexcept { return blocks_.load(std::memory_order_relaxed); }

    Guarded<Chosen> chosen_;
    std::atomic<bool> blocks_{false};  // whether its publishers wait for room
    std::atomic<bool> is_over_{false};
    // Under the topic's lock, of recursive ones under its RecursiveGroup's, too:
    const Filter* active_ = nullptr;  // the chosen one
    bool wants_topic_ = true;         // it lets through what is published at the topic itself
    static constexpr std::size_t kNowhere = SIZE_MAX;
    std::size_t index_ = kNowhere;  // in the list that it is in
    bool in_recursive_group_ = false;
    bool has_left_ = false;

    // Under the channel's lock: topics whose publishers wait for room here.
    struct Hold {
        std::weak_ptr<Channel> topic;
        bool critical;  // for room in the reserve, too
    };
    std::vector<Hold> holds_;
    std::uint64_t replayed_ = 0;  // sequences up to this were retained ones
};

}  // namespace ipcfs::channel
