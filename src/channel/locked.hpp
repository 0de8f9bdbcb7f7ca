// The channel's lock, with what has to happen after it. Private to src/channel.
#pragma once

#include <boost/container/small_vector.hpp>

#include <base/burst.hpp>
#include <channel/channel.hpp>

namespace ipcfs::channel {

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
struct DeferredEffects;
struct Effects {
    queue::WaiterList finish;
    PollTickets notify;
    boost::container::small_vector<Event, 4> events;
    Nanos arm = kNever;
    bool ring = false;
    bool enrol = false;  // for LeaseWatch
    Doorbell::Target ring_target = Doorbell::Target::kQueue;
    queue::MessageList garbage;
    // Of a topic: what is to be done for its subscriptions.
    std::unique_ptr<DeferredEffects> after;
    // Of a subscription: topics whose publishers may look again, and whether there is room for all.
    std::vector<std::pair<std::shared_ptr<Channel>, bool>> relieved;

    bool empty() const noexcept {
        return finish.empty() && notify.empty() && events.empty() && arm == kNever && !ring &&
               !enrol && garbage.empty() && !after && relieved.empty();
    }
};

// What was collected under the locks of subscriptions while their topic's was held: done when that is
// released, since it calls out.
struct DeferredEffects {
    queue::WaiterList finish;
    PollTickets notify;
    queue::MessageList garbage;
    std::vector<std::pair<std::shared_ptr<Channel>, Effects>> rest;
    std::vector<std::shared_ptr<Channel>> kept;   // so that none of them dies under the lock
    std::vector<std::shared_ptr<Channel>> ended;  // subscriptions that are over
    std::vector<std::shared_ptr<Channel>> down;   // subscriptions to shut down
    void absorb(Channel& channel, Effects& effects);
    void run() noexcept;
};

class Locked {
public:
    explicit Locked(Channel& channel)
        : listening(channel.hub_.has_listeners()), channel_(channel), hold_(channel.mutex_) {}
    Locked(const Locked&) = delete;
    Locked& operator=(const Locked&) = delete;
    // Of a subscription, while the topic's is held, which does the rest and knows the time.
    Locked(Channel& channel, Locked& topic) : Locked(channel) {
        topic_ = &topic;
        now_ = topic.now();
        realtime_ = topic.realtime();
    }
    ~Locked() {
        hold_.unlock();
        if (topic_) {
            topic_->after().absorb(channel_, effects);
        } else {
            run(channel_, effects);
        }
    }
    DeferredEffects& after() {
        if (!effects.after) effects.after = std::make_unique<DeferredEffects>();
        return *effects.after;
    }

    Nanos now() noexcept {
        if (now_ == 0) now_ = channel_.env_.clock.monotonic();
        return now_;
    }
    Nanos realtime() noexcept {
        if (realtime_ == 0) realtime_ = channel_.env_.clock.realtime_at(now());
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

    static void run(Channel& channel, Effects& effects) noexcept {
        if (effects.empty()) return;
        const Burst burst;
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
        for (const Event& event : effects.events) channel.hub_.publish(event);
        if (effects.arm != kNever) {
            channel.env_.timers.arm(channel.weak_from_this(), effects.arm);
        }
        if (effects.enrol) {
            channel.env_.leases.add(channel.weak_from_this());
        }
        if (effects.ring) {
            channel.env_.bell.ring(channel, effects.ring_target);
        }
        while (queue::take_front(effects.garbage)) {
        }
        if (effects.after) effects.after->run();
        for (const auto& [topic, is_relieved] : effects.relieved)
            topic->retry_publishers(is_relieved);
    }

private:
    Channel& channel_;
    std::unique_lock<std::mutex> hold_;
    Locked* topic_ = nullptr;
    Nanos now_ = 0;
    Nanos realtime_ = 0;
};

}  // namespace ipcfs::channel
