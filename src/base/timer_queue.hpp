// All deadlines of the engine, in one heap. Any thread arms a deadline; one thread (the daemon's
// io_context thread, or a test with its own clock) calls run(). The queue holds objects weakly and
// skips those that are gone. Thread-safe.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include <base/clock.hpp>
#include <base/guarded.hpp>

namespace ipcfs {

// An object with deadlines. run() calls on_time() without holding a lock. The object compares `now`
// with its own deadlines, so a spurious call is harmless.
class Timed {
public:
    virtual ~Timed() = default;
    virtual void on_time(Nanos now) noexcept = 0;
};

class TimerQueue {
public:
    // `kick` is called on the arming thread when the new deadline is the earliest.
    explicit TimerQueue(std::function<void()> kick = {}) : kick_(std::move(kick)) {}

    // Must be called before any thread arms.
    void set_kick(std::function<void()> kick) { kick_ = std::move(kick); }

    // Calls timed->on_time() at `deadline` (monotonic) or soon after.
    void arm(std::weak_ptr<Timed> timed, Nanos deadline);

    // The earliest deadline; empty if none is armed.
    std::optional<Nanos> next() const;

    // Calls on_time() of every object whose deadline is `now` or earlier.
    void run(Nanos now);

private:
    struct Entry {
        Nanos deadline;
        std::weak_ptr<Timed> timed;
        bool operator<(const Entry& other) const { return deadline > other.deadline; }
    };
    Guarded<std::vector<Entry>> heap_;
    std::function<void()> kick_;
};

}  // namespace ipcfs
