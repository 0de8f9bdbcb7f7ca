// Batches wake-ups. A thread that finishes many waiting operations in a row holds a Burst; each
// Wakeable that they touch is woken once, when the Burst ends, and then handles all of them. The
// first operation is delayed until the last is done; each saves a wake-up (20 us across CPUs).
#pragma once

#include <memory>

#include <boost/container/static_vector.hpp>

namespace ipcfs {

class Burst {
public:
    // Something whose wake-up may be deferred. wake() runs on any thread.
    class Wakeable {
    public:
        virtual void wake() noexcept = 0;

    protected:
        ~Wakeable() = default;
    };

    // A burst belongs to the thread that made it, which must not wait while holding it. Bursts
    // nest: only the outermost wakes.
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

    // Wakes `who` when this thread's burst ends; at once if the thread has no burst, or if the
    // burst already defers 16 others.
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
