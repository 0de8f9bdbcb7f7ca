// What all channels stand on, given whole at construction. Outlives them. Any thread.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include <store/store.hpp>

#include <access/account.hpp>
#include <base/clock.hpp>
#include <base/guarded.hpp>
#include <base/timer_queue.hpp>
#include <channel/keeper.hpp>
#include <queue/message.hpp>

namespace ipcfs {
class Executor;
}  // namespace ipcfs

namespace ipcfs::channel {

class Channel;
class Registry;

// Rings the inotify bell of a channel: IN_MODIFY on its `queue`. Called without locks, from any
// thread; must not block.
class Doorbell {
public:
    virtual ~Doorbell() = default;
    // While a writer holds the inode lock of `queue` (type sync), the event goes to `next` instead.
    enum class Target : std::uint8_t { kQueue, kNext };
    virtual void ring(Channel& channel, Target target) noexcept = 0;
    // A delivery that the kernel did not see on `queue`: the times it keeps of that file are old.
    virtual void refresh(Channel& channel) noexcept = 0;
};

// The connection to a door's doorbell. Rings are lost while no door is connected.
class BellWire {
public:
    void connect(Doorbell* bell) noexcept { bell_.store(bell, std::memory_order_release); }
    void ring(Channel& channel, Doorbell::Target target) const noexcept {
        if (Doorbell* bell = bell_.load(std::memory_order_acquire)) bell->ring(channel, target);
    }
    void refresh(Channel& channel) const noexcept {
        if (Doorbell* bell = bell_.load(std::memory_order_acquire)) bell->refresh(channel);
    }

private:
    std::atomic<Doorbell*> bell_{nullptr};
};

// Channels that may have leases, for those whose holder is gone.
class LeaseWatch {
public:
    void add(std::weak_ptr<Channel> channel);
    // Ends the leases of processes that are gone. How many there were. To be called now and then, without
    // locks; costs nothing while there is no lease.
    std::size_t sweep();
    std::size_t watched() const;

private:
    Guarded<std::vector<std::weak_ptr<Channel>>> channels_;
};

// The number of recursive subscriptions, and a version of what they may reach.
struct Recursion {
    std::atomic<std::uint64_t> subscriptions{0};
    // Grows with whatever may change it: names, rights, filters, types.
    std::atomic<std::uint64_t> version{1};
    void changed() noexcept { version.fetch_add(1, std::memory_order_acq_rel); }
};

struct Environment {
    // `worker`: saves large payloads of durable channels. `lingers`: a door's replies are on their way for a
    // moment when it says that they are sent, so what was delivered is erased some time later.
    Environment(const Clock& its_clock, TimerQueue& its_timers, queue::MessagePool& its_messages,
                access::Ledger& its_ledger, store::Store* its_store = nullptr,
                Executor* its_worker = nullptr, bool lingers = false);

    const Clock& clock;
    TimerQueue& timers;
    queue::MessagePool& messages;
    access::Ledger& ledger;
    store::Store* const store;  // null: no channel is durable
    Executor* const worker;
    const std::shared_ptr<Lingering> lingering;
    BellWire bell;
    LeaseWatch leases;
    Recursion recursion;
    std::atomic<Registry*> registry{nullptr};  // that the channels are in; it says so itself
};

}  // namespace ipcfs::channel
