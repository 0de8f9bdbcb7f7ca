// The parts of the daemon. Internal to src/daemon: daemon.cpp has the life cycle, report.cpp the
// status texts. Built and destroyed on the main thread; the doors' own threads run in between.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include <control/server.hpp>
#include <payload/memory.hpp>
#include <store/store.hpp>

#include <access/account.hpp>
#include <channel/registry.hpp>
#include <daemon/daemon.hpp>
#include <fuse/door.hpp>
#include <fuse/doorbell.hpp>
#include <fuse/session.hpp>
#include <tree/exchange.hpp>
#include <tree/tree.hpp>

namespace ipcfs::daemon {

struct Daemon::State {
    State(const Config& wanted, Logger& logger, Loop& event_loop, const Succession& given,
          OnEnd ended);
    ~State();

    Result<void> start();
    Result<void> restore(const Config& wanted);
    void open_store(const Config& wanted);
    void stop() noexcept;
    tree::System system();
    std::string version() const;
    std::string degraded() const;
    void resources(insight::Table& table) const;
    Result<void> set_config(std::string_view text);
    void apply(const Config& wanted);
    void watch();
    void end_lost_interrupts();
    void sweep();
    std::vector<std::string> report() const;

    void forget_names();
    void claim_ids();

    const Succession succession;
    const OnEnd on_end;
    Logger& log;
    Loop& loop;
    const uid_t own_uid;
    Guarded<Config> config;
    const std::string mount;
    SystemClock clock;
    TimerQueue timers;
    queue::MessagePool pool;
    access::Ledger ledger;
    payload::Budget budget;
    std::unique_ptr<store::Store> kept;  // keeps durable channels
    payload::Store payloads;
    Executor worker;
    channel::Environment environment;
    channel::Registry registry;
    TimerPump pump;
    std::unique_ptr<tree::Tree> tree;
    std::unique_ptr<tree::Exchange> exchange;
    std::unique_ptr<control::Server> control;
    std::unique_ptr<fuse::Session> session;
    std::unique_ptr<fuse::Door> door;
    std::unique_ptr<fuse::Doorbell> bell;
    std::unordered_set<std::uint64_t>
        done_requests;  // requests completed by the predecessor; see restore()
    std::atomic<const char*> holding{nullptr};
    std::atomic<bool> stopped{false};
    std::uint64_t watched_rotations = 0;
    bool was_overloaded = false;
};

}  // namespace ipcfs::daemon
