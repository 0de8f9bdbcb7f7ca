// The clock is passed in, so that tests can set the time. All values are nanoseconds.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace ipcfs {

using Nanos = std::int64_t;
constexpr Nanos kMicrosecond = 1'000;
constexpr Nanos kMillisecond = 1'000'000;
constexpr Nanos kSecond = 1'000'000'000;
constexpr Nanos kNever = INT64_MAX;

// Thread-safe.
class Clock {
public:
    virtual ~Clock() = default;
    virtual Nanos monotonic() const noexcept = 0;  // for intervals and deadlines
    virtual Nanos realtime() const noexcept = 0;   // since the Unix epoch, for people
    // realtime() at a monotonic time that was just read; a step of the clock may show 10 ms late.
    virtual Nanos realtime_at(Nanos) const noexcept { return realtime(); }
};

class SystemClock final : public Clock {
public:
    Nanos monotonic() const noexcept override {
        return std::chrono::steady_clock::now().time_since_epoch().count();
    }
    Nanos realtime() const noexcept override {
        return std::chrono::system_clock::now().time_since_epoch().count();
    }
    // A clock read costs as much as the rest of a message's way through a channel: this is an addition.
    Nanos realtime_at(Nanos now) const noexcept override {
        if (now - looked_.load(std::memory_order_relaxed) >= kLookPeriod) look();
        return now + epoch_.load(std::memory_order_relaxed);
    }

private:
    static constexpr Nanos kLookPeriod = 10 * kMillisecond;
    // Reads both clocks at one moment. What interrupts the thread in between makes it try again.
    void look() const noexcept {
        Nanos before = 0, real = 0, after = monotonic();
        for (int i = 0; i < 4; ++i) {
            before = after;
            real = realtime();
            after = monotonic();
            if (after - before < kMicrosecond) break;
        }
        epoch_.store(real - before - (after - before) / 2, std::memory_order_relaxed);
        looked_.store(after, std::memory_order_relaxed);
    }
    mutable std::atomic<Nanos> epoch_{0};              // real time less monotonic time
    mutable std::atomic<Nanos> looked_{-kLookPeriod};  // when that was found
};

}  // namespace ipcfs
