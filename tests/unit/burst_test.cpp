// Waking once for many.
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <base/burst.hpp>

namespace ipcfs {
namespace {

struct Sleeper final : Burst::Wakeable {
    void wake() noexcept override { ++woken; }
    int woken = 0;
};

TEST(Burst, WakesAtOnceWhereThereIsNone) {
    auto sleeper = std::make_shared<Sleeper>();
    Burst::wake(sleeper);
    Burst::wake(sleeper);
    EXPECT_EQ(sleeper->woken, 2);
}

TEST(Burst, WakesEachOnceAtItsEnd) {
    auto one = std::make_shared<Sleeper>();
    auto other = std::make_shared<Sleeper>();
    {
        const Burst burst;
        for (int i = 0; i < 10; ++i) Burst::wake(one);
        Burst::wake(other);
        EXPECT_EQ(one->woken + other->woken, 0);
    }
    EXPECT_EQ(one->woken, 1);
    EXPECT_EQ(other->woken, 1);
}

TEST(Burst, EndsWithTheOutermost) {
    auto sleeper = std::make_shared<Sleeper>();
    {
        const Burst outer;
        {
            const Burst inner;
            Burst::wake(sleeper);
        }
        EXPECT_EQ(sleeper->woken, 0);
        Burst::wake(sleeper);
    }
    EXPECT_EQ(sleeper->woken, 1);
    Burst::wake(sleeper);
    EXPECT_EQ(sleeper->woken, 2);
}

TEST(Burst, WakesAtOnceWhenItIsFull) {
    std::vector<std::shared_ptr<Sleeper>> all(40);
    for (auto& each : all) each = std::make_shared<Sleeper>();
    {
        const Burst burst;
        for (int twice = 0; twice < 2; ++twice) {
            for (auto& each : all) Burst::wake(each);
        }
    }
    for (auto& each : all) EXPECT_GE(each->woken, 1);
}

TEST(Burst, KeepsWhatItWakes) {
    auto sleeper = std::make_shared<Sleeper>();
    {
        const Burst burst;
        Burst::wake(sleeper);
        sleeper.reset();
    }
}

TEST(Burst, IsOfItsThread) {
    auto sleeper = std::make_shared<Sleeper>();
    const Burst burst;
    std::thread([&] { Burst::wake(sleeper); }).join();
    EXPECT_EQ(sleeper->woken, 1);
}

}  // namespace
}  // namespace ipcfs
