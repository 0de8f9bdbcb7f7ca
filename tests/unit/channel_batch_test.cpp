// The gate of batches: messages become readable many at a time, or when the first has waited.
#include "engine_fixture.hpp"

namespace ipcfs::channel {
namespace {

using queue::kHigh;
using queue::kLow;

TEST(Batches, AreHeldBackUntilThereAreEnough) {
    World world;
    auto jobs = world.channel("type batch\nbatch 3 10s\n");
    world.push_all(*jobs, {"a", "b"});
    EXPECT_EQ(next(*jobs), "(empty)");
    EXPECT_EQ(jobs->snapshot().ready, 0U);
    EXPECT_EQ(jobs->snapshot().depth, 2U);
    world.push(*jobs, "c");
    EXPECT_EQ(jobs->snapshot().ready, 3U);
    EXPECT_EQ(next(*jobs), "a");
    world.push(*jobs, "d");
    EXPECT_EQ(drain(*jobs), (Texts{"b", "c"})) << "d waits for its own batch";
    world.push_all(*jobs, {"e", "f"});
    EXPECT_EQ(drain(*jobs), (Texts{"d", "e", "f"}));
}

TEST(Batches, AreLetOutWhenTheFirstHasWaitedForTheDelay) {
    World world;
    auto jobs = world.channel("batch 64 5ms\n");
    world.push(*jobs, "a");
    world.advance(4 * kMillisecond);
    world.push(*jobs, "b");
    world.advance(kMillisecond - 1);
    EXPECT_EQ(next(*jobs), "(empty)");
    const std::uint64_t rings = world.bell.rings();
    world.advance(1);
    EXPECT_EQ(world.bell.rings(), rings + 1) << "whoever waits for inotify could not read before";
    EXPECT_EQ(drain(*jobs), (Texts{"a", "b"}));
    world.push(*jobs, "c");
    world.advance(5 * kMillisecond - 1);
    EXPECT_EQ(next(*jobs), "(empty)");
    world.advance(1);
    EXPECT_EQ(next(*jobs), "c");
}

TEST(Batches, WakeReadersAndPollsTogether) {
    World world;
    auto jobs = world.channel("batch 2 1s\n");
    Reader first, second;
    jobs->take(first);
    jobs->take(second);
    PollSlot slot;
    int woken = 0;
    EXPECT_EQ(jobs->poll(slot, std::make_unique<CountingTicket>(woken, POLLIN)), unsigned{POLLOUT});
    world.push(*jobs, "a");
    EXPECT_TRUE(first.waits());
    EXPECT_EQ(jobs->poll(slot, std::make_unique<CountingTicket>(woken, POLLIN)), unsigned{POLLOUT});
    queue::Batch two = world.batch(Texts{"b", "c"});
    EXPECT_EQ(jobs->try_push(two, queue::Via::kOther, false, nullptr), Push::kQueued);
    ASSERT_TRUE(first.done() && second.done());
    EXPECT_EQ(woken, 1);
    EXPECT_EQ(drain(*jobs), Texts{"c"});
    jobs->delivered(*first.message);
    jobs->delivered(*second.message);
}

TEST(Batches, KeepPrioritiesAndFairness) {
    World world;
    auto jobs = world.channel("batch 4 1s\nschedule fair\n");
    world.push(*jobs, "low", kLow);
    world.push(*jobs, "low", kLow);
    world.push(*jobs, "high", kHigh);
    world.push(*jobs, "high", kHigh);
    EXPECT_EQ(drain(*jobs), (Texts{"high", "low", "high", "low"}));
}

TEST(Batches, OfWhatExpiresMeanwhileLetOutTheRest) {
    World world;
    auto jobs = world.channel("batch 3 10s\nttl 1s\n");
    world.push_all(*jobs, {"a", "b"});
    world.advance(2 * kSecond);
    EXPECT_EQ(jobs->snapshot().depth, 0U);
    EXPECT_EQ(jobs->snapshot().counters.expired, 2U);
    world.push_all(*jobs, {"c", "d"});
    EXPECT_EQ(next(*jobs), "(empty)");
    world.push(*jobs, "e");
    EXPECT_EQ(drain(*jobs), (Texts{"c", "d", "e"}));
}

TEST(Batches, DoNotWaitForMoreThanFitsBelowTheHighMark) {
    World world;
    auto jobs = world.channel("batch 64 1h\ncapacity 10\n");
    for (int i = 0; i < 8; ++i) ASSERT_EQ(world.push(*jobs, "a"), Push::kQueued);
    EXPECT_EQ(jobs->snapshot().state, State::kPaused);
    EXPECT_EQ(drain(*jobs).size(), 8U);
    EXPECT_EQ(world.push(*jobs, "a"), Push::kQueued);
}

TEST(Batches, LetWaitingWritersInWhenReadersTakeMoreThanCame) {
    World world;
    auto jobs = world.channel("batch 2 1s\ncapacity 4\nhigh-watermark 100\nlow-watermark 50\n");
    Reader readers[4];
    for (Reader& reader : readers) jobs->take(reader);
    world.push(*jobs, "1");
    Writer large;  // does not fit beside the first one
    large.batch = world.batch(Texts{"2", "3", "4", "5"});
    jobs->push(large, nullptr);
    EXPECT_TRUE(large.waits());
    world.advance(kSecond);
    EXPECT_TRUE(large.done());
    for (Reader& reader : readers) {
        ASSERT_TRUE(reader.done());
        jobs->delivered(*reader.message);
    }
    world.advance(kSecond);
    EXPECT_EQ(drain(*jobs), Texts{"5"});
}

TEST(Batches, AreLeasedAsTheyAreRead) {
    World world;
    auto jobs = world.channel("type batch\nbatch 2 1s\n");
    world.push(*jobs, "a");
    queue::MessageRef message;
    Leased lease;
    EXPECT_EQ(jobs->try_lease(message, lease, 1), Take::kEmpty);
    world.push(*jobs, "b");
    ASSERT_EQ(jobs->try_lease(message, lease, 1), Take::kTaken);
    EXPECT_EQ(next(*jobs), "b");
    // What was out before is not held back again.
    jobs->nack(lease.id, 0);
    EXPECT_EQ(next(*jobs), "a");
    ASSERT_EQ(next(*jobs), "(empty)");
}

TEST(Batches, FollowTheSetting) {
    World world;
    auto jobs = world.channel();
    world.push(*jobs, "a");
    ASSERT_TRUE(jobs->control("batch 3 1s\n"));
    world.push(*jobs, "b");
    EXPECT_EQ(drain(*jobs), Texts{"a"}) << "which could be read before";
    const std::uint64_t rings = world.bell.rings();
    ASSERT_TRUE(jobs->control("batch off\n"));
    EXPECT_EQ(world.bell.rings(), rings + 1);
    EXPECT_EQ(drain(*jobs), Texts{"b"});
    ASSERT_TRUE(jobs->control("batch 5 1h\n"));
    world.push_all(*jobs, {"c", "d"});
    ASSERT_TRUE(jobs->control("batch 2 1h\n"));
    EXPECT_EQ(drain(*jobs), (Texts{"c", "d"}));
}

TEST(Batches, AreForgottenByAPurge) {
    World world;
    auto jobs = world.channel("batch 2 1s\n");
    world.push(*jobs, "a");
    world.advance(900 * kMillisecond);
    ASSERT_TRUE(jobs->control("purge"));
    world.push(*jobs, "b");
    world.advance(200 * kMillisecond);
    EXPECT_EQ(next(*jobs), "(empty)") << "its time is its own";
    world.advance(800 * kMillisecond);
    EXPECT_EQ(next(*jobs), "b");
}

TEST(Batches, WaitWhileTheChannelIsPaused) {
    World world;
    auto jobs = world.channel("batch 2 1s\n");
    Reader reader;
    jobs->take(reader);
    world.push(*jobs, "a");
    ASSERT_TRUE(jobs->control("pause"));
    world.advance(2 * kSecond);
    EXPECT_TRUE(reader.waits());
    ASSERT_TRUE(jobs->control("resume"));
    ASSERT_TRUE(reader.done());
    jobs->delivered(*reader.message);
}

}  // namespace
}  // namespace ipcfs::channel
