// Executors: a job that hangs costs a thread, and nobody else anything; users take turns.
#include <atomic>
#include <future>
#include <memory>
#include <sched.h>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <base/executor.hpp>

namespace ipcfs {
namespace {

constexpr std::chrono::seconds kPatience{20};
constexpr unsigned kUserJobs = 2;
constexpr Executor::Limits kLimits{
    .threads = 8, .user_jobs = kUserJobs, .patience = 100 * kMillisecond, .may_abandon = true};

// A job that hangs until it is let go.
class Hang {
public:
    std::function<void()> job() {
        return [state = state_] {
            ++state->entered;
            state->over.wait();
        };
    }
    bool wait_entered(int count) const {
        const auto deadline = std::chrono::steady_clock::now() + kPatience;
        while (state_->entered < count) {
            if (std::chrono::steady_clock::now() > deadline) return false;
            std::this_thread::yield();
        }
        return true;
    }
    int entered() const { return state_->entered; }
    ~Hang() { state_->promise.set_value(); }

private:
    struct State {
        std::promise<void> promise;
        std::shared_future<void> over{promise.get_future()};
        std::atomic<int> entered{0};
    };
    std::shared_ptr<State> state_ = std::make_shared<State>();
};

std::future<void> mark(Executor& executor, uid_t uid) {
    auto done = std::make_shared<std::promise<void>>();
    auto future = done->get_future();
    executor.add(uid, [done] { done->set_value(); });
    return future;
}
bool comes(const std::future<void>& what) {
    return what.wait_for(kPatience) == std::future_status::ready;
}

TEST(ExecutorJobs, RunsJobsInTheirOrder) {
    Executor executor("test", kLimits);
    std::vector<int> order;
    for (int i = 0; i < 100; ++i) executor.add(1, [&order, i] { order.push_back(i); });
    ASSERT_TRUE(comes(mark(executor, 1)));
    ASSERT_EQ(order.size(), 100u);
    for (int i = 0; i < 100; ++i) EXPECT_EQ(order[static_cast<std::size_t>(i)], i);
}

TEST(ExecutorJobs, RunsWhatIsLeftAtItsEnd) {
    std::atomic<int> ran{0};
    {
        Executor executor("test", kLimits);
        for (int i = 0; i < 50; ++i) executor.add(1, [&ran] { ++ran; });
    }
    EXPECT_EQ(ran, 50);
}

TEST(ExecutorJobs, GoesOnBesideAJobThatHangs) {
    Hang hang;
    Executor executor("test", kLimits);
    executor.add(1, hang.job());
    ASSERT_TRUE(hang.wait_entered(1));
    EXPECT_TRUE(comes(mark(executor, 2)));
    EXPECT_TRUE(comes(mark(executor, 1))) << "one stuck job is not the end of its user";
    EXPECT_EQ(executor.stuck(), 1u);
    EXPECT_FALSE(executor.is_overloaded(1));
}

TEST(ExecutorJobs, LetsAUserHaveOnlySoManyStuckThreads) {
    Hang hang;
    Executor executor("test", kLimits);
    for (int i = 0; i < 5; ++i) executor.add(1, hang.job());
    auto behind = mark(executor, 1);
    ASSERT_TRUE(hang.wait_entered(static_cast<int>(kUserJobs)));
    EXPECT_TRUE(comes(mark(executor, 2))) << "another user's";
    EXPECT_TRUE(executor.is_overloaded(1));
    EXPECT_FALSE(executor.is_overloaded(2));
    EXPECT_EQ(hang.entered(), static_cast<int>(kUserJobs));
    EXPECT_EQ(behind.wait_for(std::chrono::seconds(0)), std::future_status::timeout);
}

TEST(ExecutorJobs, GoesOnWithAUsersJobsOnceTheyAreNoLongerStuck) {
    Executor executor("test", kLimits);
    std::future<void> behind;
    {
        Hang hang;
        for (unsigned i = 0; i < kUserJobs; ++i) executor.add(1, hang.job());
        behind = mark(executor, 1);
        ASSERT_TRUE(hang.wait_entered(static_cast<int>(kUserJobs)));
        ASSERT_TRUE(comes(mark(executor, 2)));
    }
    EXPECT_TRUE(comes(behind));
    EXPECT_FALSE(executor.is_overloaded(1));
}

TEST(ExecutorJobs, EndsWithoutItsStuckThreads) {
    Hang hang;
    {
        Executor executor("test", kLimits);
        executor.add(1, hang.job());
        ASSERT_TRUE(hang.wait_entered(1));
    }
    EXPECT_EQ(hang.entered(), 1);
}

TEST(ExecutorJobs, LetsUsersTakeTurns) {
    std::vector<uid_t> order;
    {
        Executor executor("test", {});
        Hang hang;
        executor.add(1, hang.job());
        ASSERT_TRUE(hang.wait_entered(1));
        for (const uid_t user : {1U, 1U, 1U, 2U, 2U, 3U})
            executor.add(user, [&order, user] { order.push_back(user); });
    }
    EXPECT_EQ(order, (std::vector<uid_t>{1, 2, 3, 1, 2, 1}));
}

TEST(ExecutorJobs, RunsAsManyAtATimeAsItMay) {
    Executor executor("test", {.threads = 4, .concurrency = 4, .user_jobs = 2});
    Hang hang;
    for (int i = 0; i < 5; ++i) executor.add(1, hang.job());
    for (int i = 0; i < 5; ++i) executor.add(2, hang.job());
    ASSERT_TRUE(hang.wait_entered(4));
    auto behind = mark(executor, 3);
    EXPECT_EQ(behind.wait_for(std::chrono::milliseconds(50)), std::future_status::timeout);
    EXPECT_EQ(hang.entered(), 4);
    EXPECT_TRUE(executor.is_busy(2));
    EXPECT_FALSE(executor.is_busy(3));
    EXPECT_EQ(executor.stuck(), 0u) << "nothing is stuck without patience";
}

TEST(ExecutorJobs, StartsAJobWhenItIsDue) {
    Executor executor("test", kLimits);
    const Nanos now = SystemClock().monotonic();
    std::atomic<Nanos> first{0}, second{0};
    executor.add(
        1, [&] { second = SystemClock().monotonic(); }, now + 60 * kMillisecond);
    executor.add(
        1, [&] { first = SystemClock().monotonic(); }, now + 20 * kMillisecond);
    EXPECT_TRUE(comes(mark(executor, 1))) << "what is not due holds nothing up";
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    while (second == 0 && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
    EXPECT_GE(first, now + 20 * kMillisecond);
    EXPECT_GE(second, now + 60 * kMillisecond);
    EXPECT_LE(first, second);
}

TEST(ExecutorJobs, StartsNoSecondThreadForJobsThatTheFirstDoesSoon) {
    TimerQueue timers;
    std::vector<std::thread::id> threads;
    Executor executor("test", {.threads = 4, .concurrency = 4, .user_jobs = 4, .timers = &timers});
    for (int i = 0; i < 1000; ++i)
        executor.add(1, [&threads] { threads.push_back(std::this_thread::get_id()); });
    ASSERT_TRUE(comes(mark(executor, 1)));
    ASSERT_EQ(threads.size(), 1000u);
    for (const auto& each : threads) EXPECT_EQ(each, threads.front());
}

TEST(ExecutorJobs, StartsAnotherThreadForAJobThatWaitsBehindOneThatHangs) {
    TimerQueue timers;
    Executor::Limits limits = kLimits;
    limits.timers = &timers;
    Hang hang;
    Executor executor("test", limits);
    executor.add(1, hang.job());
    ASSERT_TRUE(hang.wait_entered(1));
    const std::future<void> others[] = {mark(executor, 2), mark(executor, 1)};
    for (const auto& other : others) {
        const auto deadline = std::chrono::steady_clock::now() + kPatience;
        while (other.wait_for(std::chrono::milliseconds(1)) != std::future_status::ready) {
            ASSERT_LT(std::chrono::steady_clock::now(), deadline);
            timers.run(SystemClock().monotonic());
        }
    }
    EXPECT_EQ(executor.stuck(), 1u);
}

TEST(ExecutorJobs, IsNotLateForAJobThatIsAddedLast) {
    Executor executor("test", {.threads = 4, .concurrency = 4});
    const Nanos now = SystemClock().monotonic();
    for (uid_t user = 1; user <= 4; ++user) ASSERT_TRUE(comes(mark(executor, user)));
    auto done = std::make_shared<std::promise<void>>();
    auto early = done->get_future();
    for (int i = 0; i < 20; ++i)
        executor.add(
            1, [] {}, now + 3600 * kSecond);
    executor.add(
        1, [done] { done->set_value(); }, now + 20 * kMillisecond);
    EXPECT_TRUE(comes(early));
    executor.drop();
}

TEST(ExecutorJobs, RunsOnAllCpusAlsoWhenWhoAddsIsPinned) {
    cpu_set_t mine, theirs;
    ASSERT_EQ(::sched_getaffinity(0, sizeof mine, &mine), 0);
    Executor executor("test", {});
    std::thread pinned([&] {
        cpu_set_t one;
        CPU_ZERO(&one);
        for (int cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++cpu)
            if (CPU_ISSET(cpu, &mine)) CPU_SET(cpu, &one);
        ::sched_setaffinity(0, sizeof one, &one);
        executor.add(1, [&] { ::sched_getaffinity(0, sizeof theirs, &theirs); });
    });
    pinned.join();
    executor.finish();
    EXPECT_TRUE(CPU_EQUAL(&mine, &theirs));
}

TEST(ExecutorJobs, RunsAtItsEndWhatIsNotDueYet) {
    bool ran = false;
    {
        Executor executor("test", {});
        executor.add(
            1, [&ran] { ran = true; }, SystemClock().monotonic() + 3600 * kSecond);
    }
    EXPECT_TRUE(ran);
}

TEST(ExecutorJobs, DestroysWhatWaitsWhenItIsDropped) {
    auto kept = std::make_shared<int>(0);
    std::atomic<bool> over{false};
    Executor executor("test", {});
    executor.add(1, [&over] {
        while (!over) std::this_thread::yield();
    });
    for (int i = 0; i < 10; ++i) executor.add(1, [kept] { ++*kept; });
    executor.add(
        2, [kept] { ++*kept; }, SystemClock().monotonic() + 3600 * kSecond);
    std::thread ending([&] { executor.drop(); });
    while (kept.use_count() > 1) std::this_thread::yield();
    over = true;
    ending.join();
    EXPECT_EQ(*kept, 0);
    executor.add(1, [kept] { ++*kept; });
    EXPECT_EQ(kept.use_count(), 1) << "nothing is taken after the end";
}

TEST(ExecutorJobs, OverloadsAUserWhoseJobsWaitTooLong) {
    Executor executor("test", {});
    std::promise<void> promise;
    const std::shared_future<void> over = promise.get_future().share();
    executor.add(1, [over] { over.wait(); });
    for (std::size_t i = 0; i <= Executor::kTooManyWaiting + 1; ++i) executor.add(2, [] {});
    EXPECT_TRUE(executor.is_overloaded(2));
    EXPECT_FALSE(executor.is_overloaded(3));
    promise.set_value();
    EXPECT_TRUE(comes(mark(executor, 2)));
    EXPECT_FALSE(executor.is_overloaded(2));
}

}  // namespace
}  // namespace ipcfs
