// Of one subscription: its filter, and what a topic does with it. Any thread; what is private runs under the
// lock of its topic.
#include <channel/channel.hpp>
#include <channel/filter.hpp>
#include <channel/locked.hpp>
#include <channel/registry.hpp>
#include <channel/subscription.hpp>
#include <channel/topic.hpp>

namespace ipcfs::channel {

using queue::Batch;
using queue::Message;
using queue::Via;
using queue::Wake;

Subscription::Subscription(Channel& channel, std::weak_ptr<Channel> topic,
                           access::Identity subscriber, access::Account& account, bool is_named)
    : channel_(channel),
      topic_(std::move(topic)),
      subscriber_(std::move(subscriber)),
      account_(account),
      is_named_(is_named) {}

Subscription::~Subscription() = default;

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
        channel_.note_error(fault.operation);
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
        topic->change_filter(*this, filter, charge);
    } else {
        install(filter, charge);
    }
    Registry* const registry = channel_.environment().registry.load(std::memory_order_acquire);
    if (is_named_ && registry && channel_.settings().durable != Durable::kOff) {
        if (auto kept = registry->keep_record(channel_.id(), nullptr); !kept) {
            channel_.note_error("store: " + kept.error().message());
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
    channel_.close_down();
}

// ---- of a subscription, under the topic's lock --------------------------------------------------

bool Channel::has_room(Locked& topic, Channel& publisher, const Batch& like) noexcept {
    Locked locked(*this, topic);
    if (removed_.load(std::memory_order_relaxed) || !blocks_publishers()) return true;
    // What can never fit is lost here and nowhere else.
    if (like.count > settings_.capacity || like.bytes > settings_.bytes) return true;
    if (backlog_.empty() && waiters_.can_take(like.count) && !backlog_.gated()) {
        return true;
    }
    if ((like.critical || !flow_.paused()) && flow_.fits(like)) return true;
    if (!flow_.paused()) pause(locked);
    if (hold_up(publisher, like.critical)) ++publisher.topic_->stuck;
    return false;
}

// Identity, number and time are the topic's; the number not where publishers may be several topics.
void Channel::stamp_share(Locked& locked, Message& share) noexcept {
    queue::Envelope& envelope = share.envelope;
    const bool is_ours = !subscription_->in_circle_ && envelope.sequence > sequence_;
    sequence_ = is_ours ? envelope.sequence : sequence_ + 1;
    envelope.sequence = sequence_;
    envelope.place = backlog_.new_place();
    envelope.enqueued = locked.now();
    if (settings_.ttl > 0) {
        envelope.expires = std::min(envelope.expires, envelope.enqueued + settings_.ttl);
    }
    mind_expiry(locked, envelope);
}

// Whether it was put into the queue. What is lost here is lost for this subscriber alone.
bool Channel::receive(Locked& topic, Channel& publisher, Batch& shares,
                      std::uint64_t lost) noexcept {
    Locked locked(*this, topic);
    if (removed_.load(std::memory_order_relaxed)) return false;
    bool is_queued = false;
    std::uint64_t count = shares.count;
    if (count > 0) {
        // Where it blocks, there was room when that was asked for.
        Push push = Push::kTooLong;
        if (!blocks_publishers() || flow_.never_fits(shares)) {
            push = admit(locked, shares, Via::kOther, false);
        } else if (push = keep_first(locked, shares); push == Push::kQueued) {
            enqueue(locked, shares, Via::kOther, nullptr);
        }
        is_queued = push == Push::kQueued;
        if (!is_queued) lost += count;
        if (blocks_publishers() && flow_.paused() && hold_up(publisher, false))
            ++publisher.topic_->stuck;
    }
    if (lost > 0) {
        counters_.lost += lost;
        emit(locked, EventKind::kOverflow, 255, 0, lost);
    }
    return is_queued;
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

// Whether it is new that this topic's publishers wait for us.
bool Channel::hold_up(Channel& publisher, bool critical) noexcept {
    for (Subscription::Hold& hold : subscription_->holds_) {
        if (hold.topic.lock().get() != &publisher) continue;
        hold.critical = hold.critical || critical;
        return false;
    }
    subscription_->holds_.push_back({publisher.weak_from_this(), critical});
    return true;
}

void Channel::relieve(Locked& locked) noexcept {
    auto& holds = subscription_->holds_;
    if (holds.empty()) return;
    const bool is_over =
        removed_.load(std::memory_order_relaxed) || !blocks_publishers() || !flow_.paused();
    for (Subscription::Hold& hold : holds) {
        if (!is_over && !(hold.critical && flow_.reserve_has_room())) continue;
        hold.critical = false;
        if (auto topic = hold.topic.lock()) {
            locked.effects.relieved.emplace_back(std::move(topic), is_over);
        }
    }
    if (is_over) holds.clear();
}

void Channel::close_down() noexcept {
    Locked locked(*this);
    purge(locked);
    removed_.store(true, std::memory_order_release);
    end_all(locked, Wake::kRemoved);
    relieve(locked);
}

}  // namespace ipcfs::channel
