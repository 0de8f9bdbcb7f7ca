// Of channels that are topics: who subscribes, what their recursive subscribers above may have, and their messages
// after a restart. Any thread; every private function runs under the channel's lock, unless it says otherwise.
#include <algorithm>

#include <channel/duties.hpp>
#include <channel/filter.hpp>
#include <channel/locked.hpp>
#include <channel/registry.hpp>
#include <channel/topic.hpp>

namespace ipcfs::channel {

std::shared_ptr<Subscription> Channel::subscribe(const access::Identity& subscriber,
                                                 access::Account& account) {
    if (!is_topic()) return nullptr;
    // Whoever has the subscription has its channel; the last one to let go ends it.
    struct Handle {
        std::shared_ptr<Channel> channel;
        ~Handle() { channel->subscription()->end(); }
    };
    auto handle = std::make_shared<Handle>();
    handle->channel = std::make_shared<Channel>(self(), core_.id, subscriber, account, false);
    Subscription* made = handle->channel->subscription();
    if (!attach(*made)) return nullptr;
    return {std::move(handle), made};
}

std::shared_ptr<Endpoint> Channel::open_subscription(const access::Identity& subscriber,
                                                     access::Account& account) {
    auto made = subscribe(subscriber, account);
    if (!made) return nullptr;
    Channel& channel = made->channel();
    return {std::move(made), &channel};
}

std::string Channel::filter() const {
    return subscription() ? subscription()->filter() : std::string();
}

Result<void> Channel::set_filter(std::string_view text) {
    if (!subscription()) return Fault{EINVAL, "filter: only subscriptions have one"};
    return subscription()->set_filter(text);
}

bool Channel::attach(Subscription& subscription, bool with_retained) noexcept {
    Locked locked(core_);
    if (!core_.topic || core_.flow.down() || core_.removed() || subscription.has_left_) {
        return false;
    }
    if (with_retained) core_.topic->replay(locked, subscription);
    core_.topic->enter(subscription);
    return true;
}

void Channel::detach(Subscription& subscription) noexcept {
    Locked locked(core_);
    subscription.has_left_ = true;
    if (core_.topic) core_.topic->leave(subscription);
}

void Topic::look_above(Core& core) noexcept {
    const std::uint64_t version = core.env.recursion.version.load(std::memory_order_acquire);
    const auto recursive_group_of = [](Core& of) {
        std::scoped_lock hold(of.mutex);
        return of.topic && of.topic->recursive > 0 ? of.topic->recursive_group : nullptr;
    };
    {
        std::scoped_lock hold(core.mutex);
        if (!core.topic || core.topic->reach_version == version) return;
    }
    auto found = std::make_shared<Reach>();
    if (const Registry* registry = core.env.registry.load(std::memory_order_acquire)) {
        for (const auto& [above, path] : registry->above(core.id)) {
            Reach::Group group{recursive_group_of(above->core()), {}};
            if (!group.recursive_group) continue;
            std::vector<std::shared_ptr<Channel>> members;
            {
                std::scoped_lock hold(group.recursive_group->mutex);
                for (Subscription* each : group.recursive_group->members) {
                    if (auto channel = each->channel().weak_from_this().lock()) {
                        members.push_back(std::move(channel));
                    }
                }
            }
            for (const auto& member : members) {
                const Subscription& subscription = *member->subscription();
                if (!registry->may_receive(core.id, subscription.subscriber())) continue;
                auto filter = subscription.shared_filter();
                group.to.push_back({member, !filter || filter->reaches(path)});
            }
            if (!group.to.empty()) found->groups.push_back(std::move(group));
        }
    }
    std::shared_ptr<const Reach> kept = std::move(found);  // afterwards the one before
    std::scoped_lock hold(core.mutex);
    if (!core.topic) return;
    core.topic->reach.swap(kept);
    core.topic->reach_version = version;
}

void Topic::retry(Core& core, bool has_room_for_all) noexcept {
    refresh_reach(core);
    Locked locked(core);
    Topic* const topic = core.topic;
    if (!topic || core.removed()) return;
    if (has_room_for_all && topic->blocking > 0) --topic->blocking;
    topic->reserve_is_full = false;
    writing::admit_waiters(locked);
}

// After a restart.
void Channel::restore_retained(MessageRef message) noexcept {
    Locked locked(core_);
    core_.keeper->note_key(message->kept_sequence);
    core_.sequence = std::max(core_.sequence, message->envelope.sequence);
    if (core_.topic) core_.topic->retain(locked, std::move(message));
}

// The daemon died between the topic's record of it and those of its subscriptions: some may have it.
void Channel::publish_again(MessageRef message) noexcept {
    Locked locked(core_);
    if (!core_.topic) return;
    core_.keeper->note_key(message->kept_sequence);
    core_.sequence = std::max(core_.sequence, message->envelope.sequence);
    message->envelope.redelivered = true;
    core_.last_arrival = message->envelope.time;
    core_.epoch = locked.realtime() - locked.now();
    Batch batch;
    batch.add(std::move(message));
    batch.is_prepared = true;
    core_.topic->deliver(locked, batch, Via::kOther);
}

void Topic::change_filter(Core& core, Subscription& of, std::shared_ptr<const Filter>& filter,
                          access::Charge& charge) noexcept {
    Locked locked(core);
    const bool is_in = core.topic && of.index_ != Subscription::kNowhere;
    if (is_in) core.topic->leave(of);
    of.install(filter, charge);
    if (is_in) core.topic->enter(of);
    core.env.recursion.changed();
    if (of.active_ && of.replayed_ > 0) {
        of.drop_replayed(locked, core.settings.type == Type::kMulticast);
    }
}

}  // namespace ipcfs::channel
