// The threads of the client header: starting one, and the reactor, which waits for descriptors.
// Internal to the client header.
//
// These threads block all signals, have names and are never joined: they end with the process. A
// forked child has none of them and makes its own when needed.
#pragma once

#include <array>
#include <atomic>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <pthread.h>
#include <sys/epoll.h>
#include <utility>

#include <ipcfs/process.hpp>
#include <ipcfs/result.hpp>

namespace ipcfs::detail {

// Runs `run` on a new thread. An exception ends the process.
template <class Run>
Expected<void> start_thread(const char* name, const char* operation, Run run) {
    struct Start {
        const char* name;
        Run run;
    };
    auto start = std::make_unique<Start>(Start{name, std::move(run)});
    const auto main = [](void* given) noexcept -> void* {
        const std::unique_ptr<Start> mine(static_cast<Start*>(given));
        ::pthread_setname_np(::pthread_self(), mine->name);
        mine->run();
        return nullptr;
    };
    sigset_t all;
    sigset_t before;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_t thread{};
    const int error = ::pthread_create(&thread, nullptr, main, start.get());
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    if (error != 0) return Error{error, operation};
    [[maybe_unused]] const Start* taken_over = start.release();
    ::pthread_detach(thread);
    return {};
}

// Calls back when a descriptor is readable. There is one reactor for each purpose, since callbacks
// of one may wait for another: a callback may call the daemon, and a request may access lazy
// memory. Any thread.
class Reactor {
public:
    enum class Purpose { kControl, kCallbacks, kFaults };
    // Runs on the reactor's thread, without locks; `id` is that returned by add().
    using Ready = std::function<void(std::uint64_t id)>;

    static Reactor& of_process(Purpose purpose) {
        return detail::of_process(instances_[static_cast<std::size_t>(purpose)], purpose);
    }

    Reactor(std::uint64_t made_in, Purpose purpose) : epoch(made_in), purpose_(purpose) {}
    Reactor(const Reactor&) = delete;
    Reactor& operator=(const Reactor&) = delete;

    // Watches `fd`, and starts the thread if needed. With `once`, calls `ready` once until arm() is
    // called.
    Expected<std::uint64_t> add(int fd, Ready ready, bool once = false) {
        const std::scoped_lock hold(mutex_);
        if (auto started = start(); !started) return std::move(started).error();
        const std::uint64_t id = ++last_id_;
        const std::uint32_t events = EPOLLIN | (once ? EPOLLONESHOT : 0U);
        if (!control(EPOLL_CTL_ADD, fd, id, events)) return last_error(name());
        watches_[id] = std::make_shared<Watch>(Watch{fd, events, std::move(ready)});
        return id;
    }
    void arm(std::uint64_t id) {
        const std::scoped_lock hold(mutex_);
        if (const auto found = watches_.find(id); found != watches_.end())
            control(EPOLL_CTL_MOD, found->second->fd, id, found->second->events);
    }
    // Replaces the descriptor and the function of a watch. False if it was removed.
    bool replace(std::uint64_t id, int fd, Ready ready) {
        std::shared_ptr<Watch> ended;  // destroyed after the lock is gone
        const std::scoped_lock hold(mutex_);
        const auto found = watches_.find(id);
        if (found == watches_.end()) return false;
        ended = std::move(found->second);
        control(EPOLL_CTL_DEL, ended->fd, id, 0);
        control(EPOLL_CTL_ADD, fd, id, ended->events);
        found->second = std::make_shared<Watch>(Watch{fd, ended->events, std::move(ready)});
        return true;
    }
    // Ends a watch: no call starts after this, but one may be running. Call it while the descriptor
    // is open.
    void remove(std::uint64_t id) noexcept {
        if (epoch != process_epoch()) return;  // inherited by fork: no thread here
        std::shared_ptr<Watch> ended;
        const std::scoped_lock hold(mutex_);
        const auto found = watches_.find(id);
        if (found == watches_.end()) return;
        // Remove it explicitly: closing is not enough if other processes have the file open.
        control(EPOLL_CTL_DEL, found->second->fd, id, 0);
        ended = std::move(found->second);
        watches_.erase(found);
    }

    // Whether the calling thread is the reactor's.
    bool is_here() const noexcept { return running_ == this; }

    const std::uint64_t epoch;

private:
    struct Watch {
        int fd;
        std::uint32_t events;
        Ready ready;
    };

    inline static constinit std::array<std::atomic<Reactor*>, 3> instances_{};
    inline static constinit thread_local const Reactor* running_ = nullptr;

    const char* name() const noexcept {
        return purpose_ == Purpose::kControl     ? "ipcfs-control"
               : purpose_ == Purpose::kCallbacks ? "ipcfs-callbacks"
                                                 : "ipcfs-faults";
    }

    bool control(int operation, int fd, std::uint64_t id, std::uint32_t events) noexcept {
        epoll_event event{};
        event.events = events;
        event.data.u64 = id;
        return ::epoll_ctl(poll_.get(), operation, fd, &event) == 0;
    }

    // With the lock held.
    Expected<void> start() {
        if (started_) return {};
        poll_ = OwnFd(Fd(::epoll_create1(EPOLL_CLOEXEC)));
        if (!poll_) return last_error(name());
        auto started = start_thread(name(), name(), [this] { run(); });
        started_ = started.has_value();
        return started;
    }

    void run() {
        running_ = this;
        std::array<epoll_event, 64> events;
        while (true) {
            const int count = ::epoll_wait(poll_.get(), events.data(), events.size(), -1);
            for (int i = 0; i < count; ++i) {
                const std::uint64_t id = events[static_cast<std::size_t>(i)].data.u64;
                if (const auto watch = find(id)) watch->ready(id);
            }
        }
    }

    std::shared_ptr<Watch> find(std::uint64_t id) {
        const std::scoped_lock hold(mutex_);
        const auto found = watches_.find(id);
        return found == watches_.end() ? nullptr : found->second;
    }

    const Purpose purpose_;
    std::mutex mutex_;
    OwnFd poll_;
    bool started_ = false;
    std::uint64_t last_id_ = 0;
    std::map<std::uint64_t, std::shared_ptr<Watch>> watches_;
};

}  // namespace ipcfs::detail
