// Waking once for many. Whoever ends many waits in a row holds a Burst; what has to wake a thread for
// each of them leaves that to its end, so that the thread is woken once and finds them all. Costs the
// first of them the time until the last; without it, a wake-up each (20 us where it crosses CPUs).
#pragma once

#include <memory>

#include <boost/container/static_vector.hpp>

namespace ipcfs {

class Burst {
public:
    // What can be woken late. Any thread.
    class Wakeable {
    public:
        virtual void wake() noexcept = 0;

    protected:
        ~Wakeable() = default;
    };

    // Of this thread, which does not wait for anything inside. Bursts nest: the outermost counts.
    Burst() noexcept : outer_(current_) {
        if (!outer_) current_ = this;
    }
    Burst(const Burst&) = delete;
    Burst& operator=(const Burst&) = delete;
    ~Burst() {
        if (outer_) return;
        current_ = nullptr;
        for (const auto& each : late_) each->wake();
    }

    // Wakes `who`: at the end of the thread's burst, at once where there is none.
    static void wake(const std::shared_ptr<Wakeable>& who) noexcept {
        if (!current_) return who->wake();
        auto& late = current_->late_;
        for (const auto& each : late) {
            if (each == who) return;
        }
        if (late.size() == late.capacity()) return who->wake();
        late.push_back(who);
    }

private:
    inline static thread_local Burst* current_ = nullptr;
    Burst* const outer_;
    boost::container::static_vector<std::shared_ptr<Wakeable>, 16> late_;
};

}  // namespace ipcfs
