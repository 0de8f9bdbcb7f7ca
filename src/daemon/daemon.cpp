// Builds and connects all parts: clock, timers, accounts, registry, tree, FUSE door, doorbell. Main
// thread; the doors' own threads run in between.
#include <algorithm>
#include <unistd.h>

#include <daemon/instance.hpp>
#include <daemon/state.hpp>
#include <daemon/store_setup.hpp>

namespace ipcfs::daemon {
namespace {

constexpr Nanos kWatchPeriod = kSecond;
constexpr Nanos kSweepPeriod = 100 * kMillisecond;
constexpr Nanos kLostInterruptPeriod = 50 * kMillisecond;

// Translates limits.user.NAME.x to limits.user.UID.x, the form of the running configuration.
std::string by_uid(std::string key) {
    constexpr std::string_view kUser = "limits.user.";
    if (!key.starts_with(kUser)) return key;
    std::size_t end = key.find('.', kUser.size());
    if (end == std::string::npos) return key;
    const std::string name = key.substr(kUser.size(), end - kUser.size());
    if (auto uid = uid_of(name)) key.replace(kUser.size(), name.size(), std::to_string(*uid));
    return key;
}

// The socket lies beside the mount's lock file, with the same name.
std::string control_path(const std::string& mount, uid_t uid) {
    const char* runtime = std::getenv("XDG_RUNTIME_DIR");
    std::string path = lock_path(mount, uid, runtime ? runtime : "");
    return path.substr(0, path.rfind('.')) + ".sock";
}

}  // namespace

Daemon::State::State(const Config& wanted, Logger& logger, Loop& event_loop,
                     const Succession& given, OnEnd ended)
    : succession(given),
      on_end(std::move(ended)),
      log(logger),
      loop(event_loop),
      own_uid(::geteuid()),
      config(std::in_place, wanted),
      mount(wanted.mount),
      ledger([wanted, own = own_uid](uid_t uid) { return limits_for(wanted, uid, own); },
             wanted.limits.total_bytes),
      budget(clock, payload::available_memory),
      kept(make_store(wanted, given.inheritance ? given.inheritance->life() : 1, logger)),
      payloads(ledger, budget),
      worker("ipcfs-memory", {.threads = 4, .patience = kSecond, .timers = &timers}),
      environment(clock, timers, pool, ledger, kept.get(), &worker,
                  wanted.fuse.transport != Transport::kClassic),
      registry(environment, wanted.channel, wanted.mount.size() + 16),
      pump(event_loop, clock) {
    budget.set_reserve(wanted.payload.reserve);
    payloads.set_deallocator([this](Fd memory) {
        worker.add(own_uid, [held = std::make_shared<Fd>(std::move(memory))] {});
    });
    timers.set_kick(pump.kick());
    pump.attach(timers);
}

Daemon::State::~State() {
    stop();
    environment.bell.connect(nullptr);
    control.reset();
    worker.finish();  // its jobs use the session
    bell.reset();
    door.reset();
    session.reset();
}

fuse::SessionConfig session_config(const Config& config) {
    fuse::SessionConfig session;
    session.mountpoint = config.mount;
    session.transport = config.fuse.transport == Transport::kClassic ? fuse::Transport::kClassic
                                                                     : fuse::Transport::kUring;
    session.ring_depth = config.fuse.queue_depth;
    session.reader_threads = config.fuse.threads;
    session.allow_other = config.fuse.allow_other == AllowOther::kYes ||
                          (config.fuse.allow_other == AllowOther::kAuto &&
                           (::geteuid() == 0 || fuse_conf_allows_other()));
    session.passthrough = config.fuse.passthrough == Passthrough::kAuto;
    session.extra_init_flags = fuse::Door::init_flags();
    session.debug = config.fuse.debug;
    return session;
}

Result<void> Daemon::State::start() {
    Config wanted = config.with([](const Config& c) { return c; });
    tree = std::make_unique<tree::Tree>(registry, ledger, payloads, worker, log, system());
    exchange = std::make_unique<tree::Exchange>(*tree, payloads, worker);
    // Make clients' kernels forget the names of files that are no longer shown.
    tree->on_type_changed([this](const std::shared_ptr<channel::Endpoint>& channel,
                                 const std::vector<std::string>& hidden, bool at_once) {
        if (bell) bell->hide(channel, hidden, at_once);
    });
    // On the worker: drop what clients' kernels have cached of a revoked region, and its mappings.
    tree->shares().on_revoked([this](std::uint64_t id) {
        const tree::NodeId node{id, tree::Kind::kRegion};
        if (session) (void)session->notify_inval_inode(node.raw(), 0, 0);
    });
    fuse::DoorConfig door_config;
    door_config.entry_timeout = wanted.fuse.entry_timeout;
    door_config.attr_timeout = wanted.fuse.attr_timeout;
    door_config.inheritance = succession.inheritance;
    door_config.already_done = [this](std::uint64_t request) {
        return done_requests.contains(request);
    };
    door = std::make_unique<fuse::Door>(*tree, log, std::move(door_config));

    fuse::SessionConfig session_config = daemon::session_config(wanted);
    session_config.mount = succession.mount;
    session_config.inheritance = succession.inheritance;
    session_config.on_take_over = [this](fuse::Session& taken, auto left) {
        door->take_over(taken, left);
    };
    session_config.on_end = [this](const std::string& why) { on_end(!ipcfs_mounted(mount), why); };

    auto opened =
        fuse::Session::open(std::move(session_config), fuse::Door::operations(), door.get());
    if (!opened) return opened.error();
    session = std::move(*opened);
    // Before the first request, so that no message arrives without a doorbell.
    bell = std::make_unique<fuse::Doorbell>(mount, registry, *session);
    if (auto rings = bell->start(); !rings) return rings;
    environment.bell.connect(bell.get());
    // The bell is a process of its own, forked before there are threads; the store has some.
    if (auto restored = restore(wanted); !restored) return restored;
    claim_ids();
    // Listen before kern/ipc/control, which names the socket, becomes visible.
    control = std::make_unique<control::Server>(
        control::ServerConfig{.path = control_path(mount, own_uid), .mount = mount}, loop.context(),
        *exchange, ledger, log);
    if (auto listening = control->start(); !listening) return listening;
    if (auto started = session->start(); !started) return started;
    if (succession.inheritance && succession.inheritance->life() > 1) {
        door->wake_pollers(*session);
        worker.add(own_uid, [this] { forget_names(); });
    }
    if (wanted.fuse.transport == Transport::kUring &&
        session->report().transport != fuse::Transport::kUring) {
        log.warn("uring is configured but not used: ", session->report().why_not_uring);
    }
    loop.after(kWatchPeriod, [this] { watch(); });
    if (session->report().transport == fuse::Transport::kUring) end_lost_interrupts();
    sweep();
    return {};
}

// Restores durable channels before any request is served.
Result<void> Daemon::State::restore(const Config& wanted) {
    if (!kept) return {};
    payloads.on_saved_gone([this](std::uint64_t id) { kept->drop_payload(id); });
    auto requests = recover(*kept, registry, payloads, log);
    if (!requests) return requests.error();
    done_requests = std::move(*requests);
    open_store(wanted);
    return {};
}

// If new channels are durable by default, the store's files are made in advance, so that mkdir(2) does not wait for them.
// If that fails, mkdir tries again and reports the error.
void Daemon::State::open_store(const Config& wanted) {
    if (!kept || wanted.channel.durable == channel::Durable::kOff) return;
    worker.add(own_uid, [this] {
        if (auto opened = kept->open(); !opened) log.error("store: ", opened.error().message());
    });
}

// Ids of a killed predecessor must never be reused.
void Daemon::State::claim_ids() {
    if (!succession.inheritance) return;
    // Restored channels may have ids from an earlier mount.
    const std::uint64_t first =
        succession.inheritance->claim_ids(std::max(registry.next_id(), payloads.next_id()));
    registry.start_ids(first);
    payloads.start_ids(first);
    tree->shares().start_ids(first);
}

// On the worker: invalidates cached attributes and listings of directories, which date from the
// predecessor. (FUSE_NOTIFY_INC_EPOCH has invalidated names.)
void Daemon::State::forget_names() {
    auto forget = [this](const tree::NodeId& node) {
        (void)session->notify_inval_inode(node.raw(), 0, 0);
    };
    forget({channel::Registry::kRootId, tree::Kind::kRoot});
    registry.for_each([&](const std::shared_ptr<channel::Channel>& each, const std::string&) {
        forget({each->id(), tree::Kind::kChannel});
    });
}

void Daemon::State::stop() noexcept {
    if (stopped.exchange(true)) return;
    holding = "ending the waiting operations";
    registry.shut_down();
    if (control) {
        holding = "closing the control socket";
        control->stop();
    }
    if (session) {
        holding = "unmounting and joining the FUSE threads";
        session->stop();
    }
    if (bell) {
        holding = "joining the doorbell's threads";
        environment.bell.connect(nullptr);
        bell->stop();
    }
    if (kept) {
        holding = "writing the last of the durable channels";
        if (environment.lingering) environment.lingering->finish();
        payloads.on_saved_gone(nullptr);  // queued messages keep their stored payloads
        kept->close();
    }
    holding = nullptr;
}

tree::System Daemon::State::system() {
    tree::System system;
    system.version = [this] { return version(); };
    system.config = [this] { return config.with([](const Config& c) { return to_toml(c); }); };
    system.set_config = [this](std::string_view text) { return set_config(text); };
    system.resources = [this](insight::Table& table) { resources(table); };
    system.degraded = [this] { return degraded(); };
    system.control = control_path(mount, own_uid);
    system.uid = own_uid;
    system.gid = ::getegid();
    return system;
}

// Applies lines of the form `log.level debug` to the running daemon; reloadable keys only.
Result<void> Daemon::State::set_config(std::string_view text) {
    Config running = config.with([](const Config& c) { return c; });
    ConfigSource source{process_environment(), "kern/ipc/config", to_toml(running), {}};
    while (!text.empty()) {
        std::string_view line = text.substr(0, text.find('\n'));
        text.remove_prefix(std::min(text.size(), line.size() + 1));
        auto word = line.find_first_not_of(" \t");
        if (word == std::string_view::npos || line[word] == '#') continue;
        line.remove_prefix(word);
        auto gap = line.find_first_of(" \t=");
        auto value = line.find_first_not_of(" \t=", gap);
        if (gap == std::string_view::npos || value == std::string_view::npos) {
            return Fault{EINVAL, "expected a key and a value: " + std::string(line.substr(0, 64))};
        }
        source.settings.push_back({by_uid(std::string(line.substr(0, gap))),
                                   std::string(line.substr(value)), "kern/ipc/config"});
    }
    Parsed parsed = read_config(source);
    if (!parsed.errors.empty()) return Fault{EINVAL, parsed.errors.front()};
    Reload plan = plan_reload(running, parsed.config);
    if (!plan.restart.empty()) return Fault{EINVAL, plan.restart.front() + " takes a restart"};
    for (const std::string& key : plan.changed) {
        if (key.starts_with("log.") && key != "log.level") {
            return Fault{EINVAL, key + ": edit the configuration file and send SIGHUP"};
        }
    }
    log.set_level(plan.config.log.level);
    apply(plan.config);
    return {};
}

void Daemon::State::apply(const Config& wanted) {
    ledger.reload([wanted, own = own_uid](uid_t uid) { return limits_for(wanted, uid, own); },
                  wanted.limits.total_bytes);
    registry.set_defaults(wanted.channel);
    open_store(wanted);
    budget.set_reserve(wanted.payload.reserve);
    config.with([&](Config& running) { running = wanted; });
}

// On the loop, every second: logs when the io_uring queues overflow, and when that ends.
void Daemon::State::watch() {
    if (stopped) return;
    fuse::Overload overload = session->overload();
    bool overloaded = overload.since != 0;
    if (overloaded != was_overloaded) {
        if (overloaded) {
            log.warn(degraded());
        } else {
            log.info("the io_uring queues have room again; ",
                     overload.rotations - watched_rotations, " waiting reads got EINTR");
            watched_rotations = overload.rotations;
        }
        was_overloaded = overloaded;
    }
    loop.after(kWatchPeriod, [this] { watch(); });
}

// On the loop: forgets memory that no client maps any more.
void Daemon::State::sweep() {
    if (stopped) return;
    payloads.sweep();
    environment.leases.sweep();
    loop.after(kSweepPeriod, [this] { sweep(); });
}

// On the loop: see Session::end_lost_interrupts.
void Daemon::State::end_lost_interrupts() {
    if (stopped) return;
    if (std::size_t ended = session->end_lost_interrupts()) {
        log.debug(ended, " operations ended because the kernel lost their interrupts");
    }
    loop.after(kLostInterruptPeriod, [this] { end_lost_interrupts(); });
}

Daemon::Daemon() = default;
Daemon::~Daemon() = default;

Result<std::unique_ptr<Daemon>> Daemon::create(const Config& config, Logger& log, Loop& loop,
                                               const Succession& succession, OnEnd on_end) {
    std::unique_ptr<Daemon> daemon(new Daemon);
    daemon->state_ = std::make_unique<State>(config, log, loop, succession, std::move(on_end));
    if (auto started = daemon->state_->start(); !started) return started.error();
    return daemon;
}

std::vector<std::string> Daemon::report() const {
    return state_->report();
}

void Daemon::reload(const Config& config) {
    state_->apply(config);
}

void Daemon::stop() {
    state_->stop();
}

std::vector<std::string> Daemon::holding() const {
    const char* what = state_->holding;
    if (!what) return {};
    std::vector<std::string> lines{what};
    if (state_->session && state_->session->parked() > 0) {
        lines.push_back(std::to_string(state_->session->parked()) +
                        " operations are still waiting");
    }
    return lines;
}

}  // namespace ipcfs::daemon
