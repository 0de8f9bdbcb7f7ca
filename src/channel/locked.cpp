// Under the channel's lock, but for Effects, which are done without it.
#include <poll.h>

#include <base/burst.hpp>
#include <channel/discipline.hpp>
#include <channel/locked.hpp>
#include <channel/subscription.hpp>
#include <channel/topic.hpp>

namespace ipcfs::channel {

void Wakes::wake() noexcept {
    while (!finish.empty()) {
        queue::Waiter& waiter = finish.front();
        finish.pop_front();
        waiter.finish();
    }
    while (!notify.empty()) {
        std::unique_ptr<PollTicket> ticket(&notify.front());
        notify.pop_front();
        ticket->notify();
    }
}

void Effects::run(Channel& channel) noexcept {
    const Burst burst;
    wake();
    Environment& env = channel.core().env;
    for (const Event& event : events) channel.events().publish(event);
    if (arm != kNever) env.timers.arm(channel.weak_from_this(), arm);
    if (enrol) env.leases.add(channel.weak_from_this());
    if (ring) env.bell.ring(channel, ring_target);
    while (queue::take_front(garbage)) {
    }
    if (after) after->run();
    for (const auto& [topic, has_room_for_all] : unblocked)
        Topic::retry(topic->core(), has_room_for_all);
}

void DeferredEffects::absorb(Channel& channel, Effects& effects) {
    finish.splice(finish.end(), effects.finish);
    notify.splice(notify.end(), effects.notify);
    garbage.splice(garbage.end(), effects.garbage);
    if (effects.only_wakes()) return;
    if (auto kept_alive = channel.weak_from_this().lock()) {
        rest.emplace_back(std::move(kept_alive), std::move(effects));
    }
}

void DeferredEffects::run() noexcept {
    wake();
    for (auto& [channel, effects] : rest) effects.run(*channel);
    for (const auto& channel : down) channel->shut_down();
    for (const auto& channel : ended) channel->subscription()->end();
    while (queue::take_front(garbage)) {
    }
}

bool Locked::refuse(queue::Waiter& waiter) noexcept {
    if (core_.removed()) {
        finish(waiter, Wake::kRemoved);
    } else if (core_.flow.down()) {
        finish(waiter, Wake::kShutdown);
    } else if (waiter.cancelled) {
        finish(waiter, Wake::kInterrupted);
    } else {
        return false;
    }
    return true;
}

void Locked::note_event(EventKind kind, std::uint64_t detail, std::uint8_t priority,
                        std::uint8_t type) noexcept {
    effects.events.push_back(Event{.time = realtime(),
                                   .kind = kind,
                                   .priority = priority,
                                   .type = type,
                                   .depth = core_.backlog.size(),
                                   .detail = detail});
}

void Locked::arm(Nanos deadline) noexcept {
    // One entry that comes no later will do: on_time() arms what is left.
    auto& armed = core_.armed;
    if (deadline == kNever || (!armed.empty() && armed.back() <= deadline)) return;
    if (effects.arm == kNever) {
        armed.push_back(deadline);
    } else {
        armed.back() = deadline;
    }
    effects.arm = deadline;
}

void Locked::arm_next() noexcept {
    const Flow& flow = core_.flow;
    arm(std::min({core_.backlog.next_event(), core_.waiters.next_deadline(), flow.held_until()}));
    if (!core_.waiters.openers.empty() && !flow.paused() && !flow.held()) arm(flow.credit_end());
}

void Locked::ring() noexcept {
    if (core_.subscription && !core_.subscription->is_named()) return;  // there is no such file
    if (core_.queue_file_writes > 0) {
        if (!core_.discipline->is_rendezvous()) {
            core_.is_ring_deferred = true;
            return;
        }
        // These writes end when they are read, which may wait for the bell.
        effects.ring_target = Doorbell::Target::kNext;
    }
    effects.ring = true;
    ++core_.counters.rings;
}

void Locked::end_queue_file_write(const WriteWaiter& writer) noexcept {
    if (writer.via != Via::kQueueFile || --core_.queue_file_writes > 0 || !core_.is_ring_deferred) {
        return;
    }
    core_.is_ring_deferred = false;
    effects.ring = true;
    ++core_.counters.rings;
}

void Locked::wake_polls(unsigned events, Lane lane) noexcept {
    PollTickets& polls = core_.waiters.polls;
    for (auto at = polls.begin(); at != polls.end();) {
        PollTicket& ticket = *at++;
        unsigned wanted = ticket.events & events;
        if ((wanted & POLLOUT) && !core_.writable(ticket.critical)) {
            wanted &= ~static_cast<unsigned>(POLLOUT);
        }
        if (events != kHangUp && (!wanted || ticket.lane != lane)) continue;
        polls.erase(polls.iterator_to(ticket));
        ticket.slot->ticket = nullptr;
        effects.notify.push_back(ticket);
    }
}

}  // namespace ipcfs::channel
