// Publishing. Any thread; what is private runs under the channel's lock.
#include <algorithm>

#include <channel/locked.hpp>
#include <channel/topic.hpp>

namespace ipcfs::channel {

Channel::Channel(const std::shared_ptr<Channel>& topic, std::uint64_t id,
                 const access::Subject& subscriber, access::Account& account, bool is_named)
    : env_(topic->env_),
      id_(id),
      created_(topic->env_.clock.realtime()),
      subscription_(std::make_unique<Subscription>(*this, topic, subscriber, account, is_named)),
      settings_(topic->subscription_settings()),
      gate_(settings_.batch_gate()) {
    if (!is_named) settings_.durable = Durable::kOff;
}

std::shared_ptr<Subscription> Channel::subscribe(const access::Subject& subscriber,
                                                 access::Account& account) {
    if (!is_topic()) return nullptr;
    // Whoever has the subscription has its channel; the last one to let go ends it.
    struct Handle {
        std::shared_ptr<Channel> channel;
        ~Handle() { channel->subscription_->end(); }
    };
    auto handle = std::make_shared<Handle>(
        std::make_shared<Channel>(shared_from_this(), id_, subscriber, account, false));
    Subscription& made = *handle->channel->subscription_;
    if (!attach(made)) return nullptr;
    return std::shared_ptr<Subscription>(std::move(handle), &made);
}

bool Channel::attach(Subscription& subscription, bool /*replay*/) noexcept {
    Locked locked(*this);
    if (!topic_ || removed_.load(std::memory_order_relaxed) || subscription.ended_) return false;
    topic_->enter(subscription);
    return true;
}

void Channel::detach(Subscription& subscription) noexcept {
    Locked locked(*this);
    subscription.ended_ = true;
    if (topic_) topic_->leave(subscription);
}

Settings Channel::subscription_settings() const {
    Settings own = settings();
    own.type = Type::kQueue;
    if (own.overflow == Overflow::kBlock) own.overflow = Overflow::kDropOldest;
    own.retain = 0;
    return own;
}

void Topic::enter(Subscription& subscription) noexcept {
    if (subscription.index_ != Subscription::kNowhere) return;
    named += subscription.is_named();
    auto add = [&](std::vector<Subscription*>& list) {
        subscription.index_ = list.size();
        list.push_back(&subscription);
    };
    subscription.in_circle_ = subscription.is_recursive();
    if (!subscription.in_circle_) return add(direct);
    std::scoped_lock hold(circle->mutex);
    add(circle->members);
    ++recursive;
}

void Topic::leave(Subscription& subscription) noexcept {
    if (subscription.index_ == Subscription::kNowhere) return;
    named -= subscription.is_named();
    auto drop = [&](std::vector<Subscription*>& list) {
        list[subscription.index_] = list.back();
        list[subscription.index_]->index_ = subscription.index_;
        list.pop_back();
        subscription.index_ = Subscription::kNowhere;
    };
    if (!subscription.in_circle_) return drop(direct);
    std::scoped_lock hold(circle->mutex);
    drop(circle->members);
    subscription.in_circle_ = false;
    --recursive;
}

}  // namespace ipcfs::channel
