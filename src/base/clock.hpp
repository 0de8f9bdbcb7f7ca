// The clock is passed in, so that tests can set the time. All values are nanoseconds.
#pragma once

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
};

class SystemClock final : public Clock {
public:
    Nanos monotonic() const noexcept override {
        return std::chrono::steady_clock::now().time_since_epoch().count();
    }
    Nanos realtime() const noexcept override {
        return std::chrono::system_clock::now().time_since_epoch().count();
    }
};

}  // namespace ipcfs
