// The event loop: one Boost.Asio io_context, run by the main thread, for signals, timers and
// (later) sockets. Nothing here waits for a client, and no FUSE request is served by this thread.
// What is said to run "on the loop" runs on the thread in run().
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

    // Calls `handle` on the loop with each SIGTERM, SIGINT and SIGHUP from now on. Call it once,
    // before run().
    void on_signal(std::function<void(int signal)> handle);

    // Runs `work` on the loop. Any thread; what is posted after the end is never run.
    void post(std::function<void()> work);

    // Runs `work` on the loop, once, `delay` from now. On the loop or before run().
    void after(Nanos delay, std::function<void()> work);

    // Serves until stop(). The calling thread becomes the loop.
    void run();
    void stop();  // any thread

    boost::asio::io_context& context();

private:
    struct State;
    std::unique_ptr<State> state_;
};

// Turns a queue of deadlines (base/timer_queue.hpp) with one timer of the loop, set to the
// earliest. Kicks are coalesced: however many deadlines appear, at most one wake-up is on its way.
// The loop must outlive the pump; the queue must outlive the pump, or detach() comes first.
class TimerPump {
public:
    TimerPump(Loop& loop, const Clock& clock);
    ~TimerPump();
    TimerPump(const TimerPump&) = delete;
    TimerPump& operator=(const TimerPump&) = delete;

    // Call it when an earlier deadline appears; any thread. It outlives the pump harmlessly, but
    // not the loop.
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
