// Messages that expire, and the timers behind all deadlines.
#include "engine_fixture.hpp"

namespace ipcfs::channel {
namespace {

using queue::kHigh;
using queue::kLow;
using queue::kNormal;
using queue::Via;
using queue::Wake;

TEST(Expiry, SweepsWhatNobodyTakes) {
    World world;
    auto jobs = world.channel("ttl 100ms\n");
    world.push_all(*jobs, {"a", "b"});
    world.advance(99 * kMillisecond);
    EXPECT_EQ(jobs->snapshot().depth, 2U);
    world.advance(kMillisecond);
    EXPECT_EQ(jobs->snapshot().depth, 0U);
    EXPECT_EQ(jobs->snapshot().counters.expired, 2U);
}

TEST(Expiry, NeverDeliversALateMessageEvenBeforeTheSweep) {
    World world;
    auto jobs = world.channel("ttl 100ms\n");
    world.push(*jobs, "old");
    world.clock.set(world.clock.monotonic() + 60 * kMillisecond);
    world.push(*jobs, "young");
    world.clock.set(world.clock.monotonic() + 40 * kMillisecond);  // the timers did not run
    EXPECT_EQ(drain(*jobs), Texts{"young"});
    EXPECT_EQ(jobs->snapshot().counters.expired, 1U);
}

TEST(Expiry, IsExactOnTheWayOutAlsoShortlyAfterASweep) {
    World world;
    auto jobs = world.channel("ttl 100ms\n");
    world.push(*jobs, "a");
    world.advance(5 * kMillisecond);
    world.push(*jobs, "b");
    world.advance(96 * kMillisecond);  // a is swept; the next sweep waits a while
    world.advance(5 * kMillisecond);
    EXPECT_EQ(next(*jobs), "(empty)");
}

TEST(Expiry, OfALaterMessageInABatchIsSeenByEachOfTheWaitingReaders) {
    World world;
    auto jobs = world.channel();
    Reader first, second;
    jobs->take(first);
    jobs->take(second);
    auto batch = world.batch(Texts{"good"});
    auto late = world.message("late");
    late->envelope.drop_when_late = true;
    late->envelope.deadline = world.clock.realtime() - 1;
    batch.add(late);
    ASSERT_EQ(jobs->try_push(batch, Via::kOther, false, nullptr), Push::kQueued);
    EXPECT_TRUE(first.done());
    EXPECT_TRUE(second.waits());
    world.push(*jobs, "next");
    EXPECT_EQ(text(second.message), "next");
}

TEST(Expiry, TheSendersDeadlineCountsOnlyWhereItSaysSo) {
    World world;
    auto jobs = world.channel();
    auto message = world.message("kept");
    message->envelope.deadline = world.clock.realtime() + kSecond;
    queue::Batch batch;
    batch.add(message);
    jobs->try_push(batch, Via::kOther, false, nullptr);
    message = world.message("dropped");
    message->envelope.deadline = world.clock.realtime() + kSecond;
    message->envelope.drop_when_late = true;
    batch.add(message);
    jobs->try_push(batch, Via::kOther, false, nullptr);
    message.reset();
    world.advance(kSecond);
    EXPECT_EQ(drain(*jobs), Texts{"kept"});
}

TEST(Expiry, TheEarlierOfTtlAndDeadlineCounts) {
    World world;
    auto jobs = world.channel("ttl 1s\n");
    queue::Batch batch = world.batch("a");
    batch.messages.front().envelope.deadline = world.clock.realtime() + 3 * kSecond;
    batch.messages.front().envelope.drop_when_late = true;
    jobs->try_push(batch, Via::kOther, false, nullptr);
    world.advance(kSecond);
    EXPECT_EQ(jobs->snapshot().depth, 0U);
}

TEST(Expiry, StillHoldsForAMessageThatWasGivenBack) {
    World world;
    auto jobs = world.channel("ttl 1s\n");
    world.push_all(*jobs, {"a", "b"});
    queue::MessageRef a;
    jobs->try_take(a);
    world.advance(2 * kSecond);  // b is swept: nothing else is to expire
    jobs->give_back(std::move(a));
    world.advance(100 * kMillisecond);
    EXPECT_EQ(jobs->snapshot().depth, 0U);
}

TEST(Expiry, ThatIsFoundByAReadLetsWaitingWritersIn) {
    World world;
    auto jobs = world.channel("ttl 1s\ncapacity 4\nhigh-watermark 50\n");
    world.push_all(*jobs, {"a", "b"});
    Writer writer;
    writer.batch = world.batch("c");
    jobs->push(writer, nullptr);
    ASSERT_TRUE(writer.waits());
    world.clock.set(world.clock.monotonic() + kSecond);
    EXPECT_EQ(next(*jobs), "(empty)");
    EXPECT_TRUE(writer.done());
    EXPECT_EQ(writer.why, Wake::kServed);
    EXPECT_EQ(next(*jobs), "c");
}

TEST(Expiry, ThatIsFoundByAPollLetsWaitingWritersIn) {
    World world;
    auto jobs = world.channel("ttl 1s\ncapacity 4\nhigh-watermark 50\n");
    world.push_all(*jobs, {"a", "b"});
    Writer writer;
    writer.batch = world.batch("c");
    jobs->push(writer, nullptr);
    world.clock.set(world.clock.monotonic() + kSecond);
    PollSlot slot;
    EXPECT_EQ(jobs->poll(slot, nullptr), unsigned{POLLIN | POLLOUT});
    EXPECT_TRUE(writer.done());
}

TEST(Expiry, OfASyncMessageEndsItsWriter) {
    World world;
    auto jobs = world.channel("type sync\nttl 1s\n");
    Writer writer;
    writer.batch = world.batch("a");
    jobs->push(writer, nullptr);
    world.advance(kSecond);
    EXPECT_TRUE(writer.done());
    EXPECT_EQ(writer.why, Wake::kTimedOut);
}

struct Counted final : Timed {
    void on_time(Nanos now) noexcept override {
        ++calls;
        last = now;
    }
    int calls = 0;
    Nanos last = 0;
};

TEST(TimerQueue, RunsWhatIsDueInOrderAndOnce) {
    TimerQueue timers;
    auto early = std::make_shared<Counted>(), late = std::make_shared<Counted>();
    timers.arm(late, 20);
    timers.arm(early, 10);
    EXPECT_EQ(timers.next(), 10);
    timers.run(9);
    EXPECT_EQ(early->calls, 0);
    timers.run(15);
    EXPECT_EQ(early->calls, 1);
    EXPECT_EQ(late->calls, 0);
    EXPECT_EQ(timers.next(), 20);
    timers.run(20);
    timers.run(100);
    EXPECT_EQ(early->calls + late->calls, 2);
    EXPECT_FALSE(timers.next());
}

TEST(TimerQueue, PassesOverWhatIsGone) {
    TimerQueue timers;
    auto gone = std::make_shared<Counted>();
    timers.arm(gone, 10);
    gone.reset();
    timers.run(10);
    EXPECT_FALSE(timers.next());
}

TEST(TimerQueue, KicksOnlyForADeadlineBeforeAllOthers) {
    int kicks = 0;
    TimerQueue timers([&] { ++kicks; });
    auto timed = std::make_shared<Counted>();
    timers.arm(timed, 10);
    timers.arm(timed, 20);
    timers.arm(timed, 10);
    EXPECT_EQ(kicks, 1);
    timers.arm(timed, 5);
    EXPECT_EQ(kicks, 2);
}

TEST(Timers, OfAChannelWithAFarDeadlineDoNotPileUpWithEachNearOne) {
    World world;
    auto jobs = world.channel("timeout 1s\n");
    ASSERT_TRUE(jobs->control("pause 10h\n"));
    for (int i = 0; i < 50; ++i) {
        ASSERT_TRUE(jobs->control("resume\npause 10h\n"));  // a writer's time counts from here
        Writer writer;
        writer.batch = world.batch("x");
        jobs->push(writer, nullptr);
        world.advance(kSecond);
        ASSERT_TRUE(writer.done());
    }
    // Each entry left would be one call at the end of the pause.
    int runs = 0;
    while (world.timers.next()) {
        world.clock.set(*world.timers.next());
        world.timers.run(world.clock.monotonic());
        ASSERT_LT(++runs, 60);
    }
    EXPECT_FALSE(jobs->snapshot().state == State::kPaused);
}

TEST(Timers, RestWhileAnOpenWaitsAtAChannelOnHold) {
    World world;
    auto jobs = world.channel("capacity 2\nhigh-watermark 50\n");
    WriteTicket first, second;
    ASSERT_EQ(jobs->try_gate(first), Gate::kOpen);
    Opener opener;
    jobs->gate(opener, second);
    ASSERT_TRUE(opener.waits());
    ASSERT_TRUE(jobs->control("pause\n"));
    world.advance(10 * kSecond);  // fails if they do not come to rest
    EXPECT_TRUE(opener.waits());
    ASSERT_TRUE(jobs->control("resume\n"));
    EXPECT_TRUE(opener.done());
    jobs->leave(first);
    jobs->leave(second);
}

}  // namespace
}  // namespace ipcfs::channel
