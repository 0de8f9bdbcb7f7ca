// Types topic and multicast: what is published goes to all subscriptions that want it, and is kept for newcomers as
// far as the setting `retain` says. Where a subscription blocks and has no room, publishers wait. Any thread, under
// the lock of the topic's channel.
#include <boost/container/small_vector.hpp>

#include <channel/duties.hpp>
#include <channel/filter.hpp>
#include <channel/locked.hpp>
#include <channel/registry.hpp>
#include <channel/topic.hpp>

namespace ipcfs::channel {

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
        std::scoped_lock hold(recursive_group->mutex);
        add(recursive_group->members);
        subscription.in_recursive_group_ = true;
    }
    ++recursive;
    core_.env.recursion.subscriptions.fetch_add(1, std::memory_order_acq_rel);
    core_.env.recursion.changed();
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
    if (!subscription.in_recursive_group_) return drop(direct);
    {
        std::scoped_lock hold(recursive_group->mutex);
        drop(recursive_group->members);
        subscription.in_recursive_group_ = false;
    }
    --recursive;
    core_.env.recursion.subscriptions.fetch_sub(1, std::memory_order_acq_rel);
    core_.env.recursion.changed();
}

// Calls use(subscription, whether its filter lets this channel through), with what is recursive under
// its group's lock.
template <class F>
void Topic::for_each_subscriber(Locked& locked, F&& use) {
    for (Subscription* each : direct) use(*each, each->wants_topic_);
    if (recursive > 0) {
        std::scoped_lock hold(recursive_group->mutex);
        for (Subscription* each : recursive_group->members) use(*each, each->wants_topic_);
    }
    if (!reach || core_.env.recursion.subscriptions.load(std::memory_order_relaxed) == 0) return;
    for (const Reach::Group& group : reach->groups) {
        std::scoped_lock hold(group.recursive_group->mutex);
        for (const auto& [weak, wants_path] : group.to) {
            auto channel = weak.lock();
            if (!channel) continue;
            Subscription& each = *channel->subscription();
            locked.after().kept.push_back(std::move(channel));
            if (each.in_recursive_group_) use(each, wants_path);
        }
    }
}

void Topic::end(Locked& locked) noexcept {
    for_each_subscriber(locked, [&](Subscription& each, bool) {
        if (auto channel = each.topic().get() == &core_.channel
                               ? each.channel().weak_from_this().lock()
                               : nullptr) {
            locked.after().ended.push_back(std::move(channel));
        }
    });
}

// The registry shuts down those with a name.
void Topic::shut_down(Locked& locked) noexcept {
    for_each_subscriber(locked, [&](Subscription& each, bool) {
        if (each.is_named() || each.topic().get() != &core_.channel) return;
        if (auto channel = each.channel().weak_from_this().lock()) {
            locked.after().down.push_back(std::move(channel));
        }
    });
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

// ---- publishing ---------------------------------------------------------------------------------

// Whether every subscription that blocks has room for what it would get of it; if not, those that have
// none will say when. Nothing is put anywhere yet.
Discipline::Admission Topic::admit(Locked& locked, const Batch& batch, bool was_waiting) noexcept {
    if (has_to_wait(batch, was_waiting)) return Admission::kWait;
    for (const Message& message : batch.messages) {
        if (message.payload && message.payload->kind != PayloadKind::kSealed) {
            core_.last_error = "a payload that only one can have cannot be published";
            return Admission::kRefused;
        }
    }
    bool has_room = true;
    boost::container::small_vector<Examined, 1> examined;
    for_each_subscriber(locked, [&](Subscription& each, bool in_reach) {
        if (!each.blocks_.load(std::memory_order_relaxed)) return;
        if (examined.empty()) {
            for (const Message& message : batch.messages) examined.emplace_back(message);
        }
        queue::BatchFigures like;
        auto at = examined.begin();
        for (const Message& message : batch.messages) {
            Examined& looked_at = *at++;
            if (each.active_ && !each.active_->matches(looked_at, in_reach, is_multicast())) {
                continue;
            }
            ++like.count;
            like.bytes += message.size();
        }
        like.critical = batch.critical;
        if (like.count == 0 || each.has_room(locked, like)) return;
        has_room = false;
    });
    if (has_room) return Admission::kEnter;
    if (batch.critical) reserve_is_full = true;
    return Admission::kPause;
}

bool Topic::is_writable(bool critical) const noexcept {
    return critical ? core_.waiters.writers.flagged() == 0 && !reserve_is_full
                    : !core_.flow.paused() && core_.waiters.writers.empty();
}

bool Topic::deliver(Locked& locked, Batch& batch, Via via) noexcept {
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
            if (each.active_ && !each.active_->matches(examined[index], in_reach, is_multicast())) {
                continue;
            }
            is_taken[index] = true;
            if (!add_share(core_.env.messages, message, each.account_, shares)) ++lost;
        }
        if (lost > 0) {  // all or nothing
            lost += shares.count;
            shares.clear();
        }
        if (shares.count + lost == 0) return;
        const std::uint64_t count = shares.count;
        if (each.receive(locked, shares, lost)) core_.counters.copies += count;
    });
    std::size_t at = 0;
    while (MessageRef message = take_front(batch.messages)) {
        if (!is_taken[at++]) ++core_.counters.unmatched;
        core_.counters.enqueued_bytes += message->total();
        locked.emit(EventKind::kArrival, message->total(), message->envelope.priority,
                    message->envelope.type);
        if (core_.settings.retain > 0) {
            core_.keeper->back(*message, 0);
            retain(locked, std::move(message));
        } else {
            // It lives on in its shares, which their subscribers are charged for.
            message->charged_message.reset();
            message->charged_bytes.reset();
            locked.discard(std::move(message));
        }
    }
    batch.clear();
    if (blocking > 0 && !core_.flow.paused()) writing::pause(locked);
    // The kernel tells inotify of a write on `queue` itself, once that write returns.
    if (via == Via::kOther) locked.ring();
    return true;
}

// ---- what is retained ---------------------------------------------------------------------------

void Topic::drop_first(Locked& locked) noexcept {
    Message& first = *retained.front();
    retained_bytes -= first.size();
    first.charged_message.reset();  // it may live on in its shares
    first.charged_bytes.reset();
    locked.discard(std::move(retained.front()));
    retained.pop_front();
}

void Topic::settings_changed(Locked& locked) noexcept {
    while (retained.size() > core_.settings.retain || retained_bytes > core_.settings.bytes) {
        drop_first(locked);
    }
}

void Topic::retain(Locked& locked, MessageRef message) noexcept {
    retained_bytes += message->size();
    retained.push_back(std::move(message));
    settings_changed(locked);
}

std::uint64_t Topic::purge(Locked& locked) noexcept {
    const std::uint64_t count = retained.size();
    while (!retained.empty()) drop_first(locked);
    return count;
}

Result<void> Topic::may_be_removed() const {
    if (!retained.empty()) return Fault{ENOTEMPTY, "messages are retained; purge first"};
    if (named > 0) return Fault{ENOTEMPTY, "it has subscriptions"};
    return {};
}

void Topic::describe(Snapshot& to) const noexcept {
    to.subscriptions = size();
    to.named = named;
    to.retained = retained.size();
    to.retained_bytes = retained_bytes;
}

void Topic::replay(Locked& locked, Subscription& to) noexcept {
    for (const MessageRef& message : retained) {
        if (message->envelope.expires <= locked.now()) continue;
        Examined examined(*message);
        if (to.active_ && !to.active_->matches(examined, to.wants_topic_, is_multicast())) continue;
        Batch one;
        const bool is_charged = add_share(core_.env.messages, *message, to.account_, one);
        to.receive(locked, one, is_charged ? 0 : 1);
        to.replayed_ = std::max(to.replayed_, message->envelope.sequence);
    }
}

// ---- after a restart ----------------------------------------------------------------------------

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

std::unique_ptr<Discipline> make_topic(Core& core) {
    return std::make_unique<Topic>(core);
}

}  // namespace ipcfs::channel
