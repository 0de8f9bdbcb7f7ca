// Of one subscription: its filter, and what a topic does with it. Any thread.
#include <channel/duties.hpp>
#include <channel/filter.hpp>
#include <channel/registry.hpp>
#include <channel/topic.hpp>

namespace ipcfs::channel {

Subscription::Subscription(Core& core, std::weak_ptr<Channel> topic, access::Identity subscriber,
                           access::Account& account, bool is_named)
    : core_(core),
      topic_(std::move(topic)),
      subscriber_(std::move(subscriber)),
      account_(account),
      is_named_(is_named) {}

Subscription::~Subscription() = default;

Settings Subscription::initial_settings(const Channel& topic, bool is_named) {
    Settings own = topic.settings();
    own.type = Type::kQueue;
    if (own.overflow == Overflow::kBlock) own.overflow = Overflow::kDropOldest;
    own.retain = 0;
    if (!is_named) own.durable = Durable::kOff;
    return own;
}

Channel& Subscription::channel() const noexcept {
    return core_.channel;
}

std::shared_ptr<const Filter> Subscription::shared_filter() const {
    return chosen_.with([](const Chosen& chosen) { return chosen.filter; });
}

std::string Subscription::filter() const {
    auto filter = shared_filter();
    return filter ? filter->text() : std::string();
}

Result<void> Subscription::set_filter(std::string_view text) {
    auto refuse = [&](Fault fault) {
        fault.operation = "filter: " + fault.operation;
        channel().note_error(fault.operation);
        return fault;
    };
    auto parsed = Filter::parse(text);
    if (!parsed) return refuse(parsed.error());
    std::shared_ptr<const Filter> filter = std::move(*parsed);
    access::Charge charge;
    if (filter->text().empty()) {
        filter.reset();
    } else {
        auto taken = access::Charge::take(account_, access::Resource::kBytes, filter->bytes());
        if (!taken) return refuse({EDQUOT, "the user's limit of bytes is reached"});
        charge = std::move(*taken);
    }
    if (auto topic = topic_.lock()) {
        Topic::change_filter(topic->core(), *this, filter, charge);
    } else {
        install(filter, charge);
    }
    Registry* const registry = core_.env.registry.load(std::memory_order_acquire);
    if (is_named_ && registry && channel().settings().durable != Durable::kOff) {
        if (auto kept = registry->keep_record(core_.id, nullptr); !kept) {
            channel().note_error("store: " + kept.error().message());
        }
    }
    return {};
}

// Under the topic's lock while it is in none of its lists.
void Subscription::install(std::shared_ptr<const Filter>& filter, access::Charge& charge) noexcept {
    active_ = filter.get();
    wants_topic_ = !filter || filter->reaches("");
    is_recursive_.store(filter && filter->is_recursive(), std::memory_order_relaxed);
    chosen_.with([&](Chosen& chosen) {
        chosen.filter.swap(filter);
        std::swap(chosen.charge, charge);
    });
}

void Subscription::leave() noexcept {
    if (auto topic = topic_.lock()) topic->detach(*this);
}

void Subscription::end() noexcept {
    if (is_over_.exchange(true)) return;
    leave();
    channel().close_down();
}

// ---- what is published --------------------------------------------------------------------------

void Subscription::follow(const Settings& settings) noexcept {
    blocks_.store(settings.overflow == Overflow::kBlock, std::memory_order_relaxed);
}

bool Subscription::has_room(Locked& topic, const queue::BatchFigures& like) noexcept {
    Locked locked(core_, topic);
    if (core_.removed() || !blocks()) return true;
    // A batch that can never fit is lost for this subscriber only.
    if (like.count > core_.settings.capacity || like.bytes > core_.settings.bytes) return true;
    if (core_.backlog.empty() && core_.waiters.can_take(like.count) && !core_.backlog.gated()) {
        return true;
    }
    if ((like.critical || !core_.flow.paused()) && core_.flow.fits(like)) return true;
    if (!core_.flow.paused()) writing::pause(locked);
    block(topic, like.critical);
    return false;
}

// A share keeps the topic's number, unless several topics may publish to it.
void Subscription::number(Locked& locked, Envelope& envelope) noexcept {
    const bool is_ours = !in_recursive_group_ && envelope.sequence > core_.sequence;
    core_.sequence = is_ours ? envelope.sequence : core_.sequence + 1;
    envelope.sequence = core_.sequence;
    if (core_.settings.ttl > 0) {
        envelope.expires = std::min(envelope.expires, locked.now() + core_.settings.ttl);
    }
}

bool Subscription::receive(Locked& topic, Batch& shares, std::uint64_t lost) noexcept {
    Locked locked(core_, topic);
    if (core_.removed()) return false;
    bool is_queued = false;
    const std::uint64_t count = shares.count;
    if (count > 0) {
        // Where it blocks, there was room when that was asked for.
        Push push = Push::kQueued;
        if (!blocks() || core_.flow.never_fits(shares)) {
            push = writing::admit(locked, shares, Via::kOther, false);
        } else {
            if (core_.is_kept) push = committing::keep_first(locked, shares);
            if (push == Push::kQueued) writing::enqueue(locked, shares, Via::kOther);
        }
        is_queued = push == Push::kQueued;
        if (!is_queued) lost += count;
        if (blocks() && core_.flow.paused()) block(topic, false);
    }
    if (lost > 0) {
        core_.counters.lost += lost;
        locked.emit(EventKind::kOverflow, lost);
    }
    return is_queued;
}

void Subscription::drop_replayed(Locked& topic, bool is_multicast) noexcept {
    Locked locked(core_, topic);
    core_.backlog.for_each([&](Message& message) {
        if (message.envelope.sequence > replayed_) return true;
        Examined examined(message);
        if (!active_->matches(examined, wants_topic_, is_multicast)) {
            ++core_.counters.purged;
            reading::drop(locked, core_.backlog.remove(message), Wake::kPurged);
        }
        return true;
    });
    writing::admit_waiters(locked);
}

void Subscription::block(Locked& topic, bool critical) noexcept {
    for (Hold& hold : holds_) {
        if (hold.topic.lock().get() != &topic->channel) continue;
        hold.critical = hold.critical || critical;
        return;
    }
    holds_.push_back({topic->channel.weak_from_this(), critical});
    ++topic->topic->blocking;
}

void Subscription::release_publishers(Locked& locked) noexcept {
    if (holds_.empty()) return;
    const bool is_over = core_.removed() || !blocks() || !core_.flow.paused();
    for (Hold& hold : holds_) {
        if (!is_over && !(hold.critical && core_.flow.reserve_has_room())) continue;
        hold.critical = false;
        if (auto topic = hold.topic.lock()) {
            locked.effects.unblocked.emplace_back(std::move(topic), is_over);
        }
    }
    if (is_over) holds_.clear();
}

// ---- what the tree and the registry call --------------------------------------------------------

std::shared_ptr<Subscription> Channel::subscribe(const access::Identity& subscriber,
                                                 access::Account& account) {
    if (!is_topic()) return nullptr;
    // A reference to the subscription keeps its channel; the last reference ends it.
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

}  // namespace ipcfs::channel
