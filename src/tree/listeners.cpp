// Any thread.
#include <signal.h>
#include <string.h>

#include <base/process.hpp>
#include <base/units.hpp>
#include <tree/listeners.hpp>
#include <tree/node.hpp>

namespace ipcfs::tree {
namespace {

constexpr std::size_t kMostSignals = 64;  // registrations a channel

// Hears what its filter lets through, charged to the user who asked for it.
class FilteredListener : public channel::EventListener {
public:
    FilteredListener(channel::EventFilter filter, access::Charge charge)
        : filter_(filter), charge_(std::move(charge)) {}
    bool on_event(const channel::Event& event) noexcept final {
        return filter_.matches(event) && rate_.admits(event, filter_) ? tell(event) : alive();
    }

protected:
    virtual bool tell(const channel::Event& event) noexcept = 0;  // false: it is over

private:
    const channel::EventFilter filter_;
    const access::Charge charge_;
    EventRate rate_;
};

class SignalListener final : public FilteredListener {
public:
    SignalListener(Fd process, int signal, std::uint64_t value, channel::EventFilter filter,
                   access::Charge charge)
        : FilteredListener(filter, std::move(charge)),
          process_(std::move(process)),
          signal_(signal),
          value_(value) {}
    bool alive() const noexcept override { return !process_ended(process_); }

private:
    bool tell(const channel::Event&) noexcept override {
        // EAGAIN: its queue of real-time signals is full, and one is pending then anyway.
        auto sent = signal_process(process_, signal_, value_);
        return sent || sent.error().code == EAGAIN;
    }

    const Fd process_;
    const int signal_;
    const std::uint64_t value_;
};

class EventCounter final : public FilteredListener {
public:
    EventCounter(Fd counter, std::shared_ptr<EventAdder> adder, channel::EventFilter filter,
                 access::Charge charge)
        : FilteredListener(filter, std::move(charge)),
          counter_(std::move(counter)),
          adder_(std::move(adder)) {}

private:
    bool tell(const channel::Event&) noexcept override {
        adder_->add(counter_.get());
        return true;
    }

    const Fd counter_;
    const std::shared_ptr<EventAdder> adder_;
};

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
    auto parsed = channel::parse_filter(filter);
    if (!parsed) return parsed.error();
    if (subject.pid == 0) {
        return Fault{ESRCH, "notify: signal: the process is not visible to the daemon"};
    }
    if (channel.events().sweep() >= kMostSignals) {
        return Fault{EDQUOT, "notify: signal: 64 listeners are registered at this channel"};
    }
    auto charge = access::Charge::take(account, access::Resource::kOpenFiles, 1);
    if (!charge) return Fault{EDQUOT, "notify: signal: the user's limit of open files is reached"};
    auto process = open_process(subject.pid);
    if (!process) return process.error();
    // The channel as siginfo shows it: the inode number of its directory.
    const std::uint64_t inode = NodeId{channel.id(), Kind::kChannel}.raw();
    return std::make_shared<SignalListener>(std::move(*process), signal, inode, *parsed,
                                            std::move(*charge));
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
    auto parsed = channel::parse_filter(filter);
    if (!parsed) return parsed.error();
    auto charge = access::Charge::take(account, access::Resource::kOpenFiles, 1);
    if (!charge) return Fault{EDQUOT, "the user's limit of open files is reached"};
    return std::make_shared<EventCounter>(std::move(counter), std::move(adder), *parsed,
                                          std::move(*charge));
}

}  // namespace ipcfs::tree
