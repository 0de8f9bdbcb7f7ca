// The channel's lock, with what has to happen after it. Private to src/channel.
#pragma once

#include <boost/container/small_vector.hpp>

#include <channel/channel.hpp>

namespace ipcfs::channel {

constexpr unsigned kHangUp = ~0U;  // wakes every poll, whatever it asked for

// How a waiting write ends, by the result of its push.
inline queue::Wake ending_of(Push push) noexcept {
    switch (push) {
        case Push::kQueued: return queue::Wake::kServed;
        case Push::kNoSpace: return queue::Wake::kNoSpace;
        case Push::kDiskFailed: return queue::Wake::kDiskFailed;
        default: return queue::Wake::kPurged;
    }
}

struct Wakes {
    queue::WaiterList finish;
    PollTickets notify;
    queue::MessageList garbage;  // to be freed
    void wake() noexcept;
};

// Collected under the lock, done after it in this order: whoever waits gets its answer first.
struct DeferredEffects;
struct Effects : Wakes {
    boost::container::small_vector<Event, 4> events;
    Nanos arm = kNever;
    bool ring = false;
    bool enrol = false;  // for LeaseWatch
    Doorbell::Target ring_target = Doorbell::Target::kQueue;
    // Of a topic: what is to be done for its subscriptions.
    std::unique_ptr<DeferredEffects> after;
    // Of a subscription: topics whose publishers may look again, and whether there is room for all.
    std::vector<std::pair<std::shared_ptr<Channel>, bool>> unblocked;

    bool only_wakes() const noexcept {
        return events.empty() && arm == kNever && !ring && !enrol && unblocked.empty();
    }
    bool empty() const noexcept {
        return finish.empty() && notify.empty() && only_wakes() && garbage.empty() && !after;
    }
    void run(Channel& channel) noexcept;
};

// What was collected under the locks of subscriptions while their topic's was held: done when that is
// released, since it calls out.
struct DeferredEffects : Wakes {
    std::vector<std::pair<std::shared_ptr<Channel>, Effects>> rest;
    std::vector<std::shared_ptr<Channel>> kept;   // so that none of them dies under the lock
    std::vector<std::shared_ptr<Channel>> ended;  // subscriptions that are over
    std::vector<std::shared_ptr<Channel>> down;   // subscriptions to shut down
    void absorb(Channel& channel, Effects& effects);
    void run() noexcept;
};

class Locked {
public:
    explicit Locked(Core& core)
        : listening(core.hub.has_listeners()), core_(core), hold_(core.mutex) {}
    Locked(const Locked&) = delete;
    Locked& operator=(const Locked&) = delete;
    // Of a subscription, while the topic's is held, which does the rest and knows the time.
    Locked(Core& core, Locked& topic) : Locked(core) {
        topic_ = &topic;
        now_ = topic.now();
        realtime_ = topic.realtime();
    }
    ~Locked() {
        hold_.unlock();
        if (topic_) {
            topic_->after().absorb(core_.channel, effects);
        } else if (!effects.empty()) {
            effects.run(core_.channel);
        }
    }
    Core* operator->() const noexcept { return &core_; }
    Core& operator*() const noexcept { return core_; }

    Nanos now() noexcept {
        if (now_ == 0) now_ = core_.env.clock.monotonic();
        return now_;
    }
    Nanos realtime() noexcept {
        if (realtime_ == 0) realtime_ = core_.env.clock.realtime_at(now());
        return realtime_;
    }
    void finish(queue::Waiter& waiter, queue::Wake why) noexcept {
        waiter.why = why;
        waiter.parked = false;
        effects.finish.push_back(waiter);
    }
    // Finishes a waiter that finds the channel removed or the daemon ending, or was cancelled. Whether it did.
    bool refuse(queue::Waiter& waiter) noexcept;
    // The message is nowhere any more, nor in the store.
    void discard(queue::MessageRef message) noexcept {
        core_.keeper->gone(*message);
        effects.garbage.push_back(*message.detach());
    }
    // `priority` and `type`: of the message it is about.
    void emit(EventKind kind, std::uint64_t detail, std::uint8_t priority = 255,
              std::uint8_t type = 0) noexcept {
        if (listening) note_event(kind, detail, priority, type);
    }
    void emit(State state) noexcept { emit(EventKind::kState, static_cast<std::uint64_t>(state)); }
    // Channel::on_time() is to run then, or before. kNever: nothing is to be done.
    void arm(Nanos deadline) noexcept;
    void arm_next() noexcept;  // when time has something to do here
    // Rings inotify's bell, for what the kernel does not see: by `next`, or later, where a parked write holds the
    // inode lock of `queue`.
    void ring() noexcept;
    // A write on `queue` that was parked has ended.
    void end_queue_file_write(const queue::WriteWaiter& writer) noexcept;
    // POLLIN, POLLOUT, or kHangUp.
    void wake_polls(unsigned events, Lane lane = Lane::kMain) noexcept;
    DeferredEffects& after() {
        if (!effects.after) effects.after = std::make_unique<DeferredEffects>();
        return *effects.after;
    }

    Effects effects;
    const bool listening;

private:
    void note_event(EventKind kind, std::uint64_t detail, std::uint8_t priority,
                    std::uint8_t type) noexcept;

    Core& core_;
    std::unique_lock<std::mutex> hold_;
    Locked* topic_ = nullptr;
    Nanos now_ = 0;
    Nanos realtime_ = 0;
};

}  // namespace ipcfs::channel
