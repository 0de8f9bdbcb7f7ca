// The event loop: one Boost.Asio io_context, run by the main thread, for signals, timers and the
// control socket. It never blocks on a client and serves no FUSE request. "On the loop" means: on
// the thread in run().
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>

#include <base/clock.hpp>

namespace boost::asio {
class io_context;
}

namespace ipcfs::daemon {

class Loop {
public:
    Loop();
    ~Loop();
    Loop(const Loop&) = delete;
    Loop& operator=(const Loop&) = delete;

    // Calls `handle` on the loop for each SIGTERM, SIGINT and SIGHUP from now on. Call once, before
    // run().
    void on_signal(std::function<void(int signal)> handle);

    // Runs `work` on the loop. Any thread; work posted after the end never runs.
    void post(std::function<void()> work);

    // Runs `work` on the loop, once, `delay` from now. On the loop or before run().
    void after(Nanos delay, std::function<void()> work);

    // Runs the loop on the calling thread until stop().
    void run();
    void stop();  // any thread

    boost::asio::io_context& context();

private:
    struct State;
    std::unique_ptr<State> state_;
};

// Runs a queue of deadlines (base/timer_queue.hpp) by one timer of the loop, set to the earliest
// deadline. Kicks are coalesced: at most one wake-up is pending. The loop must outlive the pump;
// the queue must outlive the pump or its detach().
class TimerPump {
public:
    TimerPump(Loop& loop, const Clock& clock);
    ~TimerPump();
    TimerPump(const TimerPump&) = delete;
    TimerPump& operator=(const TimerPump&) = delete;

    // Returns a function to call, on any thread, when an earlier deadline appears. It may outlive
    // the pump but not the loop.
    std::function<void()> kick() const;

    // Before the loop runs, or on the loop.
    template <class Queue>
    void attach(Queue& queue) {
        attach([&queue] { return queue.next(); }, [&queue](Nanos now) { queue.run(now); });
    }
    void attach(std::function<std::optional<Nanos>()> next, std::function<void(Nanos now)> run);
    // On the loop, or after it has ended.
    void detach();

private:
    struct State;
    std::shared_ptr<State> state_;
};

}  // namespace ipcfs::daemon
