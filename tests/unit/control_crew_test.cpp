// The crew: a job that hangs costs a thread, and nobody else anything.
#include <atomic>
#include <future>
#include <memory>
#include <thread>
#include <vector>

#include <control/crew.hpp>
#include <gtest/gtest.h>

namespace ipcfs::control {
namespace {

constexpr std::chrono::seconds kPatience{20};

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

std::future<void> mark(Crew& crew, uid_t uid) {
    auto done = std::make_shared<std::promise<void>>();
    auto future = done->get_future();
    crew.add(uid, [done] { done->set_value(); });
    return future;
}
bool comes(const std::future<void>& what) {
    return what.wait_for(kPatience) == std::future_status::ready;
}

TEST(ControlCrew, RunsJobsInTheirOrder) {
    Crew crew;
    std::vector<int> order;
    for (int i = 0; i < 100; ++i) crew.add(1, [&order, i] { order.push_back(i); });
    ASSERT_TRUE(comes(mark(crew, 1)));
    ASSERT_EQ(order.size(), 100u);
    for (int i = 0; i < 100; ++i) EXPECT_EQ(order[static_cast<std::size_t>(i)], i);
}

TEST(ControlCrew, RunsWhatIsLeftAtItsEnd) {
    std::atomic<int> ran{0};
    {
        Crew crew;
        for (int i = 0; i < 50; ++i) crew.add(1, [&ran] { ++ran; });
    }
    EXPECT_EQ(ran, 50);
}

TEST(ControlCrew, GoesOnBesideAJobThatHangs) {
    Hang hang;
    Crew crew;
    crew.add(1, hang.job());
    ASSERT_TRUE(hang.wait_entered(1));
    EXPECT_TRUE(comes(mark(crew, 2)));
    EXPECT_TRUE(comes(mark(crew, 1))) << "one stuck job is not the end of its user";
    EXPECT_EQ(crew.stuck(), 1u);
    EXPECT_FALSE(crew.is_overloaded(1));
}

TEST(ControlCrew, LetsAUserHaveOnlySoManyStuckThreads) {
    Hang hang;
    Crew crew;
    for (int i = 0; i < 5; ++i) crew.add(1, hang.job());
    auto behind = mark(crew, 1);
    ASSERT_TRUE(hang.wait_entered(static_cast<int>(Crew::kMaxStuck)));
    EXPECT_TRUE(comes(mark(crew, 2))) << "another user's";
    EXPECT_TRUE(crew.is_overloaded(1));
    EXPECT_FALSE(crew.is_overloaded(2));
    EXPECT_EQ(hang.entered(), static_cast<int>(Crew::kMaxStuck));
    EXPECT_EQ(behind.wait_for(std::chrono::seconds(0)), std::future_status::timeout);
}

TEST(ControlCrew, GoesOnWithAUsersJobsOnceTheyAreNoLongerStuck) {
    Crew crew;
    std::future<void> behind;
    {
        Hang hang;
        for (unsigned i = 0; i < Crew::kMaxStuck; ++i) crew.add(1, hang.job());
        behind = mark(crew, 1);
        ASSERT_TRUE(hang.wait_entered(static_cast<int>(Crew::kMaxStuck)));
        ASSERT_TRUE(comes(mark(crew, 2)));
    }
    EXPECT_TRUE(comes(behind));
    EXPECT_FALSE(crew.is_overloaded(1));
}

TEST(ControlCrew, EndsWithoutItsStuckThreads) {
    Hang hang;
    {
        Crew crew;
        crew.add(1, hang.job());
        ASSERT_TRUE(hang.wait_entered(1));
    }
    EXPECT_EQ(hang.entered(), 1);
}

}  // namespace
}  // namespace ipcfs::control
