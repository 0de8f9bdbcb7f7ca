// What is done after the locks.
#include <channel/locked.hpp>
#include <channel/subscription.hpp>

namespace ipcfs::channel {

void DeferredEffects::absorb(Channel& channel, Effects& effects) {
    finish.splice(finish.end(), effects.finish);
    notify.splice(notify.end(), effects.notify);
    garbage.splice(garbage.end(), effects.garbage);
    if (effects.events.empty() && effects.arm == kNever && !effects.enrol && !effects.ring &&
        effects.relieved.empty()) {
        return;
    }
    if (auto kept_alive = channel.weak_from_this().lock()) {
        rest.emplace_back(std::move(kept_alive), std::move(effects));
    }
}

void DeferredEffects::run() noexcept {
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
    for (auto& [channel, effects] : rest) Locked::run(*channel, effects);
    for (const auto& channel : down) channel->shut_down();
    for (const auto& channel : ended) channel->subscription()->end();
    while (queue::take_front(garbage)) {
    }
}

}  // namespace ipcfs::channel
