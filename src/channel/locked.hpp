// The channel's lock, with what has to happen after it. Private to src/channel.
#pragma once

#include <boost/container/small_vector.hpp>

#include <channel/channel.hpp>

namespace ipcfs::channel {

// Takes a waiter out of the list that it is in.
inline void unlink(queue::WaiterList& list, queue::Waiter& waiter) {
    list.erase(list.iterator_to(waiter));
}

// How a write ends that waited, by what became of it.
inline queue::Wake ending_of(Push push) noexcept {
    switch (push) {
        case Push::kQueued: return queue::Wake::kServed;
        case Push::kNoSpace: return queue::Wake::kNoSpace;
        case Push::kDiskFailed: return queue::Wake::kDiskFailed;
        default: return queue::Wake::kPurged;
    }
}

// Collected under the lock, done after it in this order: whoever waits gets its answer first.
struct Channel::Effects {
    queue::WaiterList finish;
    Tickets notify;
    boost::container::small_vector<Event, 4> events;
    Nanos arm = kForever;
    bool ring = false;
    bool enrol = false;  // for sweep_leases()
    Doorbell::Target ring_target = Doorbell::Target::kQueue;
    queue::MessageList garbage;
};

class Channel::Locked {
public:
    explicit Locked(Channel& channel)
        : listening(channel.hub_.has_listeners()), channel_(channel), hold_(channel.mutex_) {}
    Locked(const Locked&) = delete;
    Locked& operator=(const Locked&) = delete;
    ~Locked() {
        hold_.unlock();
        run();
    }

    Nanos now() noexcept {
        if (now_ == 0) now_ = channel_.env_.clock.monotonic();
        return now_;
    }
    Nanos realtime() noexcept {
        if (realtime_ == 0) realtime_ = channel_.env_.clock.realtime();
        return realtime_;
    }
    void finish(queue::Waiter& waiter, queue::Wake why) noexcept {
        waiter.why = why;
        waiter.parked = false;
        effects.finish.push_back(waiter);
    }
    void discard(queue::MessageRef message) noexcept {
        effects.garbage.push_back(*message.detach());
    }

    Effects effects;
    const bool listening;

private:
    void run() noexcept {
        while (!effects.finish.empty()) {
            queue::Waiter& waiter = effects.finish.front();
            effects.finish.pop_front();
            waiter.finish();
        }
        while (!effects.notify.empty()) {
            std::unique_ptr<PollTicket> ticket(&effects.notify.front());
            effects.notify.pop_front();
            ticket->notify();
        }
        for (const Event& event : effects.events) channel_.hub_.publish(event);
        if (effects.arm != kForever) {
            channel_.env_.timers.arm(channel_.weak_from_this(), effects.arm);
        }
        if (effects.enrol) {
            channel_.env_.leasing.with(
                [&](auto& all) { all.push_back(channel_.weak_from_this()); });
        }
        if (effects.ring) {
            channel_.env_.rings.fetch_add(1, std::memory_order_relaxed);
            if (Doorbell* bell = channel_.env_.doorbell.load(std::memory_order_acquire)) {
                bell->ring(channel_, effects.ring_target);
            }
        }
        while (queue::take_front(effects.garbage)) {
        }
    }

    Channel& channel_;
    std::unique_lock<std::mutex> hold_;
    Nanos now_ = 0;
    Nanos realtime_ = 0;
};

}  // namespace ipcfs::channel
