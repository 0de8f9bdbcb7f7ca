// Notification of events in a channel, in four ways, from the simplest to the most convenient:
//   Channel::receive_fd()  a descriptor for the caller's own poll or epoll: a message waits;
//   EventCounter           an eventfd that counts events;
//   Notifier               the events themselves, filtered, from a pollable descriptor;
//   on_message, on_event   callbacks on the caller's executor.
// For awaitables with Asio, see ipcfs/asio.hpp. Only on_message takes messages.
#pragma once

#include <array>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <fcntl.h>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <sys/eventfd.h>
#include <unistd.h>
#include <utility>

#include <ipcfs/channel.hpp>
#include <ipcfs/connection.hpp>
#include <ipcfs/process.hpp>
#include <ipcfs/reactor.hpp>
#include <ipcfs/result.hpp>
#include <ipcfs/wait.hpp>

namespace ipcfs {

// One line of the channel's file `notify`.
struct Event {
    std::uint64_t sequence = 0;  // number of the event in its channel
    std::uint64_t time = 0;      // ns since 1970
    std::string kind;  // arrival drained high low overflow expired dead created removed state
    std::uint8_t priority = 0;  // of the message; 255 for events of the channel
    std::uint64_t depth = 0;    // messages queued after it
    std::string detail;         // "size=5", "lost=3", "value=0"
};

namespace detail {

inline Expected<Event> parse_event(std::string_view line) {
    const Error bad{EPROTO, "read notify"};
    std::array<std::string_view, 6> words;
    for (std::size_t i = 0; i < words.size(); ++i) {
        const std::size_t end = std::min(line.find_first_of(" \n"), line.size());
        words[i] = line.substr(0, end);
        if (words[i].empty() && i < 5) return bad;
        line.remove_prefix(std::min(end + 1, line.size()));
    }
    const auto number = [](std::string_view word, auto& out) {
        const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), out);
        return error == std::errc() && end == word.data() + word.size();
    };
    Event event;
    if (!number(words[0], event.sequence) || !number(words[1], event.time) ||
        !number(words[3], event.priority) || !number(words[4], event.depth))
        return bad;
    event.kind = words[2];
    event.detail = words[5];
    return event;
}

}  // namespace detail

// The events of a channel in order, starting at open(). Any thread; one reads at a time.
class Notifier {
public:
    // `filter` has the syntax of `notify`, such as "events=arrival,high min-priority=high"; using
    // one requires write permission for `notify`. EINVAL: invalid filter; the channel's `status`
    // gives the reason.
    static Expected<Notifier> open(const Channel& channel, const std::string& filter = {}) {
        constexpr const char* kOperation = "open notify";
        const int mode = filter.empty() ? O_RDONLY : O_RDWR;
        detail::Fd fd(detail::open_at(channel.directory(), "notify", mode | O_NONBLOCK));
        if (!fd) return detail::last_error(kOperation);
        if (!filter.empty() &&
            ::write(fd.get(), filter.data(), filter.size()) != static_cast<ssize_t>(filter.size()))
            return detail::last_error("filter of notify");
        return Notifier(std::move(fd));
    }

    // Readable if an event waits.
    int fd() const noexcept { return fd_.get(); }

    // The next event. An event of kind "overflow" stands for events that a slow reader missed.
    // ETIMEDOUT; EAGAIN with a timeout of zero; EPIPE if the channel is gone.
    Expected<Event> next(Timeout timeout = kForever) {
        constexpr const char* kOperation = "read notify";
        const Deadline deadline(timeout);
        while (true) {
            std::array<char, 512> line;
            const ssize_t length = detail::again_if_undone(
                [&] { return ::read(fd_.get(), line.data(), line.size()); });
            if (length > 0)
                return detail::parse_event({line.data(), static_cast<std::size_t>(length)});
            if (length == 0) return Error{EPIPE, kOperation, "the channel is gone"};
            if (errno != EAGAIN && errno != EINTR) return detail::last_error(kOperation);
            if (deadline.passed())
                return Error{deadline.at_once() ? EAGAIN : ETIMEDOUT, kOperation};
            detail::poll_one(fd_.get(), POLLIN, deadline.left());
        }
    }
    Expected<Event> try_next() { return next(Timeout::zero()); }

private:
    using Deadline = detail::Deadline;
    explicit Notifier(detail::Fd fd) : fd_(std::move(fd)) {}

    detail::Fd fd_;
};

// An eventfd(2) to which the daemon adds 1 for each event that passes the filter, for existing
// event loops. Counting ends when this object is destroyed. A forked child inherits the descriptor.
// Any thread.
class EventCounter {
public:
    // `filter` as for Notifier. Requires read permission for `notify`.
    static Expected<EventCounter> open(const Channel& channel, const std::string& filter = {}) {
        constexpr const char* kOperation = "watch with eventfd";
        detail::Fd counter(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
        if (!counter) return detail::last_error(kOperation);
        auto connection = detail::Connection::get(channel.mount());
        if (!connection) return std::move(connection).error();
        const std::string path = channel.name();
        ControlWatch watch;
        watch.path_length = static_cast<std::uint32_t>(path.size());
        watch.filter_length = static_cast<std::uint32_t>(filter.size());
        const int fd = counter.get();
        auto reply =
            (*connection)->call(ControlOp::kEventFd, watch, {path, filter}, std::span(&fd, 1));
        if (!reply) return std::move(reply).error();
        EventCounter made;
        made.counter_ = std::move(counter);
        made.connection_ = std::move(*connection);
        made.id_ = reply->as<ControlId>().id;
        return made;
    }
    EventCounter(EventCounter&&) noexcept = default;
    EventCounter& operator=(EventCounter&& other) noexcept {
        end();
        counter_ = std::move(other.counter_);
        connection_ = std::move(other.connection_);
        id_ = other.id_;
        return *this;
    }
    ~EventCounter() { end(); }

    // Readable if events came since the last take().
    int fd() const noexcept { return counter_.get(); }
    // How many events came since the last call.
    std::uint64_t take() noexcept {
        std::uint64_t count = 0;
        return ::read(counter_.get(), &count, sizeof count) == sizeof count ? count : 0;
    }

private:
    EventCounter() = default;
    void end() noexcept {
        if (connection_) connection_->post_later(ControlOp::kUnwatch, ControlId{id_});
        connection_.reset();
    }

    detail::Fd counter_;
    std::shared_ptr<detail::Connection> connection_;
    std::uint64_t id_ = 0;
};

// Runs a task, now or later, on any thread: a thread pool's post, a GUI's queue, or [&](auto task)
// { boost::asio::post(context, std::move(task)); }.
using Executor = std::function<void(std::function<void()>)>;

// Ends the callbacks when destroyed. No callback starts after that; one that is running on another
// thread is not waited for.
class [[nodiscard]] Callbacks {
public:
    Callbacks() = default;
    Callbacks(Callbacks&&) noexcept = default;
    Callbacks& operator=(Callbacks&& other) noexcept {
        end();
        state_ = std::move(other.state_);
        return *this;
    }
    ~Callbacks() { end(); }

    explicit operator bool() const noexcept { return state_ != nullptr; }
    void end() noexcept {
        if (!state_) return;
        state_->ended = true;
        state_->reactor.remove(state_->id);
        state_.reset();
    }

    // Internal: calls `take` until it returns EAGAIN, and `use` for each value, and for the error
    // that ends it.
    template <class Take, class Use>
    static Expected<Callbacks> make(int fd, Executor executor, Take take, Use use) {
        auto state = std::make_shared<State>();
        detail::Reactor& reactor = state->reactor;
        // The task holds the state weakly, so that it takes nothing after the end.
        auto task = [weak = std::weak_ptr(state), take, use](std::uint64_t id) mutable {
            const auto self = weak.lock();
            if (!self) return;
            while (!self->ended) {
                auto next = take();
                if (!next && next.error().code == EAGAIN) return self->reactor.arm(id);
                const bool last = !next;
                use(std::move(next));
                if (last) return;
            }
        };
        auto shared = std::make_shared<decltype(task)>(std::move(task));
        auto post = [executor = std::move(executor), shared](std::uint64_t id) {
            executor([shared, id] { (*shared)(id); });
        };
        auto id = reactor.add(fd, std::move(post), true);
        if (!id) return std::move(id).error();
        state->id = *id;
        Callbacks made;
        made.state_ = std::move(state);
        return made;
    }

private:
    struct State {
        detail::Reactor& reactor =
            detail::Reactor::of_process(detail::Reactor::Purpose::kCallbacks);
        std::uint64_t id = 0;  // of the watch; used by the owner only
        std::atomic<bool> ended{false};
    };
    std::shared_ptr<State> state_;
};

// Takes every message and calls `use` for it, in order, on `executor`. An error is the last call:
// EPIPE if the channel is gone. The callbacks keep the channel alive.
inline Expected<Callbacks> on_message(const std::shared_ptr<Channel>& channel, Executor executor,
                                      std::function<void(Expected<Message>)> use) {
    auto fd = channel->receive_fd();
    if (!fd) return std::move(fd).error();
    return Callbacks::make(
        *fd, std::move(executor), [channel] { return channel->try_receive(); }, std::move(use));
}

// Calls `use` for every event that passes `filter`, like on_message. Takes no messages.
inline Expected<Callbacks> on_event(const Channel& channel, const std::string& filter,
                                    Executor executor, std::function<void(Expected<Event>)> use) {
    auto opened = Notifier::open(channel, filter);
    if (!opened) return std::move(opened).error();
    auto notifier = std::make_shared<Notifier>(std::move(*opened));
    const int fd = notifier->fd();
    return Callbacks::make(
        fd, std::move(executor), [notifier] { return notifier->try_next(); }, std::move(use));
}

}  // namespace ipcfs
