// Settings, commands, time and snapshots of a channel. Any thread.
#include <algorithm>
#include <poll.h>

#include <channel/channel.hpp>
#include <channel/locked.hpp>
#include <channel/registry.hpp>
#include <channel/topic.hpp>

namespace ipcfs::channel {

using queue::Message;
using queue::MessageRef;
using queue::Wake;
using queue::WriteWaiter;

Result<void> Channel::control(std::string_view text) {
    Result<void> done;
    // What the store keeps of a channel goes before what it keeps of its messages.
    const auto wanted = parse_control(text, settings());
    Registry* const registry = env_.registry.load(std::memory_order_acquire);
    const bool is_recorded =
        registry && wanted &&
        (wanted->settings.durable != Durable::kOff || settings().durable != Durable::kOff);
    if (is_recorded && wanted->settings.durable != Durable::kOff) {
        done = registry->keep_record(id_, &wanted->settings);
    }
    refresh_reach();
    if (done) {
        Locked locked(*this);
        auto control = parse_control(text, settings_);
        if (removed_.load(std::memory_order_relaxed)) {
            done = Fault{EPIPE, "the channel is gone"};
        } else if (!control) {
            done = control.error();
        } else if (control->settings.type != settings_.type && subscription_) {
            done = Fault{EINVAL, "type: a subscription is a queue"};
        } else if (control->settings.type != settings_.type &&
                   (backlog_.load() > 0 || !backlog_.dead.empty() ||
                    open_readers_ + open_writers_ > 0 || !discipline_->is_idle())) {
            done = Fault{EBUSY,
                         "type: only while the channel is empty, none of its message files is "
                         "open and nobody subscribes"};
        } else if (done = change_keeping(control->settings); done) {
            if (!(control->settings == settings_)) apply(locked, control->settings);
            for (const Command& command : control->commands) run(locked, command);
        }
    }
    if (is_recorded) (void)registry->keep_record(id_, nullptr);
    if (!done) note_error(done.error().operation);
    return done;
}

void Channel::note_error(std::string text) noexcept {
    std::scoped_lock hold(mutex_);
    last_error_.swap(text);
}

void Channel::apply(Locked& locked, const Settings& settings) noexcept {
    settings_ = settings;
    follow_settings();
    discipline_->settings_changed(locked);
    if (backlog_.set_gate(settings_.batch_gate())) {
        offer(locked);
        ring(locked);
    } else if (gather(locked)) {
        ring(locked);
    }
    pause_if_high(locked);
    admit_waiters(locked);
    arm_all(locked);
}

// After the settings have changed, or were given.
void Channel::follow_settings() noexcept {
    if (!discipline_ || discipline_type_ != settings_.type) {
        discipline_ = make_discipline(settings_.type, *this);
        discipline_type_ = settings_.type;
        topic_ = dynamic_cast<Topic*>(discipline_.get());
        const bool was_topic = is_topic_.exchange(topic_ != nullptr, std::memory_order_relaxed);
        if (was_topic || topic_) env_.recursion.changed();
    }
    const Durable durable = env_.store ? settings_.durable : Durable::kOff;
    if (!keeper_ || keeper_->durable() != durable) keeper_ = make_keeper(durable);
    is_kept_ = durable != Durable::kOff;
    if (subscription_) {
        subscription_->blocks_.store(settings_.overflow == Overflow::kBlock,
                                     std::memory_order_relaxed);
    }
}

void Channel::run(Locked& locked, const Command& command) noexcept {
    switch (command.kind) {
        case Command::Kind::kPurge: purge(locked); break;
        case Command::Kind::kRedrive: redrive(locked); break;
        case Command::Kind::kPause:
            flow_.hold(locked.now(), command.duration > 0 ? locked.now() + command.duration : 0);
            if (command.duration > 0) arm(locked, flow_.held_until());
            emit(locked, EventKind::kState, 255, 0, static_cast<std::uint64_t>(State::kPaused));
            break;
        case Command::Kind::kResume:
            if (flow_.held_by_command()) {
                flow_.release(locked.now());
                emit(locked, EventKind::kState, 255, 0, static_cast<std::uint64_t>(State::kOk));
                offer(locked);
                // Who waits for inotify could not have drained it during the pause.
                if (!backlog_.empty()) ring(locked);
            }
            if (is_degraded_) {
                is_degraded_ = false;
                emit(locked, EventKind::kState, 255, 0, static_cast<std::uint64_t>(State::kOk));
            }
            admit_waiters(locked);
            break;
        case Command::Kind::kRevoke: break;
    }
}

// Everything, the dead letters too; the leases are over.
void Channel::purge(Locked& locked) noexcept {
    std::uint64_t lost = 0;
    auto forget = [&](MessageRef message) {
        ++lost;
        drop(locked, std::move(message), Wake::kPurged);
    };
    backlog_.for_each([&](Message& message) {
        forget(backlog_.remove(message));
        return true;
    });
    backlog_.dead.for_each([&](Message& message) {
        forget(backlog_.dead.remove(message));
        return true;
    });
    for (MessageRef& message : backlog_.delayed.clear()) forget(std::move(message));
    for (MessageRef& message : backlog_.leases.clear()) forget(std::move(message));
    lost += discipline_->purge(locked);
    counters_.purged += lost;
    backlog_.nothing_expires();
    if (lost) emit(locked, EventKind::kDrained, 255, 0, lost);
    admit_waiters(locked);
}

Result<void> Channel::remove() {
    Locked locked(*this);
    if (backlog_.load() > 0 || !backlog_.dead.empty()) {
        return Fault{ENOTEMPTY, "messages are queued, leased or dead letters; purge first"};
    }
    if (auto may = discipline_->may_be_removed(); !may) return may;
    discipline_->end(locked);
    removed_.store(true, std::memory_order_release);
    end_all(locked, Wake::kRemoved);
    emit(locked, EventKind::kRemoved, 255, 0, 0);
    return {};
}

void Channel::shut_down() noexcept {
    Locked locked(*this);
    flow_.go_down();
    end_all(locked, Wake::kShutdown);
    discipline_->shut_down(locked);
}

void Channel::emit(Locked& locked, EventKind kind, std::uint8_t priority, std::uint8_t type,
                   std::uint64_t detail) noexcept {
    if (!locked.listening) return;
    locked.effects.events.push_back(Event{.time = locked.realtime(),
                                          .kind = kind,
                                          .priority = priority,
                                          .type = type,
                                          .depth = backlog_.size(),
                                          .detail = detail});
}

void Channel::announce(EventKind kind, std::uint64_t detail) noexcept {
    Locked locked(*this);
    emit(locked, kind, 255, 0, detail);
}

void Channel::arm(Locked& locked, Nanos deadline) noexcept {
    // One entry that comes no later will do: on_time() arms what is left.
    if (!armed_.empty() && armed_.back() <= deadline) return;
    if (locked.effects.arm == kNever) {
        armed_.push_back(deadline);
    } else {
        armed_.back() = deadline;
    }
    locked.effects.arm = deadline;
}

void Channel::arm_all(Locked& locked) noexcept {
    Nanos next = std::min({backlog_.next_event(), waiters_.next_deadline(), flow_.held_until()});
    if (waiters_.has_openers() && !flow_.paused() && !flow_.held()) {
        next = std::min(next, flow_.credit_end());
    }
    if (next != kNever) arm(locked, next);
}

void Channel::on_time(Nanos now) noexcept {
    refresh_reach();
    Locked locked(*this);
    while (!armed_.empty() && armed_.back() <= now) armed_.pop_back();
    if (removed_.load(std::memory_order_relaxed)) return;
    if (flow_.held_until() <= now) {
        run(locked, Command{Command::Kind::kResume, 0, {}});
    }
    waiters_.for_each_writer([&](WriteWaiter& writer) {
        if (writer.deadline > now) return;
        ++counters_.timed_out;
        unpark(locked, writer, Wake::kTimedOut);
    });
    waiters_.for_each_enqueued([&](WriteWaiter& writer) {
        if (writer.deadline > now || writer.cancelled) return;
        ++counters_.timed_out;
        withdraw(locked, writer, Wake::kTimedOut);
    });
    run_leases(locked);
    if (gather(locked) && !backlog_.empty()) ring(locked);  // the arrivals were not readable yet
    if (made_room_) admit_waiters(locked);
    sweep_expired(locked);
    admit_openers(locked);
    arm_all(locked);
}

Settings Channel::settings() const {
    std::scoped_lock hold(mutex_);
    return settings_;
}

std::uint64_t Channel::depth() const noexcept {
    std::scoped_lock hold(mutex_);
    return backlog_.size();
}

bool Channel::full() const noexcept {
    std::scoped_lock hold(mutex_);
    return !writable(false);
}

std::pair<Nanos, Nanos> Channel::times() const noexcept {
    std::scoped_lock hold(mutex_);
    return {last_arrival_ ? last_arrival_ : created_, last_delivery_ ? last_delivery_ : created_};
}

Snapshot Channel::snapshot() const {
    Snapshot s;
    Nanos now = env_.clock.monotonic();
    std::scoped_lock hold(mutex_);
    s.settings = settings_;
    if (removed_.load(std::memory_order_relaxed)) {
        s.state = State::kClosed;
        s.why = "removed";
    } else if (flow_.held_by_command()) {
        s.state = State::kPaused;
        s.why = "by command; `resume` in ctl ends it";
    } else if (is_degraded_) {
        s.state = State::kDegraded;
        s.why = "a write could not be made durable; `resume` in ctl lets writers try again";
    } else if (flow_.paused()) {
        s.state = State::kPaused;
        s.why = "the high watermark was reached; senders wait until the low one";
    }
    s.depth = backlog_.size();
    s.bytes = backlog_.bytes();
    s.ready = backlog_.ready();
    s.leased = backlog_.leases.size();
    s.leased_bytes = backlog_.leases.bytes();
    s.delayed = backlog_.delayed.size();
    s.delayed_bytes = backlog_.delayed.bytes();
    s.dead = backlog_.dead.size();
    s.dead_bytes = backlog_.dead.bytes();
    s.role = role();
    discipline_->describe(s);
    s.readers = open_readers_;
    s.writers = open_writers_;
    s.waiting_readers = waiters_.readers() + waiters_.dead_readers();
    s.waiting_writers = waiters_.writers();
    Nanos oldest = backlog_.oldest();
    s.oldest_age = oldest == kNever ? 0 : std::max<Nanos>(0, now - oldest);
    s.last_error = last_error_;
    s.counters = counters_;
    if (latency_) s.latency = *latency_;
    s.last_arrival = last_arrival_;
    s.last_delivery = last_delivery_;
    s.created = created_;
    return s;
}

std::vector<Listed> Channel::list(Lane lane) const {
    std::vector<Listed> all;
    std::unique_lock hold(mutex_);
    const std::uint64_t there = lane == Lane::kDead ? backlog_.dead.size() : backlog_.size();
    hold.unlock();
    all.reserve(there + 16);  // outside the lock; a little more than there is
    hold.lock();
    auto add = [&](Message& message) {
        all.push_back({message.envelope, message.content_size()});
        return true;
    };
    auto& from = const_cast<Backlog&>(backlog_);
    if (lane == Lane::kDead) {
        from.dead.for_each(add);
    } else {
        from.for_each(add);
    }
    return all;
}

}  // namespace ipcfs::channel
