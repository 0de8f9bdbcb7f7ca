// What a channel is made of. Private to src/channel: a function that changes it takes a Locked, which is the proof
// that the channel's lock is held. The functions are in files by duty: writing, reading, leasing, committing,
// rendezvous; what the type decides is in discipline/.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <channel/backlog.hpp>
#include <channel/endpoint.hpp>
#include <channel/environment.hpp>
#include <channel/events.hpp>
#include <channel/flow.hpp>
#include <channel/keeper.hpp>
#include <channel/settings.hpp>
#include <channel/waiters.hpp>
#include <insight/histogram.hpp>

namespace ipcfs::channel {

class Channel;
class Discipline;
class Subscription;
class Topic;
struct Commit;

using queue::Batch;
using queue::Envelope;
using queue::Message;
using queue::MessageList;
using queue::MessageRef;
using queue::ReadWaiter;
using queue::Via;
using queue::Wake;
using queue::WriteWaiter;

struct Core {
    Core(Channel& its_channel, Environment& environment, std::uint64_t its_id,
         const Settings& first, std::unique_ptr<Subscription> its_subscription);
    ~Core();

    Channel& channel;
    Environment& env;
    const std::uint64_t id;
    const Nanos created;                               // since the epoch
    const std::unique_ptr<Subscription> subscription;  // role subscription; else null
    EventHub hub;
    std::atomic<bool> is_removed{false};
    std::atomic<bool> is_topic{false};  // whether `topic` is there

    mutable std::mutex mutex;
    // Under the mutex:
    std::uint32_t open_readers = 0, open_writers = 0;
    Settings settings;
    Backlog backlog;
    Waiters waiters;
    Flow flow{settings, backlog};
    std::unique_ptr<Discipline> discipline;  // never null
    Topic* topic = nullptr;                  // it, of types topic and multicast
    std::unique_ptr<Keeper> keeper;          // never null
    bool is_kept = false;                    // by it; known without looking there
    bool is_degraded = false;                // a write could not be made durable
    bool is_enrolled = false;                // in Environment::leases
    bool has_made_room = false;              // the batch gate's opening did, see admit_waiters()
    bool is_ring_deferred = false;           // until the last of these writes ends:
    std::uint32_t queue_file_writes = 0;     // parked; they hold the inode lock of `queue`
    std::uint64_t sequence = 0;
    Nanos last_arrival = 0, last_delivery = 0;
    Nanos epoch = 0;               // real time less monotonic time, at the last arrival
    std::vector<Nanos> armed;      // entries in the timers, falling: the last is the next
    std::vector<Commit*> commits;  // writes on their way to the disk
    Counters counters;
    std::unique_ptr<insight::Histogram> latency;
    std::string last_error;

    // The rest: with the lock held.
    bool removed() const noexcept { return is_removed.load(std::memory_order_relaxed); }
    bool readable() const noexcept { return !flow.held() && backlog.ready() > 0; }
    bool writable(bool critical) const noexcept;
    // After the settings have changed, or were given.
    void follow_settings() noexcept;
};

}  // namespace ipcfs::channel
