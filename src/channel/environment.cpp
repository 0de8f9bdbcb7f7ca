// Without locks of channels.
#include <utility>

#include <channel/channel.hpp>
#include <channel/environment.hpp>

namespace ipcfs::channel {

Environment::Environment(const Clock& its_clock, TimerQueue& its_timers,
                         queue::MessagePool& its_messages, access::Ledger& its_ledger,
                         store::Store* its_store, Executor* its_worker, bool lingers)
    : clock(its_clock),
      timers(its_timers),
      messages(its_messages),
      ledger(its_ledger),
      store(its_store),
      worker(its_worker),
      lingering(store && lingers ? std::make_shared<Lingering>(*store, clock, timers) : nullptr) {}

void LeaseWatch::add(std::weak_ptr<Channel> channel) {
    channels_.with([&](auto& all) { all.push_back(std::move(channel)); });
}

std::size_t LeaseWatch::watched() const {
    return channels_.with([](const auto& all) { return all.size(); });
}

std::size_t LeaseWatch::sweep() {
    using List = std::vector<std::weak_ptr<Channel>>;
    List all = channels_.with([](List& list) { return std::exchange(list, {}); });
    if (all.empty()) return 0;
    std::size_t ended = 0;
    std::erase_if(all, [&](const std::weak_ptr<Channel>& weak) {
        auto channel = weak.lock();
        if (!channel) return true;
        ended += channel->sweep_leases();
        return !channel->still_leasing();
    });
    channels_.with([&](List& list) { list.insert(list.end(), all.begin(), all.end()); });
    return ended;
}

}  // namespace ipcfs::channel
