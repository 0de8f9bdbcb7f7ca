// Settings, commands and snapshots of a channel. Any thread.
#include <algorithm>

#include <channel/discipline.hpp>
#include <channel/duties.hpp>
#include <channel/registry.hpp>
#include <channel/topic.hpp>

namespace ipcfs::channel {

Result<void> Channel::control(std::string_view text) {
    Result<void> done;
    // What the store keeps of a channel goes before what it keeps of its messages.
    const auto wanted = parse_control(text, settings());
    Registry* const registry = core_.env.registry.load(std::memory_order_acquire);
    const bool is_recorded =
        registry && wanted &&
        (wanted->settings.durable != Durable::kOff || settings().durable != Durable::kOff);
    if (is_recorded && wanted->settings.durable != Durable::kOff) {
        done = registry->keep_record(core_.id, &wanted->settings);
    }
    if (done) done = change(text);
    if (is_recorded) (void)registry->keep_record(core_.id, nullptr);
    if (!done) note_error(done.error().operation);
    return done;
}

Result<void> Channel::change(std::string_view text) {
    Topic::refresh_reach(core_);
    Locked locked(core_);
    if (core_.removed()) return Fault{EPIPE, "the channel is gone"};
    auto control = parse_control(text, core_.settings);
    if (!control) return control.error();
    if (control->settings.type != core_.settings.type) {
        if (core_.subscription) return Fault{EINVAL, "type: a subscription is a queue"};
        if (core_.backlog.load() > 0 || !core_.backlog.dead.empty() ||
            core_.open_readers + core_.open_writers > 0 || !core_.discipline->is_idle()) {
            return Fault{EBUSY,
                         "type: only while the channel is empty, none of its message files is "
                         "open and nobody subscribes"};
        }
    }
    if (auto kept = committing::change_keeping(locked, control->settings); !kept) return kept;
    if (!(control->settings == core_.settings)) apply(locked, control->settings);
    for (const Command& command : control->commands) run(locked, command);
    return {};
}

void Channel::note_error(std::string text) noexcept {
    std::scoped_lock hold(core_.mutex);
    core_.last_error.swap(text);
}

void Channel::apply(Locked& locked, const Settings& settings) noexcept {
    core_.settings = settings;
    core_.follow_settings();
    core_.discipline->settings_changed(locked);
    if (core_.backlog.set_gate(settings.batch_gate())) {
        reading::offer(locked);
        locked.ring();
    } else if (writing::open_gate_if_due(locked)) {
        locked.ring();
    }
    writing::pause_if_high(locked);
    writing::admit_waiters(locked);
    locked.arm_next();
}

void Channel::run(Locked& locked, const Command& command) noexcept {
    Flow& flow = core_.flow;
    switch (command.kind) {
        case Command::Kind::kPurge: reading::purge(locked); break;
        case Command::Kind::kRedrive: leasing::redrive(locked); break;
        case Command::Kind::kPause:
            flow.hold(locked.now(), command.duration > 0 ? locked.now() + command.duration : 0);
            locked.arm(flow.held_until());
            locked.emit(State::kPaused);
            break;
        case Command::Kind::kResume:
            if (flow.held_by_command()) {
                flow.end_hold(locked.now());
                locked.emit(State::kOk);
                reading::offer(locked);
                // A reader that waits for inotify could not read during the pause.
                if (!core_.backlog.empty()) locked.ring();
            }
            if (std::exchange(core_.is_degraded, false)) locked.emit(State::kOk);
            writing::admit_waiters(locked);
            break;
        case Command::Kind::kRevoke: break;
    }
}

void Channel::announce(EventKind kind, std::uint64_t detail) noexcept {
    Locked locked(core_);
    locked.emit(kind, detail);
}

Settings Channel::settings() const {
    std::scoped_lock hold(core_.mutex);
    return core_.settings;
}

bool Channel::full() const noexcept {
    std::scoped_lock hold(core_.mutex);
    return !core_.writable(false);
}

std::pair<Nanos, Nanos> Channel::times() const noexcept {
    std::scoped_lock hold(core_.mutex);
    return {core_.last_arrival ? core_.last_arrival : core_.created,
            core_.last_delivery ? core_.last_delivery : core_.created};
}

Snapshot Channel::snapshot() const {
    Snapshot s;
    Nanos now = core_.env.clock.monotonic();
    std::scoped_lock hold(core_.mutex);
    s.settings = core_.settings;
    if (core_.removed()) {
        s.state = State::kClosed;
        s.why = "removed";
    } else if (core_.flow.held_by_command()) {
        s.state = State::kPaused;
        s.why = "by command; `resume` in ctl ends it";
    } else if (core_.is_degraded) {
        s.state = State::kDegraded;
        s.why = "a write could not be made durable; `resume` in ctl lets writers try again";
    } else if (core_.flow.paused()) {
        s.state = State::kPaused;
        s.why = "the high watermark was reached; senders wait until the low one";
    }
    s.depth = core_.backlog.size();
    s.bytes = core_.backlog.bytes();
    s.ready = core_.backlog.ready();
    s.leased = core_.backlog.leases.leased().count;
    s.leased_bytes = core_.backlog.leases.leased().bytes;
    s.delayed = core_.backlog.leases.delayed().count;
    s.delayed_bytes = core_.backlog.leases.delayed().bytes;
    s.dead = core_.backlog.dead.size();
    s.dead_bytes = core_.backlog.dead.bytes();
    s.role = role();
    core_.discipline->describe(s);
    s.readers = core_.open_readers;
    s.writers = core_.open_writers;
    s.waiting_readers = core_.waiters.readers.size() + core_.waiters.dead_readers.size();
    s.waiting_writers =
        core_.waiters.writers.size() + core_.waiters.enqueued.size() + core_.waiters.openers.size();
    Nanos oldest = core_.backlog.oldest();
    s.oldest_age = oldest == kNever ? 0 : std::max<Nanos>(0, now - oldest);
    s.last_error = core_.last_error;
    s.counters = core_.counters;
    if (core_.latency) s.latency = *core_.latency;
    s.last_arrival = core_.last_arrival;
    s.last_delivery = core_.last_delivery;
    s.created = core_.created;
    return s;
}

std::vector<Listed> Channel::list(Lane lane) const {
    std::vector<Listed> all;
    std::unique_lock hold(core_.mutex);
    const std::uint64_t there =
        lane == Lane::kDead ? core_.backlog.dead.size() : core_.backlog.size();
    hold.unlock();
    all.reserve(there + 16);  // outside the lock; a little more than there is
    hold.lock();
    auto add = [&](Message& message) {
        all.push_back({message.envelope, message.content_size()});
        return true;
    };
    auto& from = const_cast<Backlog&>(core_.backlog);
    if (lane == Lane::kDead) {
        from.dead.for_each(add);
    } else {
        from.for_each(add);
    }
    return all;
}

}  // namespace ipcfs::channel
