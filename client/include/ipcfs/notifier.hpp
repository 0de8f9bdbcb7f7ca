// Being told of what happens in a channel. Four ways, from the barest to the most comfortable:
//   Channel::receive_fd()  a descriptor for the caller's own poll or epoll: a message waits;
//   EventCounter           an eventfd that counts events;
//   Notifier               the events themselves, with a filter, from a descriptor that can be polled;
//   on_message, on_event   callbacks on the caller's executor.
// And with Asio, see ipcfs/asio.hpp, awaitables. Nothing here takes a message but on_message.
#pragma once

#include <array>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <fcntl.h>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <system_error>
#include <thread>
#include <unistd.h>
#include <utility>

#include <ipcfs/channel.hpp>
#include <ipcfs/connection.hpp>
#include <ipcfs/process.hpp>
#include <ipcfs/result.hpp>
#include <ipcfs/wait.hpp>

namespace ipcfs {

// A line of `notify`.
struct Event {
    std::uint64_t sequence = 0;  // in the channel, of events that somebody listened for
    std::uint64_t time = 0;      // ns since 1970
    std::string kind;  // arrival drained high low overflow expired dead created removed state
    std::uint8_t priority = 0;  // of the message; 255 for events of the channel itself
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

// The events of a channel, in order, from open() on. Any thread, one reads at a time.
class Notifier {
public:
    // `filter` as `notify` takes it, such as "events=arrival,high min-priority=high"; a filter needs the
    // right to write to `notify`. EINVAL: a bad one (the reason is in the channel's status).
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

    // Readable when an event waits.
    int fd() const noexcept { return fd_.get(); }

    // The next event. Events that a slow reader missed are told by one of kind "overflow". ETIMEDOUT, or
    // EAGAIN for a timeout of zero; EPIPE when the channel is gone.
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

// An eventfd(2) to which the daemon adds every event that the filter lets through. For event loops that
// have one already; a forked child inherits the descriptor. Ends with this object. Any thread.
class EventCounter {
public:
    // `filter` as of Notifier; needs the right to read `notify`.
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

    // Readable when there were events since take().
    int fd() const noexcept { return counter_.get(); }
    // How many since the last call.
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

// Runs what it is given, now or later, on whatever thread the caller likes: a thread pool's post, a GUI's
// queue, [&](auto task) { boost::asio::post(context, std::move(task)); }.
using Executor = std::function<void(std::function<void()>)>;

namespace detail {

// One thread a process that waits for the descriptors of all Callbacks and has each one's task
// posted when it is ready: once, then not before the task has run.
class Reactor {
public:
    struct Watch {
        std::uint64_t id = 0;
        int fd = -1;
        std::function<void()> ready;  // on the reactor's thread: posts
    };

    static Expected<Reactor*> get() {
        const std::uint64_t epoch = process_epoch();
        Reactor* present = current_.load(std::memory_order_acquire);
        while (present == nullptr || present->epoch_ != epoch) {
            auto made = std::make_unique<Reactor>();
            if (auto started = made->prepare(); !started) return std::move(started).error();
            if (!current_.compare_exchange_strong(present, made.get())) continue;
            present = made.release();
            if (auto started = present->start(); !started) return std::move(started).error();
        }
        return present;
    }

    Expected<std::uint64_t> add(int fd, std::function<void()> ready) {
        const std::scoped_lock hold(mutex_);
        const std::uint64_t id = ++last_id_;
        watches_[id] = std::make_shared<Watch>(Watch{id, fd, std::move(ready)});
        epoll_event event{};
        event.events = EPOLLIN | EPOLLONESHOT;
        event.data.u64 = id;
        if (::epoll_ctl(poll_.get(), EPOLL_CTL_ADD, fd, &event) == 0) return id;
        Error error = last_error("watch");
        watches_.erase(id);
        return error;
    }
    // The task has run: wait for more.
    void arm(std::uint64_t id) {
        const std::scoped_lock hold(mutex_);
        const auto found = watches_.find(id);
        if (found == watches_.end()) return;
        epoll_event event{};
        event.events = EPOLLIN | EPOLLONESHOT;
        event.data.u64 = id;
        ::epoll_ctl(poll_.get(), EPOLL_CTL_MOD, found->second->fd, &event);
    }
    void remove(std::uint64_t id) {
        if (epoch_ != process_epoch()) return;  // inherited: nothing runs here
        std::shared_ptr<Watch> ended;           // destroyed after the lock is gone
        const std::scoped_lock hold(mutex_);
        const auto found = watches_.find(id);
        if (found == watches_.end()) return;
        ::epoll_ctl(poll_.get(), EPOLL_CTL_DEL, found->second->fd, nullptr);
        ended = std::move(found->second);
        watches_.erase(found);
    }

    Reactor() = default;
    Reactor(const Reactor&) = delete;
    Reactor& operator=(const Reactor&) = delete;

private:
    inline static constinit std::atomic<Reactor*> current_{nullptr};  // never destroyed

    Expected<void> prepare() {
        Fd poll(::epoll_create1(EPOLL_CLOEXEC));
        if (!poll) return last_error("watch");
        poll_ = OwnFd(std::move(poll));
        return {};
    }
    Expected<void> start() {
        sigset_t all;
        sigset_t before;
        ::sigfillset(&all);
        ::pthread_sigmask(SIG_SETMASK, &all, &before);
        int error = 0;
        try {
            std::thread([this] { run(); }).detach();
        } catch (const std::system_error& failed) {
            error = failed.code().value();
        }
        ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
        if (error == 0) return {};
        current_.store(nullptr);
        return Error{error, "start callback thread"};
    }
    void run() {
        std::array<epoll_event, 64> events;
        while (true) {
            const int count = ::epoll_wait(poll_.get(), events.data(), events.size(), -1);
            for (int i = 0; i < count; ++i) {
                std::shared_ptr<Watch> watch;
                {
                    const std::scoped_lock hold(mutex_);
                    const auto found = watches_.find(events[static_cast<std::size_t>(i)].data.u64);
                    if (found != watches_.end()) watch = found->second;
                }
                if (watch) watch->ready();
            }
        }
    }

    const std::uint64_t epoch_ = process_epoch();
    OwnFd poll_;
    std::mutex mutex_;
    std::map<std::uint64_t, std::shared_ptr<Watch>> watches_;
    std::uint64_t last_id_ = 0;
};

}  // namespace detail

// Ends the callbacks when it goes. None starts after that (one that runs on another thread meanwhile
// goes on). It does not wait.
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
        state_->reactor->remove(state_->id.exchange(0));
        state_.reset();
    }

    // Internal: takes one thing after the other by `take`, which gives EAGAIN when there is no more, and
    // calls `use` for each, and for the error that ends it.
    template <class Take, class Use>
    static Expected<Callbacks> make(int fd, Executor executor, Take take, Use use) {
        auto reactor = detail::Reactor::get();
        if (!reactor) return std::move(reactor).error();
        auto state = std::make_shared<State>();
        state->reactor = *reactor;
        // The task holds the state weakly: what has ended takes nothing more.
        auto task = [weak = std::weak_ptr(state), take, use]() mutable {
            const auto self = weak.lock();
            if (!self) return;
            while (!self->ended) {
                auto next = take();
                if (!next && next.error().code == EAGAIN) return self->reactor->arm(self->id);
                const bool last = !next;
                use(std::move(next));
                if (last) return;
            }
        };
        auto shared = std::make_shared<decltype(task)>(std::move(task));
        const std::scoped_lock hold(state->starting);
        auto id = (*reactor)->add(
            fd, [executor = std::move(executor), shared, weak = std::weak_ptr(state)] {
                if (const auto self = weak.lock()) {
                    const std::scoped_lock started(self->starting);  // until its id is known
                }
                executor([shared] { (*shared)(); });
            });
        if (!id) return std::move(id).error();
        state->id = *id;
        Callbacks made;
        made.state_ = std::move(state);
        return made;
    }

private:
    struct State {
        detail::Reactor* reactor = nullptr;
        std::mutex starting;
        std::atomic<std::uint64_t> id{0};
        std::atomic<bool> ended{false};
    };
    std::shared_ptr<State> state_;
};

// Calls `use` for every message, in order, on `executor`: it takes them. An error is the last call: EPIPE
// when the channel is gone. They keep the channel.
inline Expected<Callbacks> on_message(const std::shared_ptr<Channel>& channel, Executor executor,
                                      std::function<void(Expected<Message>)> use) {
    auto fd = channel->receive_fd();
    if (!fd) return std::move(fd).error();
    return Callbacks::make(
        *fd, std::move(executor), [channel] { return channel->try_receive(); }, std::move(use));
}

// Calls `use` for every event that passes `filter`. As on_message; takes no messages.
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
