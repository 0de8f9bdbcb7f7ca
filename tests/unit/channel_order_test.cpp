// Which message comes next: priorities, the two schedules, batches, readers that wait, give-backs.
#include "engine_fixture.hpp"

namespace ipcfs::channel {
namespace {

using queue::kCritical;
using queue::kHigh;
using queue::kLow;
using queue::kNormal;
using queue::Wake;

TEST(Order, IsFirstInFirstOutWithinAPriority) {
    World world;
    auto jobs = world.channel();
    world.push_all(*jobs, {"a", "b", "c"});
    EXPECT_EQ(drain(*jobs), (Texts{"a", "b", "c"}));
    EXPECT_EQ(next(*jobs), "(empty)");
}

TEST(Order, PutsHigherPrioritiesFirst) {
    World world;
    auto jobs = world.channel();
    world.push(*jobs, "low", kLow);
    world.push(*jobs, "normal", kNormal);
    world.push(*jobs, "critical", kCritical);
    world.push(*jobs, "high", kHigh);
    world.push(*jobs, "one above low", 1);
    EXPECT_EQ(drain(*jobs), (Texts{"critical", "high", "normal", "one above low", "low"}));
}

TEST(Order, HasTwoHundredAndFiftySixLevels) {
    World world;
    auto jobs = world.channel();
    for (unsigned i = 0; i < 256; ++i) {
        const unsigned priority = i * 77 % 256;
        world.push(*jobs, std::to_string(priority), static_cast<std::uint8_t>(priority));
    }
    Texts expected;
    for (int i = 255; i >= 0; --i) expected.push_back(std::to_string(i));
    EXPECT_EQ(drain(*jobs), expected);
}

TEST(Order, FairServesEveryLevelByItsShare) {
    World world;
    auto jobs = world.channel("schedule fair\ncapacity 10000\n");
    for (int i = 0; i < 3000; ++i) {
        world.push(*jobs, "high", 255);  // a share of 16
        world.push(*jobs, "low", 0);     // of 1
    }
    int low = 0, since = 0, longest = 0;
    for (int i = 0; i < 1700; ++i) {
        const bool is_low = next(*jobs) == "low";
        low += is_low;
        since = is_low ? 0 : since + 1;
        longest = std::max(longest, since);
    }
    EXPECT_EQ(low, 100);
    EXPECT_LE(longest, 16);
}

TEST(Order, FairDoesNotStarveTheLowestUnderASteadyFlowOfTheHighest) {
    World world;
    auto jobs = world.channel("schedule fair\n");
    world.push(*jobs, "low", 0);
    for (int i = 0; i < 40; ++i) {
        world.push(*jobs, "high", 255);
        if (next(*jobs) == "low") return;
    }
    FAIL() << "the low one never came";
}

TEST(Order, FairGivesALevelThatWasIdleNoArrears) {
    World world;
    auto jobs = world.channel("schedule fair\ncapacity 10000\n");
    for (int i = 0; i < 1000; ++i) {
        world.push(*jobs, "busy", 200);
        next(*jobs);
    }
    for (int i = 0; i < 100; ++i) {
        world.push(*jobs, "idle till now", 200 - 16);
        world.push(*jobs, "busy", 200);
    }
    int late = 0;
    for (int i = 0; i < 20; ++i) late += next(*jobs) == "idle till now";
    EXPECT_GE(late, 7);
    EXPECT_LE(late, 12);
}

TEST(Order, FairKeepsFirstInFirstOutWithinALevel) {
    World world;
    auto jobs = world.channel("schedule fair\n");
    for (int i = 0; i < 20; ++i) {
        world.push(*jobs, "a" + std::to_string(i), 10);
        world.push(*jobs, "b" + std::to_string(i), 240);
    }
    int a = 0, b = 0;
    for (const std::string& one : drain(*jobs)) {
        EXPECT_EQ(one.substr(1), std::to_string(one[0] == 'a' ? a++ : b++));
    }
}

TEST(Order, KeepsABatchTogetherAndStampsItInOrder) {
    World world;
    auto jobs = world.channel();
    auto batch = world.batch(Texts{"a", "b", "c"});
    ASSERT_EQ(jobs->try_push(batch, queue::Via::kOther, false, nullptr), Push::kQueued);
    EXPECT_EQ(batch.count, 0U);
    auto listed = jobs->list();
    ASSERT_EQ(listed.size(), 3U);
    for (std::size_t i = 0; i < 3; ++i) {
        EXPECT_EQ(listed[i].envelope.sequence, i + 1);
        EXPECT_EQ(listed[i].envelope.time, world.clock.realtime());
    }
    EXPECT_NE(listed[0].envelope.id, listed[1].envelope.id);
    EXPECT_EQ(drain(*jobs), (Texts{"a", "b", "c"}));
}

TEST(Order, ServesWaitingReadersFirstComeFirstServed) {
    World world;
    auto jobs = world.channel();
    Reader first, second, third;
    jobs->take(first);
    jobs->take(second);
    jobs->take(third);
    EXPECT_TRUE(first.waits());
    world.push_all(*jobs, {"a", "b"});
    EXPECT_TRUE(first.done() && second.done() && third.waits());
    EXPECT_EQ(text(first.message), "a");
    EXPECT_EQ(text(second.message), "b");
    world.push(*jobs, "c");
    EXPECT_EQ(text(third.message), "c");
}

TEST(Order, GivesAnInterruptedReadersMessageToTheNextReader) {
    World world;
    auto jobs = world.channel();
    Reader first, second;
    jobs->take(first);
    jobs->take(second);
    jobs->cancel(first, Wake::kInterrupted);
    EXPECT_TRUE(first.done());
    EXPECT_EQ(first.why, Wake::kInterrupted);
    world.push(*jobs, "a");
    EXPECT_EQ(text(second.message), "a");
    EXPECT_FALSE(first.message);
}

TEST(Order, ACancelThatComesBeforeTheReaderWaitsTakesEffectThen) {
    World world;
    auto jobs = world.channel();
    world.push(*jobs, "a");
    Reader reader;
    jobs->cancel(reader, Wake::kInterrupted);
    EXPECT_TRUE(reader.waits());
    jobs->take(reader);
    EXPECT_TRUE(reader.done());
    EXPECT_EQ(reader.why, Wake::kInterrupted);
    EXPECT_EQ(next(*jobs), "a");
}

TEST(Order, ACancelAfterTheMessageCameChangesNothing) {
    World world;
    auto jobs = world.channel();
    Reader reader;
    jobs->take(reader);
    world.push(*jobs, "a");
    jobs->cancel(reader, Wake::kInterrupted);
    EXPECT_TRUE(reader.done());
    EXPECT_EQ(reader.why, Wake::kServed);
}

TEST(Order, AMessageGivenBackIsTheNextOfItsLevelAgainAndFlagged) {
    World world;
    auto jobs = world.channel();
    world.push_all(*jobs, {"a", "b"});
    queue::MessageRef taken;
    ASSERT_EQ(jobs->try_take(taken), Take::kTaken);
    EXPECT_FALSE(taken->envelope.redelivered);
    jobs->give_back(std::move(taken));
    EXPECT_TRUE(jobs->list()[0].envelope.redelivered);
    EXPECT_FALSE(jobs->list()[1].envelope.redelivered);
    EXPECT_EQ(drain(*jobs), (Texts{"a", "b"}));
}

TEST(Order, SeveralGivenBackInAnyOrderComeInTheirOwn) {
    World world;
    auto jobs = world.channel();
    world.push_all(*jobs, {"a", "b", "c", "d"});
    queue::MessageRef a, b, c;
    jobs->try_take(a);
    jobs->try_take(b);
    jobs->try_take(c);
    jobs->give_back(std::move(a));
    jobs->give_back(std::move(c));
    jobs->give_back(std::move(b));
    EXPECT_EQ(drain(*jobs), (Texts{"a", "b", "c", "d"}));
}

TEST(Order, AMessageGivenBackGoesToAReaderThatWaits) {
    World world;
    auto jobs = world.channel();
    world.push(*jobs, "a");
    queue::MessageRef taken;
    jobs->try_take(taken);
    Reader reader;
    jobs->take(reader);
    jobs->give_back(std::move(taken));
    EXPECT_TRUE(reader.done());
    EXPECT_EQ(text(reader.message), "a");
}

TEST(Order, MeasuresFromEnqueueingToDequeueing) {
    World world;
    auto jobs = world.channel();
    world.push(*jobs, "a");
    world.advance(5 * kMillisecond);
    EXPECT_EQ(jobs->snapshot().oldest_age, 5 * kMillisecond);
    next(*jobs);
    auto now = jobs->snapshot();
    EXPECT_EQ(now.latency.count(), 1U);
    EXPECT_EQ(now.latency.max(), 5U * kMillisecond);
    EXPECT_EQ(now.oldest_age, 0);
    EXPECT_EQ(now.last_delivery, world.clock.realtime());
}

}  // namespace
}  // namespace ipcfs::channel
