// Deadlines of the whole engine in one heap. Whoever turns time (the daemon's io_context thread, or a
// test with a clock of its own) calls run(); everything else only arms. A timed object is held
// weakly: one that is gone is skipped. Thread-safe.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include <base/clock.hpp>
#include <base/guarded.hpp>

namespace ipcfs {

// Something with deadlines. on_time() runs on the thread that turns time, without any lock held; it
// looks at its own deadlines itself, so a spurious call is harmless.
class Timed {
public:
    virtual ~Timed() = default;
    virtual void on_time(Nanos now) noexcept = 0;
};

class TimerQueue {
public:
    // `kick` is called, on the arming thread, when a deadline earlier than all others appears.
    explicit TimerQueue(std::function<void()> kick = {}) : kick_(std::move(kick)) {}

    // Must be called before any thread arms.
    void set_kick(std::function<void()> kick) { kick_ = std::move(kick); }

    // Calls timed->on_time() at `deadline` (monotonic) or soon after.
    void arm(std::weak_ptr<Timed> timed, Nanos deadline);

    // The earliest deadline, if there is one.
    std::optional<Nanos> next() const;

    // Runs all that is due at `now`.
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
