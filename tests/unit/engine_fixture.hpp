// Shared by tests of the engine: a clock that the test sets, a counting doorbell, waiters that
// record how they ended, and a World with everything that a channel needs.
#pragma once

#include <atomic>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <optional>
#include <poll.h>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include <channel/channel.hpp>
#include <channel/registry.hpp>

namespace ipcfs::channel {

// Thread-safe.
class ManualClock final : public Clock {
public:
    static constexpr Nanos kEpoch = 1'700'000'000 * kSecond;
    Nanos monotonic() const noexcept override { return now_.load(); }
    Nanos realtime() const noexcept override { return kEpoch + now_.load() + stepped_.load(); }
    void set(Nanos now) noexcept { now_.store(now); }
    // Simulates setting the real-time clock.
    void step(Nanos by) noexcept { stepped_ += by; }

private:
    std::atomic<Nanos> now_{kSecond};
    std::atomic<Nanos> stepped_{0};
};

class CountingBell final : public Doorbell {
public:
    void ring(Channel&, Target target) noexcept override {
        ++(target == Target::kQueue ? queue : next);
    }
    void refresh(Channel&) noexcept override {}
    std::uint64_t rings() const { return queue + next; }
    std::atomic<std::uint64_t> queue{0}, next{0};
};

// A waiter that counts how often it was finished; `why` has the result.
template <class W>
class Recorded final : public W {
public:
    void finish() noexcept override { ++finished; }
    bool done() const { return finished.load() == 1; }
    bool waits() const { return finished.load() == 0; }
    std::atomic<int> finished{0};
};
using Reader = Recorded<queue::ReadWaiter>;
using Writer = Recorded<queue::WriteWaiter>;
using Opener = Recorded<OpenWaiter>;

class CountingTicket final : public PollTicket {
public:
    CountingTicket(int& notified, unsigned wanted) : notified_(notified) { events = wanted; }
    void notify() noexcept override { ++notified_; }

private:
    int& notified_;
};

struct World {
    ManualClock clock;
    TimerQueue timers;
    queue::MessagePool pool;
    access::Ledger ledger;
    CountingBell bell;
    Environment env{clock, timers, pool, ledger};

    World() { env.bell.connect(&bell); }

    std::shared_ptr<Channel> channel(std::string_view settings = {}) {
        auto control = parse_control(settings, Settings{});
        EXPECT_TRUE(control) << control.error().operation;
        return std::make_shared<Channel>(env, 1, control->settings);
    }
    queue::MessageRef message(std::string_view body, std::uint8_t priority = queue::kNormal) {
        queue::MessageRef made = pool.make({}, std::as_bytes(std::span(body)));
        made->envelope.priority = priority;
        return made;
    }
    queue::Batch batch(std::string_view body, std::uint8_t priority = queue::kNormal) {
        queue::Batch made;
        made.add(message(body, priority));
        return made;
    }
    queue::Batch batch(const std::vector<std::string>& bodies,
                       std::uint8_t priority = queue::kNormal) {
        queue::Batch made;
        for (const std::string& body : bodies) made.add(message(body, priority));
        return made;
    }
    Push push(Channel& to, std::string_view body, std::uint8_t priority = queue::kNormal,
              queue::Via via = queue::Via::kOther) {
        queue::Batch one = batch(body, priority);
        return to.try_push(one, via, false, nullptr);
    }
    void push_all(Channel& to, const std::vector<std::string>& bodies,
                  std::uint8_t priority = queue::kNormal) {
        for (const std::string& body : bodies) {
            ASSERT_EQ(push(to, body, priority), Push::kQueued) << body;
        }
    }
    // Advances time, stopping at every deadline.
    void advance(Nanos by) {
        const Nanos end = clock.monotonic() + by;
        for (int guard = 0; guard < 100'000; ++guard) {
            auto next = timers.next();
            if (!next || *next > end) {
                clock.set(end);
                return;
            }
            clock.set(std::max(*next, clock.monotonic()));
            timers.run(clock.monotonic());
        }
        FAIL() << "the timers never come to rest";
    }
};

inline std::string text(const queue::Message& message) {
    auto body = message.body();
    return {reinterpret_cast<const char*>(body.data()), body.size()};
}
inline std::string text(const queue::MessageRef& message) {
    return message ? text(*message) : "(none)";
}

// Takes and delivers the next message; returns its body, "(empty)", "(removed)" or "(ended)".
inline std::string next(Channel& from) {
    queue::MessageRef message;
    switch (from.try_take(message)) {
        case Take::kEmpty: return "(empty)";
        case Take::kRemoved: return "(removed)";
        case Take::kEnded: return "(ended)";
        default: from.delivered(*message); return text(message);
    }
}
inline std::vector<std::string> drain(Channel& from) {
    std::vector<std::string> all;
    for (std::string one = next(from); one != "(empty)" && one != "(removed)"; one = next(from)) {
        all.push_back(one);
    }
    return all;
}

using Texts = std::vector<std::string>;

// The seed of random tests: IPCFS_TEST_SEED, or a random one. Printed when a test fails.
inline bool has_lease(Channel& channel, std::uint64_t lease) {
    std::scoped_lock hold(channel.core().mutex);
    return channel.core().backlog.leases.find(lease) != nullptr;
}

inline std::uint64_t test_seed() {
    const char* given = std::getenv("IPCFS_TEST_SEED");
    static const std::uint64_t seed =
        given ? std::strtoull(given, nullptr, 0) : std::random_device{}();
    return seed;
}

}  // namespace ipcfs::channel
