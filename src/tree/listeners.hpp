// Listeners to a channel's events that outlive the open file or the connection that asked for them: a
// signal, or a count in a client's eventfd. Private to src/tree. Any thread.
#pragma once

#include <atomic>
#include <memory>
#include <string_view>

#include <access/account.hpp>
#include <access/subject.hpp>
#include <base/event_adder.hpp>
#include <base/fd.hpp>
#include <base/result.hpp>
#include <channel/endpoint.hpp>

namespace ipcfs::tree {

// How many events came in this second. Any thread.
class EventRate {
public:
    // Counts it. False: it is more than the filter lets through in a second.
    bool admits(const channel::Event& event, const channel::EventFilter& filter) noexcept {
        if (filter.rate == 0) return true;
        const auto second = static_cast<std::uint64_t>(event.time / kSecond);
        if (second_.exchange(second, std::memory_order_relaxed) != second) count_ = 0;
        return count_.fetch_add(1, std::memory_order_relaxed) < filter.rate;
    }

private:
    std::atomic<std::uint64_t> second_{0}, count_{0};
};

using MadeListener = Result<std::shared_ptr<channel::EventListener>>;

// Sends `signal` to the process of `subject` until it ends. EINVAL, EPERM (SIGKILL, SIGSTOP), ESRCH
// where the process is not visible, EDQUOT.
MadeListener make_signal(channel::Endpoint& channel, int signal, std::string_view filter,
                         const access::Subject& subject, access::Account& account);
// The same by a text as written to `notify`: `signal SIGUSR1 [filter]`. It is added to the channel.
Result<void> register_signal(channel::Endpoint& channel, std::string_view text,
                             const access::Subject& subject, access::Account& account);
// Adds one to an eventfd for each event, and waits for nobody who shares it. EINVAL, EDQUOT.
MadeListener make_counter(Fd counter, std::shared_ptr<EventAdder> adder, std::string_view filter,
                          access::Account& account);

}  // namespace ipcfs::tree
