// Of channels that are topics: who subscribes, what their recursive subscribers above may have, and their messages
// after a restart. Any thread; every private function runs under the channel's lock, unless it says otherwise.
#include <algorithm>

#include <channel/filter.hpp>
#include <channel/locked.hpp>
#include <channel/registry.hpp>
#include <channel/topic.hpp>

namespace ipcfs::channel {

using queue::Batch;
using queue::MessageRef;
using queue::Via;

std::shared_ptr<Subscription> Channel::subscribe(const access::Identity& subscriber,
                                                 access::Account& account) {
    if (!is_topic()) return nullptr;
    // Whoever has the subscription has its channel; the last one to let go ends it.
    struct Handle {
        std::shared_ptr<Channel> channel;
        ~Handle() { channel->subscription()->end(); }
    };
    auto handle = std::make_shared<Handle>();
    handle->channel =
        std::make_shared<Channel>(shared_from_this(), id_, subscriber, account, false);
    Subscription* made = handle->channel->subscription();
    if (!attach(*made)) return nullptr;
    return {std::move(handle), made};
}

Channel::Channel(const std::shared_ptr<Channel>& topic, std::uint64_t id,
                 const access::Identity& subscriber, access::Account& account, bool is_named)
    : env_(topic->env_),
      id_(id),
      created_(topic->env_.clock.realtime()),
      subscription_(std::make_unique<Subscription>(*this, topic, subscriber, account, is_named)),
      settings_(topic->subscription_settings()),
      backlog_(settings_.batch_gate()) {
    if (!is_named) settings_.durable = Durable::kOff;
    follow_settings();
}

Settings Channel::subscription_settings() const {
    Settings own = settings();
    own.type = Type::kQueue;
    if (own.overflow == Overflow::kBlock) own.overflow = Overflow::kDropOldest;
    own.retain = 0;
    return own;
}

bool Channel::attach(Subscription& subscription, bool with_retained) noexcept {
    Locked locked(*this);
    if (!topic_ || flow_.down() || removed_.load(std::memory_order_relaxed) ||
        subscription.has_left_) {
        return false;
    }
    if (with_retained) topic_->replay(locked, subscription);
    topic_->enter(subscription);
    return true;
}

void Channel::detach(Subscription& subscription) noexcept {
    Locked locked(*this);
    subscription.has_left_ = true;
    if (topic_) topic_->leave(subscription);
}

std::shared_ptr<Circle> Channel::circle() const {
    std::scoped_lock hold(mutex_);
    return topic_ && topic_->recursive > 0 ? topic_->circle : nullptr;
}

// Asks the registry and for rights, so it holds no lock meanwhile. What changes until the lock is
// taken counts as later than what is published then.
void Channel::refresh_reach() noexcept {
    if (!is_topic() || env_.recursion.subscriptions.load(std::memory_order_acquire) == 0) return;
    const std::uint64_t version = env_.recursion.version.load(std::memory_order_acquire);
    {
        std::scoped_lock hold(mutex_);
        if (!topic_ || topic_->reach_version == version) return;
    }
    auto found = std::make_shared<Reach>();
    if (const Registry* registry = env_.registry.load(std::memory_order_acquire)) {
        for (const auto& [above, path] : registry->above(id_)) {
            Reach::Group group{above->circle(), {}};
            if (!group.circle) continue;
            std::vector<std::shared_ptr<Channel>> members;
            {
                std::scoped_lock hold(group.circle->mutex);
                for (Subscription* each : group.circle->members) {
                    if (auto channel = each->channel().weak_from_this().lock()) {
                        members.push_back(std::move(channel));
                    }
                }
            }
            for (const auto& member : members) {
                const Subscription& subscription = *member->subscription();
                if (!registry->may_receive(id_, subscription.subscriber())) continue;
                auto filter = subscription.shared_filter();
                group.to.push_back({member, !filter || filter->reaches(path)});
            }
            if (!group.to.empty()) found->groups.push_back(std::move(group));
        }
    }
    std::shared_ptr<const Reach> kept = std::move(found);  // afterwards the one before
    std::scoped_lock hold(mutex_);
    if (!topic_) return;
    topic_->reach.swap(kept);
    topic_->reach_version = version;
}

// A subscription that blocked us has room: for all (`is_relieved`), or for critical messages.
void Channel::retry_publishers(bool is_relieved) noexcept {
    refresh_reach();
    Locked locked(*this);
    if (!topic_ || removed_.load(std::memory_order_relaxed)) return;
    if (is_relieved && topic_->stuck > 0) --topic_->stuck;
    topic_->reserve_is_full = false;
    admit_waiters(locked);
}

// After a restart.
void Channel::restore_retained(MessageRef message) noexcept {
    Locked locked(*this);
    keeper_->note_key(message->kept_sequence);
    sequence_ = std::max(sequence_, message->envelope.sequence);
    if (topic_) topic_->retain(locked, std::move(message));
}

// The daemon died between the topic's record of it and those of its subscriptions: some may have it.
void Channel::publish_again(MessageRef message) noexcept {
    Locked locked(*this);
    if (!topic_) return;
    keeper_->note_key(message->kept_sequence);
    sequence_ = std::max(sequence_, message->envelope.sequence);
    message->envelope.redelivered = true;
    last_arrival_ = message->envelope.time;
    epoch_ = locked.realtime() - locked.now();
    Batch batch;
    batch.add(std::move(message));
    batch.is_prepared = true;
    topic_->deliver(locked, batch, Via::kOther);
}

// Afterwards `filter` and `charge` are those before.
void Channel::change_filter(Subscription& of, std::shared_ptr<const Filter>& filter,
                            access::Charge& charge) noexcept {
    Locked locked(*this);
    const bool is_in = topic_ && of.index_ != Subscription::kNowhere;
    if (is_in) topic_->leave(of);
    of.install(filter, charge);
    if (is_in) topic_->enter(of);
    env_.recursion.changed();
    if (of.active_ && of.replayed_ > 0)
        of.channel_.drop_replayed(locked, settings_.type == Type::kMulticast);
}

}  // namespace ipcfs::channel
