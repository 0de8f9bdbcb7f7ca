// Signals on events, asked for through `notify`. They end with the process. Any thread.
#include <signal.h>
#include <string.h>

#include <base/process.hpp>
#include <base/units.hpp>
#include <tree/node.hpp>
#include <tree/notify_file.hpp>

namespace ipcfs::tree {
namespace {

constexpr std::size_t kMostSignals = 64;  // registrations a channel

class SignalListener final : public channel::EventListener {
public:
    SignalListener(Fd process, int signal, channel::EventFilter filter, std::uint64_t channel,
                   access::Charge charge)
        : process_(std::move(process)),
          signal_(signal),
          filter_(filter),
          channel_(channel),
          charge_(std::move(charge)) {}

    bool on_event(const channel::Event& event) noexcept override {
        if (!filter_.matches(event)) return alive();
        if (!rate_.admits(event, filter_)) return true;
        // EAGAIN: its queue of real-time signals is full, and one is pending then anyway.
        auto sent = signal_process(process_, signal_, channel_);
        return sent || sent.error().code == EAGAIN;
    }
    bool alive() const noexcept override { return !process_ended(process_); }

private:
    Fd process_;
    int signal_;
    channel::EventFilter filter_;
    std::uint64_t channel_;
    access::Charge charge_;
    EventRate rate_;
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

Result<std::shared_ptr<channel::EventListener>> make_signal(channel::Channel& channel,
                                                            std::string_view text,
                                                            const access::Subject& subject,
                                                            access::Account& account) {
    text.remove_prefix(std::string_view("signal").size());
    auto start = text.find_first_not_of(" \t");
    if (start == std::string_view::npos || start == 0) {
        return Fault{EINVAL, "notify: signal NAME [filter]"};
    }
    text.remove_prefix(start);
    std::string_view name = text.substr(0, text.find_first_of(" \t\r\n"));
    int signal = signal_number(name);
    if (signal == 0) {
        return Fault{EINVAL, "notify: no such signal: '" + std::string(name.substr(0, 32)) + "'"};
    }
    if (signal == SIGKILL || signal == SIGSTOP) {
        return Fault{EPERM, "notify: signal: not SIGKILL and not SIGSTOP"};
    }
    auto filter = channel::parse_filter(text.substr(name.size()));
    if (!filter) return filter.error();
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
    std::uint64_t inode = NodeId{channel.id(), Kind::kChannel}.raw();
    return std::shared_ptr<channel::EventListener>(std::make_shared<SignalListener>(
        std::move(*process), signal, *filter, inode, std::move(*charge)));
}

Result<void> register_signal(channel::Channel& channel, std::string_view text,
                             const access::Subject& subject, access::Account& account) {
    auto listener = make_signal(channel, text, subject, account);
    if (!listener) return listener.error();
    channel.events().add(std::move(*listener));
    return {};
}

}  // namespace ipcfs::tree
