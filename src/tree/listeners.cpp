// Any thread.
#include <functional>
#include <signal.h>
#include <string.h>

#include <base/process.hpp>
#include <base/units.hpp>
#include <tree/listeners.hpp>
#include <tree/node.hpp>

namespace ipcfs::tree {
namespace {

constexpr std::size_t kMostSignals = 64;  // registrations a channel

// Tells of what its filter lets through. Charged to the user who asked for it.
class FilteredListener final : public channel::EventListener {
public:
    using Call = std::function<bool()>;  // false: it is over

    FilteredListener(channel::EventFilter filter, access::Charge charge, Call tell, Call alive)
        : filter_(filter),
          charge_(std::move(charge)),
          tell_(std::move(tell)),
          alive_(std::move(alive)) {}
    bool on_event(const channel::Event& event) noexcept override {
        return filter_.matches(event) && rate_.admits(event, filter_) ? tell_() : alive_();
    }
    bool alive() const noexcept override { return alive_(); }

private:
    const channel::EventFilter filter_;
    const access::Charge charge_;
    const Call tell_, alive_;
    EventRate rate_;
};

MadeListener listen(std::string_view filter, access::Account& account, FilteredListener::Call tell,
                    FilteredListener::Call alive) {
    auto parsed = channel::parse_filter(filter);
    if (!parsed) return parsed.error();
    auto charge = access::Charge::take(account, access::Resource::kOpenFiles, 1);
    if (!charge) return Fault{EDQUOT, "notify: the user's limit of open files is reached"};
    return std::make_shared<FilteredListener>(*parsed, std::move(*charge), std::move(tell),
                                              std::move(alive));
}

// SIGUSR1, USR1, SIGRTMIN+3, SIGRTMAX-1, 34; 0 when there is none.
int signal_number(std::string_view name) {
    if (auto number = parse_number(name)) {
        return *number >= 1 && *number <= static_cast<std::uint64_t>(SIGRTMAX)
                   ? static_cast<int>(*number)
                   : 0;
    }
    if (name.starts_with("SIG")) name.remove_prefix(3);
    for (auto [base, from, sign] : {std::tuple{std::string_view("RTMIN"), SIGRTMIN, '+'},
                                    std::tuple{std::string_view("RTMAX"), SIGRTMAX, '-'}}) {
        if (!name.starts_with(base)) continue;
        name.remove_prefix(base.size());
        if (name.empty()) return from;
        auto offset = name.front() == sign ? parse_number(name.substr(1)) : std::nullopt;
        if (!offset || *offset > static_cast<std::uint64_t>(SIGRTMAX - SIGRTMIN)) return 0;
        return sign == '+' ? from + static_cast<int>(*offset) : from - static_cast<int>(*offset);
    }
    for (int signal = 1; signal < 32; ++signal) {
        const char* known = ::sigabbrev_np(signal);
        if (known && name == known) return signal;
    }
    return 0;
}

}  // namespace

MadeListener make_signal(channel::Endpoint& channel, int signal, std::string_view filter,
                         const access::Subject& subject, access::Account& account) {
    if (signal == SIGKILL || signal == SIGSTOP) {
        return Fault{EPERM, "notify: signal: not SIGKILL and not SIGSTOP"};
    }
    if (subject.pid == 0) {
        return Fault{ESRCH, "notify: signal: the process is not visible to the daemon"};
    }
    if (channel.events().sweep() >= kMostSignals) {
        return Fault{EDQUOT, "notify: signal: 64 listeners are registered at this channel"};
    }
    auto opened = open_process(subject.pid);
    if (!opened) return opened.error();
    const auto process = std::make_shared<const Fd>(std::move(*opened));
    // The channel as siginfo shows it: the inode number of its directory.
    const std::uint64_t inode = NodeId{channel.id(), Kind::kChannel}.raw();
    const auto tell = [process, signal, inode] {
        // EAGAIN: its queue of real-time signals is full, and one is pending then anyway.
        auto sent = signal_process(*process, signal, inode);
        return sent || sent.error().code == EAGAIN;
    };
    return listen(filter, account, tell, [process] { return !process_ended(*process); });
}

Result<void> register_signal(channel::Endpoint& channel, std::string_view text,
                             const access::Subject& subject, access::Account& account) {
    text.remove_prefix(std::string_view("signal").size());
    const auto start = text.find_first_not_of(" \t");
    if (start == std::string_view::npos || start == 0) {
        return Fault{EINVAL, "notify: signal NAME [filter]"};
    }
    text.remove_prefix(start);
    const std::string_view name = text.substr(0, text.find_first_of(" \t\r\n"));
    const int signal = signal_number(name);
    if (signal == 0) {
        return Fault{EINVAL, "notify: no such signal: '" + std::string(name.substr(0, 32)) + "'"};
    }
    auto listener = make_signal(channel, signal, text.substr(name.size()), subject, account);
    if (!listener) return listener.error();
    channel.events().add(std::move(*listener));
    return {};
}

MadeListener make_counter(Fd counter, std::shared_ptr<EventAdder> adder, std::string_view filter,
                          access::Account& account) {
    const auto tell = [adder, fd = std::make_shared<const Fd>(std::move(counter))] {
        adder->add(fd->get());
        return true;
    };
    return listen(filter, account, tell, [] { return true; });
}

}  // namespace ipcfs::tree
