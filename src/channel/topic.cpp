// Publishing. Any thread; what is private runs under the channel's lock.
#include <algorithm>

#include <boost/container/small_vector.hpp>
#include <store/store.hpp>

#include <channel/filter.hpp>
#include <channel/locked.hpp>
#include <channel/registry.hpp>
#include <channel/topic.hpp>

namespace ipcfs::channel {

using queue::Batch;
using queue::Message;
using queue::MessageRef;
using queue::Via;
using queue::Wake;

namespace {

// An entry for one subscriber, charged to it. False when that is not to be had.
bool add_share(queue::MessagePool& pool, Message& origin, access::Account& account, Batch& to) {
    MessageRef share = pool.share(MessageRef(&origin));
    if (!share || !share->charge(account)) return false;
    share->envelope.redelivered = origin.envelope.redelivered;
    to.add(std::move(share));
    return true;
}

}  // namespace

// ---- who subscribes -----------------------------------------------------------------------------

void Topic::enter(Subscription& subscription) noexcept {
    if (subscription.index_ != Subscription::kNowhere) return;
    named += subscription.is_named();
    auto add = [&](std::vector<Subscription*>& list) {
        subscription.index_ = list.size();
        list.push_back(&subscription);
    };
    if (!subscription.is_recursive()) return add(direct);
    {
        std::scoped_lock hold(circle->mutex);
        add(circle->members);
        subscription.in_circle_ = true;
    }
    ++recursive;
    env_.recursive.fetch_add(1, std::memory_order_acq_rel);
    env_.reach_version.fetch_add(1, std::memory_order_acq_rel);
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
    {
        std::scoped_lock hold(circle->mutex);
        drop(circle->members);
        subscription.in_circle_ = false;
    }
    --recursive;
    env_.recursive.fetch_sub(1, std::memory_order_acq_rel);
    env_.reach_version.fetch_add(1, std::memory_order_acq_rel);
}

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
    if (with_retained) replay(locked, subscription);
    topic_->enter(subscription);
    return true;
}

void Channel::detach(Subscription& subscription) noexcept {
    Locked locked(*this);
    subscription.has_left_ = true;
    if (topic_) topic_->leave(subscription);
}

void Channel::follow_settings() noexcept {
    const bool is_one = settings_.type == Type::kTopic || settings_.type == Type::kMulticast;
    if (is_one && !topic_) topic_ = std::make_unique<Topic>(env_, id_);
    if (!is_one) topic_.reset();
    if (is_topic_.exchange(is_one, std::memory_order_relaxed) != is_one) {
        env_.reach_version.fetch_add(1, std::memory_order_acq_rel);
    }
    const Durable durable = env_.store ? settings_.durable : Durable::kOff;
    if (!keeper_ || keeper_->durable() != durable) keeper_ = make_keeper(durable);
    if (subscription_) {
        subscription_->blocks_.store(settings_.overflow == Overflow::kBlock,
                                     std::memory_order_relaxed);
    }
}

void Channel::end_subscriptions(Locked& locked) noexcept {
    for_each_subscriber(locked, [&](Subscription& each, bool) {
        if (auto channel =
                each.topic().get() == this ? each.channel().weak_from_this().lock() : nullptr) {
            locked.after().ended.push_back(std::move(channel));
        }
    });
}

// Those with a name are told by the registry.
void Channel::shut_down_subscriptions(Locked& locked) noexcept {
    for_each_subscriber(locked, [&](Subscription& each, bool) {
        if (each.is_named() || each.topic().get() != this) return;
        if (auto channel = each.channel().weak_from_this().lock()) {
            locked.after().down.push_back(std::move(channel));
        }
    });
}

void Channel::DeferredEffects::absorb(Channel& channel, Effects& effects) {
    finish.splice(finish.end(), effects.finish);
    notify.splice(notify.end(), effects.notify);
    garbage.splice(garbage.end(), effects.garbage);
    if (effects.events.empty() && effects.arm == kNever && !effects.enrol && !effects.ring &&
        effects.relieved.empty()) {
        return;
    }
    if (auto kept_alive = channel.weak_from_this().lock()) {
        rest.emplace_back(std::move(kept_alive), std::move(effects));
    }
}

void Channel::DeferredEffects::run() noexcept {
    while (!finish.empty()) {
        queue::Waiter& waiter = finish.front();
        finish.pop_front();
        waiter.finish();
    }
    while (!notify.empty()) {
        std::unique_ptr<PollTicket> ticket(&notify.front());
        notify.pop_front();
        ticket->notify();
    }
    for (auto& [channel, effects] : rest) Locked::run(*channel, effects);
    for (const auto& channel : down) channel->shut_down();
    for (const auto& channel : ended) channel->subscription()->end();
    while (queue::take_front(garbage)) {
    }
}

// ---- recursive subscriptions above --------------------------------------------------------------

std::shared_ptr<Circle> Channel::circle() const {
    std::scoped_lock hold(mutex_);
    return topic_ && topic_->recursive > 0 ? topic_->circle : nullptr;
}

// Asks the registry and for rights, so it holds no lock meanwhile. What changes until the lock is
// taken counts as later than what is published then.
void Channel::refresh_reach() noexcept {
    if (!is_topic() || env_.recursive.load(std::memory_order_acquire) == 0) return;
    const std::uint64_t version = env_.reach_version.load(std::memory_order_acquire);
    {
        std::scoped_lock hold(mutex_);
        if (!topic_ || topic_->reach_version == version) return;
    }
    auto found = std::make_shared<Reach>();
    const Registry* registry = env_.registry.load(std::memory_order_acquire);
    if (registry && env_.may_receive) {
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
                if (!env_.may_receive(id_, subscription.subscriber())) continue;
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

// Calls use(subscription, whether its filter lets this channel through), with what is recursive under
// its circle's lock.
template <class F>
void Channel::for_each_subscriber(Locked& locked, F&& use) {
    for (Subscription* each : topic_->direct) use(*each, each->wants_topic_);
    if (topic_->recursive > 0) {
        std::scoped_lock hold(topic_->circle->mutex);
        for (Subscription* each : topic_->circle->members) use(*each, each->wants_topic_);
    }
    if (!topic_->reach || env_.recursive.load(std::memory_order_relaxed) == 0) return;
    for (const Reach::Group& group : topic_->reach->groups) {
        std::scoped_lock hold(group.circle->mutex);
        for (const auto& [weak, wants_path] : group.to) {
            auto channel = weak.lock();
            if (!channel) continue;
            Subscription& each = *channel->subscription();
            locked.after().kept.push_back(std::move(channel));
            if (each.in_circle_) use(each, wants_path);
        }
    }
}

// ---- publishing ---------------------------------------------------------------------------------

// Whether every subscription that blocks has room for what it would get of it; if not, those that have
// none will say when. Nothing is put anywhere yet.
Push Channel::ask_subscribers(Locked& locked, const Batch& batch, bool was_waiting) noexcept {
    if (has_to_wait(batch, was_waiting)) return Push::kWait;
    for (const Message& message : batch.messages) {
        if (message.payload && message.payload->kind != PayloadKind::kSealed) {
            last_error_ = "a payload that only one can have cannot be published";
            return Push::kTooLong;
        }
    }
    bool has_room = true;
    boost::container::small_vector<Examined, 1> examined;
    for_each_subscriber(locked, [&](Subscription& each, bool in_reach) {
        if (!each.blocks_.load(std::memory_order_relaxed)) return;
        if (examined.empty()) {
            for (const Message& message : batch.messages) examined.emplace_back(message);
        }
        Batch like;  // its figures only
        auto at = examined.begin();
        for (const Message& message : batch.messages) {
            Examined& looked_at = *at++;
            if (each.active_ &&
                !each.active_->matches(looked_at, in_reach, settings_.type == Type::kMulticast)) {
                continue;
            }
            ++like.count;
            like.bytes += message.size();
        }
        like.critical = batch.critical;
        if (like.count == 0 || each.channel_.has_room(locked, *this, like)) return;
        has_room = false;
    });
    if (has_room) return Push::kQueued;
    if (batch.critical) topic_->reserve_is_full = true;
    if (!flow_.paused()) pause(locked);
    return Push::kWait;
}

void Channel::publish(Locked& locked, Batch& batch, Via via) noexcept {
    boost::container::small_vector<Examined, 1> examined;
    boost::container::small_vector<bool, 1> is_taken;
    for (const Message& message : batch.messages) {
        examined.emplace_back(message);
        is_taken.push_back(false);
    }
    for_each_subscriber(locked, [&](Subscription& each, bool in_reach) {
        Batch shares;
        std::uint64_t lost = 0;
        std::size_t at = 0;
        for (Message& message : batch.messages) {
            const std::size_t index = at++;
            if (each.active_ && !each.active_->matches(examined[index], in_reach,
                                                       settings_.type == Type::kMulticast)) {
                continue;
            }
            is_taken[index] = true;
            if (!add_share(env_.messages, message, each.account_, shares)) ++lost;
        }
        if (lost > 0) {  // all or nothing
            lost += shares.count;
            shares.clear();
        }
        if (shares.count + lost == 0) return;
        const std::uint64_t count = shares.count;
        if (each.channel_.receive(locked, *this, shares, lost)) counters_.copies += count;
    });
    std::size_t at = 0;
    while (MessageRef message = take_front(batch.messages)) {
        if (!is_taken[at++]) ++counters_.unmatched;
        counters_.enqueued_bytes += message->total();
        if (locked.listening) {
            emit(locked, EventKind::kArrival, message->envelope.priority, message->envelope.type,
                 message->total());
        }
        if (settings_.retain > 0) {
            keeper_->back(*message, 0);
            topic_->retain(std::move(message), settings_, *keeper_, locked.effects.garbage);
        } else {
            // It lives on in its shares, which their subscribers are charged for.
            message->charged_message.reset();
            message->charged_bytes.reset();
            keeper_->gone(*message);
            locked.discard(std::move(message));
        }
    }
    batch.clear();
    if (topic_->stuck > 0 && !flow_.paused()) pause(locked);
    // The kernel tells inotify of a write on `queue` itself, once that write returns.
    if (via == Via::kOther) ring(locked);
}

// ---- what is retained ---------------------------------------------------------------------------

void Topic::drop_first(Keeper& keeper, queue::MessageList& garbage) noexcept {
    Message& first = *retained.front();
    retained_bytes -= first.size();
    first.charged_message.reset();  // it may live on in its shares
    first.charged_bytes.reset();
    keeper.gone(first);
    garbage.push_back(*retained.front().detach());
    retained.pop_front();
}

void Topic::trim(const Settings& settings, Keeper& keeper, queue::MessageList& garbage) noexcept {
    while (retained.size() > settings.retain || retained_bytes > settings.bytes) {
        drop_first(keeper, garbage);
    }
}

void Topic::retain(MessageRef message, const Settings& settings, Keeper& keeper,
                   queue::MessageList& garbage) noexcept {
    retained_bytes += message->size();
    retained.push_back(std::move(message));
    trim(settings, keeper, garbage);
}

std::uint64_t Topic::forget(Keeper& keeper, queue::MessageList& garbage) noexcept {
    const std::uint64_t count = retained.size();
    while (!retained.empty()) drop_first(keeper, garbage);
    return count;
}

// After a restart.
void Channel::restore_retained(MessageRef message) noexcept {
    Locked locked(*this);
    keeper_->note_key(message->kept_sequence);
    sequence_ = std::max(sequence_, message->envelope.sequence);
    if (topic_) topic_->retain(std::move(message), settings_, *keeper_, locked.effects.garbage);
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
    publish(locked, batch, Via::kOther);
}

void Channel::replay(Locked& locked, Subscription& to) noexcept {
    for (const MessageRef& message : topic_->retained) {
        if (message->envelope.expires <= locked.now()) continue;
        Examined examined(*message);
        if (to.active_ &&
            !to.active_->matches(examined, to.wants_topic_, settings_.type == Type::kMulticast))
            continue;
        Batch one;
        const bool is_charged = add_share(env_.messages, *message, to.account_, one);
        to.channel_.receive(locked, *this, one, is_charged ? 0 : 1);
        to.replayed_ = std::max(to.replayed_, message->envelope.sequence);
    }
}

// ---- filters ------------------------------------------------------------------------------------

// Afterwards `filter` and `charge` are those before.
void Channel::change_filter(Subscription& of, std::shared_ptr<const Filter>& filter,
                            access::Charge& charge) noexcept {
    Locked locked(*this);
    const bool is_in = topic_ && of.index_ != Subscription::kNowhere;
    if (is_in) topic_->leave(of);
    of.install(filter, charge);
    if (is_in) topic_->enter(of);
    env_.reach_version.fetch_add(1, std::memory_order_acq_rel);
    if (of.active_ && of.replayed_ > 0)
        of.channel_.drop_replayed(locked, settings_.type == Type::kMulticast);
}

// A named subscription is made first and given a filter then: what it was given to start with, and has
// not delivered, has to match as if it had had that filter.
void Channel::drop_replayed(Locked& topic, bool is_multicast) noexcept {
    Locked locked(*this, topic);
    backlog_.for_each([&](Message& message) {
        if (message.envelope.sequence > subscription_->replayed_) return true;
        Examined examined(message);
        const Subscription& own = *subscription_;
        if (!own.active_->matches(examined, own.wants_topic_, is_multicast)) {
            ++counters_.purged;
            drop(locked, backlog_.remove(message), Wake::kPurged);
        }
        return true;
    });
    admit_waiters(locked);
}

}  // namespace ipcfs::channel
