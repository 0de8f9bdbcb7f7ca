// Subscription: the receiving side of a topic. A following subscription lives as long as this
// object and gets what is published from then on. A named one is persistent: it is TOPIC/subs/NAME,
// keeps unread messages, has its own settings and filter, and all who open it share it, with each
// message going to one of them.
//
//     auto all = ipcfs::Subscription::follow("logs");
//     ipcfs::SubscriptionOptions urgent;
//     urgent.create = true;
//     urgent.filter = "priority high-critical";
//     auto errors = ipcfs::Subscription::open("logs", "errors", urgent);
//     while (auto line = errors->receive()) print(line->text());
//
// To publish, use Channel::send on the topic; SendOptions::group names the group on type multicast.
// Threads and fork as for Channel, except that a forked child of a follower gets a subscription of
// its own.
#pragma once

#include <array>
#include <cerrno>
#include <cstddef>
#include <fcntl.h>
#include <string>
#include <string_view>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include <ipcfs/channel.hpp>
#include <ipcfs/mount.hpp>
#include <ipcfs/process.hpp>
#include <ipcfs/result.hpp>

namespace ipcfs {

struct SubscriptionOptions {
    bool create = false;     // create it if missing
    bool exclusive = false;  // with `create`: EEXIST if it exists
    mode_t mode = 0777;      // of a new one, less the umask
    // Which messages it gets, one condition a line, see docs/tree.md. If not empty, it also
    // replaces the filter of an existing subscription; requires write permission for its `filter`.
    std::string_view filter{};
    ChannelOptions channel{};  // its `create` and `mode` are ignored
};

class Subscription {
public:
    // Subscribes from now on until this object is destroyed. ENOENT: no such topic; EACCES: no
    // permission to receive; EINVAL: not a topic.
    static Expected<Subscription> follow(std::string_view topic, ChannelOptions options = {}) {
        auto channel = Channel::open(topic, options);
        if (!channel) return std::move(channel).error();
        const std::string type = channel->setting("type");
        if (!type.empty() && type != "topic" && type != "multicast")
            return Error{EINVAL, kOpen, "the channel is of type " + type};
        if (auto fd = channel->receive_fd(); !fd) return std::move(fd).error();
        return Subscription(std::move(*channel), {});
    }

    // Opens TOPIC/subs/NAME. ENOENT: it does not exist; EEXIST: see the options; EINVAL: invalid
    // name or filter, with the reason; EACCES: no permission to create it or to receive.
    static Expected<Subscription> open(std::string_view topic, std::string_view name,
                                       const SubscriptionOptions& options = {}) {
        if (!is_name(name)) return Error{EINVAL, kOpen, "not a valid name of a subscription"};
        const std::string path = path_to(topic, name);
        bool made = false;
        if (options.create) {
            made = ::mkdir(path.c_str(), options.mode) == 0;
            if (!made && (errno != EEXIST || options.exclusive))
                return detail::last_error("create subscription");
        }
        ChannelOptions inner = options.channel;
        inner.create = false;
        auto channel = Channel::open(path, inner);
        if (!channel) return std::move(channel).error();
        Subscription opened(std::move(*channel), std::string(name));
        if (options.filter.empty()) return opened;
        auto filtered = opened.set_filter(options.filter);
        if (filtered) return opened;
        if (made) ::rmdir(path.c_str());
        return std::move(filtered).error();
    }

    // Removes TOPIC/subs/NAME. ENOTEMPTY: it holds messages.
    static Expected<void> remove(std::string_view topic, std::string_view name) {
        constexpr const char* kOperation = "remove subscription";
        if (!is_name(name)) return Error{EINVAL, kOperation, "not a valid name of a subscription"};
        if (::rmdir(path_to(topic, name).c_str()) != 0) return detail::last_error(kOperation);
        return {};
    }

    // The name; empty for a following subscription.
    const std::string& name() const noexcept { return name_; }

    // As those of Channel. EPIPE: the subscription or its topic was removed.
    Expected<Message> receive(Timeout timeout = kForever) { return channel_.receive(timeout); }
    Expected<Message> try_receive() { return channel_.try_receive(); }
    Expected<std::vector<Message>> receive_batch(std::size_t most, Timeout timeout = kForever) {
        return channel_.receive_batch(most, timeout);
    }
    // As Channel::lease(). ENOTSUP for a following subscription.
    Expected<Lease> lease(Timeout timeout = kForever) {
        if (name_.empty()) return Error{ENOTSUP, "lease", "only a named subscription has leases"};
        return channel_.lease(timeout);
    }
    Expected<Lease> try_lease() { return lease(Timeout::zero()); }
    // For poll, select and epoll: readable if a message waits.
    Expected<int> receive_fd() { return channel_.receive_fd(); }

    // The filter as the daemon writes it; empty: everything. ENOTSUP for a following subscription.
    Expected<std::string> filter() const {
        if (name_.empty()) return no_filter();
        const detail::Fd file(::openat(channel_.directory(), "filter", O_RDONLY | O_CLOEXEC));
        if (!file) return detail::last_error(kFilter);
        std::string text;
        std::array<char, 4096> part;
        while (true) {
            const ssize_t got = ::read(file.get(), part.data(), part.size());
            if (got == 0) return text;
            if (got > 0) text.append(part.data(), static_cast<std::size_t>(got));
            if (got < 0 && errno != EINTR) return detail::last_error(kFilter);
        }
    }
    // Sets the filter for what is published from now on. EINVAL, with the reason and nothing
    // changed, for an invalid filter.
    Expected<void> set_filter(std::string_view text) {
        if (name_.empty()) return no_filter();
        const detail::Fd file(::openat(channel_.directory(), "filter", O_WRONLY | O_CLOEXEC));
        if (!file) return detail::last_error(kFilter);
        if (text.empty()) text = "\n";
        ssize_t written = 0;
        do {
            written = ::write(file.get(), text.data(), text.size());
        } while (written < 0 && errno == EINTR);
        if (written == static_cast<ssize_t>(text.size())) return {};
        Error error = written < 0 ? detail::last_error(kFilter) : Error{EMSGSIZE, kFilter};
        if (error.code == EINVAL) error.reason = last_reason();
        return error;
    }

    // The underlying channel, for Typed, on_message, AsyncReceiver and settings. Not for sending.
    Channel& channel() noexcept { return channel_; }
    const Channel& channel() const noexcept { return channel_; }

private:
    static constexpr const char* kOpen = "open subscription";
    static constexpr const char* kFilter = "filter of subscription";

    Subscription(Channel channel, std::string name)
        : channel_(std::move(channel)), name_(std::move(name)) {}

    static bool is_name(std::string_view name) noexcept {
        return !name.empty() && name.find('/') == std::string_view::npos && name != "." &&
               name != "..";
    }
    static std::string path_to(std::string_view topic, std::string_view name) {
        return detail::path_of(topic) + "/subs/" + std::string(name);
    }
    static Error no_filter() {
        return Error{ENOTSUP, kFilter, "only a named subscription has a filter"};
    }

    std::string last_reason() const {
        const std::string all = "\n" + detail::read_start(channel_.directory(), "status");
        constexpr std::string_view kKey = "\nlast-error ";
        const std::size_t at = all.find(kKey);
        if (at == all.npos) return {};
        const std::size_t begin = at + kKey.size();
        return all.substr(begin, all.find('\n', begin) - begin);
    }

    Channel channel_;
    std::string name_;
};

}  // namespace ipcfs
