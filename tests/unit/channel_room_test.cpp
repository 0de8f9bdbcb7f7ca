// Room: bounds, watermarks, the critical reserve, the overflow policies, writers that wait, the
// gate.
#include "engine_fixture.hpp"

namespace ipcfs::channel {
namespace {

using queue::kCritical;
using queue::kHigh;
using queue::kLow;
using queue::kNormal;
using queue::Via;
using queue::Wake;

// The high mark is 4, the low one 2.
constexpr const char* kSmall = "capacity 5\nhigh-watermark 80\nlow-watermark 40\n";

void write(Channel& to, World& world, Writer& writer, const std::string& body,
           std::uint8_t priority = kNormal, Via via = Via::kOther) {
    writer.batch = world.batch(body, priority);
    writer.via = via;
    to.push(writer, nullptr);
}

TEST(Room, TheHighMarkIsRoundedUp) {
    World world;
    auto jobs = world.channel("capacity 3\nhigh-watermark 50\nlow-watermark 0\n");
    EXPECT_EQ(world.push(*jobs, "a"), Push::kQueued);
    EXPECT_EQ(world.push(*jobs, "b"), Push::kQueued);
    EXPECT_EQ(world.push(*jobs, "c"), Push::kWait);
}

TEST(Room, AChannelOfOneTakesOne) {
    World world;
    auto jobs = world.channel("capacity 1\nlow-watermark 0\n");
    EXPECT_EQ(world.push(*jobs, "a"), Push::kQueued);
    EXPECT_EQ(world.push(*jobs, "b"), Push::kWait);
    EXPECT_EQ(next(*jobs), "a");
    EXPECT_EQ(world.push(*jobs, "b"), Push::kQueued);
}

TEST(Room, SendersPauseAtTheHighMarkUntilTheLowOne) {
    World world;
    auto jobs = world.channel(kSmall);
    world.push_all(*jobs, {"a", "b", "c", "d"});
    EXPECT_EQ(jobs->snapshot().state, State::kPaused);
    EXPECT_EQ(world.push(*jobs, "x"), Push::kWait);
    EXPECT_EQ(next(*jobs), "a");
    EXPECT_EQ(world.push(*jobs, "x"), Push::kWait);  // three left: not low yet
    EXPECT_EQ(next(*jobs), "b");
    EXPECT_EQ(jobs->snapshot().state, State::kOk);
    EXPECT_EQ(world.push(*jobs, "x"), Push::kQueued);
    EXPECT_EQ(jobs->snapshot().counters.pauses, 1U);
}

TEST(Room, TheReserveTakesCriticalMessagesUpToTheCapacity) {
    World world;
    auto jobs = world.channel(kSmall);
    world.push_all(*jobs, {"a", "b", "c", "d"});
    EXPECT_EQ(world.push(*jobs, "x", kHigh), Push::kWait);
    EXPECT_EQ(world.push(*jobs, "!", kCritical), Push::kQueued);
    EXPECT_EQ(world.push(*jobs, "!!", kCritical), Push::kWait);
    EXPECT_EQ(jobs->snapshot().depth, 5U);
}

TEST(Room, BytesBoundItAsMessagesDo) {
    World world;
    auto jobs = world.channel("bytes 100\nlow-watermark 20\n");
    EXPECT_EQ(world.push(*jobs, std::string(60, 'a')), Push::kQueued);
    EXPECT_EQ(world.push(*jobs, std::string(21, 'b')), Push::kWait);  // passes 80
    EXPECT_EQ(jobs->snapshot().state, State::kPaused);
    EXPECT_EQ(world.push(*jobs, std::string(40, 'c'), kCritical), Push::kQueued);
    EXPECT_EQ(world.push(*jobs, "d", kCritical), Push::kWait);
    EXPECT_EQ(jobs->snapshot().bytes, 100U);
}

TEST(Room, WhatPassesMaxMessageOrCanNeverFitIsTooLong) {
    World world;
    auto jobs = world.channel("capacity 2\nbytes 50\nmax-message 10\n");
    EXPECT_EQ(world.push(*jobs, std::string(11, 'x')), Push::kTooLong);
    EXPECT_EQ(world.push(*jobs, std::string(10, 'x')), Push::kQueued);
    auto three = world.batch(Texts{"a", "b", "c"});
    EXPECT_EQ(jobs->try_push(three, Via::kOther, true, nullptr), Push::kTooLong);
    EXPECT_EQ(three.count, 3U);
    EXPECT_EQ(jobs->snapshot().depth, 1U);
}

TEST(Room, ABatchLargerThanTheHighMarkIsAdmittedOnAnEmptyQueueOnly) {
    World world;
    auto jobs = world.channel(kSmall);
    world.push(*jobs, "a");
    auto five = world.batch(Texts{"1", "2", "3", "4", "5"});
    EXPECT_EQ(jobs->try_push(five, Via::kOther, false, nullptr), Push::kWait);
    EXPECT_EQ(five.count, 5U);
    EXPECT_EQ(next(*jobs), "a");
    EXPECT_EQ(jobs->try_push(five, Via::kOther, false, nullptr), Push::kQueued);
    EXPECT_EQ(jobs->snapshot().depth, 5U);
}

TEST(Room, AWaitingReaderTakesItWithoutAnyRoomNeeded) {
    World world;
    auto jobs = world.channel("capacity 1\nlow-watermark 0\n");
    Reader reader;
    jobs->take(reader);
    EXPECT_EQ(world.push(*jobs, "a"), Push::kQueued);
    EXPECT_EQ(world.push(*jobs, "b"), Push::kQueued);
    EXPECT_EQ(text(reader.message), "a");
}

TEST(Room, WaitingWritersAreLetInFirstComeFirstServed) {
    World world;
    auto jobs = world.channel(kSmall);
    world.push_all(*jobs, {"a", "b", "c", "d"});
    Writer first, second, third;
    write(*jobs, world, first, "1", kLow);
    write(*jobs, world, second, "2", kHigh);
    write(*jobs, world, third, "3");
    EXPECT_EQ(jobs->snapshot().waiting_writers, 3U);
    next(*jobs);
    EXPECT_TRUE(first.waits());
    next(*jobs);  // two left: room for two until the high mark
    EXPECT_TRUE(first.done() && second.done() && third.waits());
    EXPECT_EQ(drain(*jobs), (Texts{"2", "c", "d", "3", "1"}));
    EXPECT_TRUE(third.done());
}

TEST(Room, NobodyPassesAWriterThatWaits) {
    World world;
    auto jobs = world.channel("capacity 10\nlow-watermark 70\n");
    for (int i = 0; i < 8; ++i) world.push(*jobs, "x");
    Writer waiting;
    waiting.batch = world.batch(Texts{"1", "2", "3"});
    jobs->push(waiting, nullptr);
    next(*jobs);  // the low mark, but no room for three
    ASSERT_TRUE(waiting.waits());
    EXPECT_EQ(world.push(*jobs, "late"), Push::kWait);
    jobs->shut_down();
}

TEST(Room, AWaitingCriticalWriterGetsTheReserveAsSoonAsItIsFree) {
    World world;
    auto jobs = world.channel(kSmall);
    world.push_all(*jobs, {"a", "b", "c", "d"});
    world.push(*jobs, "!", kCritical);
    Writer normal, critical;
    write(*jobs, world, normal, "n");
    write(*jobs, world, critical, "!1", kCritical);
    EXPECT_EQ(world.push(*jobs, "!2", kCritical), Push::kWait);
    EXPECT_EQ(next(*jobs), "!");
    EXPECT_TRUE(critical.done());
    EXPECT_TRUE(normal.waits());
    jobs->cancel(normal, Wake::kInterrupted);
}

TEST(Room, NobodyCriticalPassesACriticalWriterThatWaits) {
    World world;
    auto jobs = world.channel("capacity 4\nbytes 100\nhigh-watermark 50\nlow-watermark 0\n");
    world.push(*jobs, std::string(50, 'a'));
    world.push(*jobs, std::string(20, 'b'), kCritical);
    Writer large;
    write(*jobs, world, large, std::string(40, 'c'), kCritical);
    ASSERT_TRUE(large.waits());
    EXPECT_EQ(world.push(*jobs, "small", kCritical), Push::kWait);
    next(*jobs);
    EXPECT_TRUE(large.done());
    EXPECT_EQ(world.push(*jobs, "small", kCritical), Push::kQueued);
}

TEST(Room, AWriterWaitsAtMostTheTimeoutFromTheMomentOfThePause) {
    World world;
    auto jobs = world.channel(kSmall);
    world.push_all(*jobs, {"a", "b", "c", "d"});
    world.advance(3 * kSecond);
    Writer writer, late;
    write(*jobs, world, writer, "x");
    world.advance(2 * kSecond - 1);
    EXPECT_TRUE(writer.waits());
    world.advance(1);
    EXPECT_TRUE(writer.done());
    EXPECT_EQ(writer.why, Wake::kTimedOut);
    EXPECT_EQ(writer.batch.count, 1U);
    write(*jobs, world, late, "y");  // the time is over: not a moment more
    EXPECT_EQ(late.why, Wake::kTimedOut);
    EXPECT_TRUE(late.done());
    EXPECT_EQ(jobs->snapshot().counters.timed_out, 2U);
    EXPECT_EQ(drain(*jobs), (Texts{"a", "b", "c", "d"}));
}

TEST(Room, AnInterruptedWriterHasQueuedNothing) {
    World world;
    auto jobs = world.channel(kSmall);
    world.push_all(*jobs, {"a", "b", "c", "d"});
    Writer writer;
    write(*jobs, world, writer, "x");
    jobs->cancel(writer, Wake::kInterrupted);
    EXPECT_TRUE(writer.done());
    EXPECT_EQ(writer.why, Wake::kInterrupted);
    EXPECT_EQ(drain(*jobs), (Texts{"a", "b", "c", "d"}));
}

TEST(Room, RejectRefusesAtTheHighMarkWithoutHysteresis) {
    World world;
    auto jobs = world.channel("capacity 5\noverflow reject\n");
    world.push_all(*jobs, {"a", "b", "c", "d"});
    EXPECT_EQ(world.push(*jobs, "x"), Push::kFull);
    EXPECT_EQ(world.push(*jobs, "!", kCritical), Push::kQueued);
    EXPECT_EQ(world.push(*jobs, "!!", kCritical), Push::kFull);
    next(*jobs);
    next(*jobs);
    EXPECT_EQ(world.push(*jobs, "x"), Push::kQueued);
    EXPECT_EQ(jobs->snapshot().counters.rejected, 2U);
    EXPECT_EQ(jobs->snapshot().counters.pauses, 0U);
}

TEST(Room, DropOldestGivesUpTheOldestOfTheLowestLevel) {
    World world;
    auto jobs = world.channel("capacity 5\noverflow drop-oldest\n");
    world.push(*jobs, "normal 1", kNormal);
    world.push(*jobs, "low 1", kLow);
    world.push(*jobs, "low 2", kLow);
    world.push(*jobs, "high 1", kHigh);
    EXPECT_EQ(world.push(*jobs, "new", kNormal), Push::kQueued);
    EXPECT_EQ(world.push(*jobs, "newer", kNormal), Push::kQueued);
    EXPECT_EQ(world.push(*jobs, "newest", kNormal), Push::kQueued);
    EXPECT_EQ(drain(*jobs), (Texts{"high 1", "new", "newer", "newest"}));
    EXPECT_EQ(jobs->snapshot().counters.dropped_oldest, 3U);
}

TEST(Room, DropOldestNeverGivesUpWhatIsMoreUrgentThanTheNewOne) {
    World world;
    auto jobs = world.channel("capacity 5\noverflow drop-oldest\n");
    world.push_all(*jobs, {"a", "b", "c", "d"}, kHigh);
    EXPECT_EQ(world.push(*jobs, "low", kLow), Push::kQueued);
    EXPECT_EQ(drain(*jobs), (Texts{"a", "b", "c", "d"}));
    auto counters = jobs->snapshot().counters;
    EXPECT_EQ(counters.dropped_newest, 1U);
    EXPECT_EQ(counters.dropped_oldest, 0U);
}

TEST(Room, DropNewestKeepsWhatIsThere) {
    World world;
    auto jobs = world.channel("capacity 5\noverflow drop-newest\n");
    world.push_all(*jobs, {"a", "b", "c", "d", "e", "f"});
    EXPECT_EQ(drain(*jobs), (Texts{"a", "b", "c", "d"}));
    EXPECT_EQ(jobs->snapshot().counters.dropped_newest, 2U);
}

TEST(Room, WhatIsDroppedIsRefunded) {
    World world;
    auto& account = world.ledger.account(7);
    auto jobs = world.channel("capacity 5\noverflow drop-newest\n");
    for (int i = 0; i < 6; ++i) {
        auto batch = world.batch("x");
        batch.messages.front().charged_message =
            *access::Charge::take(account, access::Resource::kMessages, 1);
        jobs->try_push(batch, Via::kOther, false, nullptr);
    }
    EXPECT_EQ(account.used(access::Resource::kMessages), 4U);
    ASSERT_TRUE(jobs->control("purge\n"));
    EXPECT_EQ(account.used(access::Resource::kMessages), 0U);
}

TEST(Room, ALoweredCapacityPausesAndARaisedOneLetsWritersIn) {
    World world;
    auto jobs = world.channel("low-watermark 50\n");
    world.push_all(*jobs, {"a", "b", "c", "d"});
    ASSERT_TRUE(jobs->control("capacity 5\n"));
    EXPECT_EQ(jobs->snapshot().state, State::kPaused);
    Writer writer;
    write(*jobs, world, writer, "e");
    ASSERT_TRUE(writer.waits());
    ASSERT_TRUE(jobs->control("capacity 10\n"));
    EXPECT_TRUE(writer.done());
    EXPECT_EQ(writer.why, Wake::kServed);
}

TEST(Room, AChangeOfOverflowDecidesForWhoWaits) {
    World world;
    auto jobs = world.channel(kSmall);
    world.push_all(*jobs, {"a", "b", "c", "d"});
    Writer writer;
    write(*jobs, world, writer, "e");
    ASSERT_TRUE(jobs->control("overflow drop-oldest\n"));
    EXPECT_TRUE(writer.done());
    EXPECT_EQ(drain(*jobs), (Texts{"b", "c", "d", "e"}));
}

TEST(Hold, HoldsDeliveriesAndSenders) {
    World world;
    auto jobs = world.channel();
    world.push(*jobs, "a");
    ASSERT_TRUE(jobs->control("pause\n"));
    EXPECT_EQ(next(*jobs), "(empty)");
    EXPECT_EQ(world.push(*jobs, "!", kCritical), Push::kWait);
    Reader reader;
    jobs->take(reader);
    Writer writer;
    write(*jobs, world, writer, "b");
    EXPECT_TRUE(reader.waits() && writer.waits());
    ASSERT_TRUE(jobs->control("resume\n"));
    EXPECT_TRUE(reader.done() && writer.done());
    EXPECT_EQ(text(reader.message), "a");
    EXPECT_EQ(next(*jobs), "b");
}

TEST(Hold, EndsByItselfAfterItsTime) {
    World world;
    auto jobs = world.channel();
    world.push(*jobs, "a");
    ASSERT_TRUE(jobs->control("pause 2s\n"));
    Reader reader;
    jobs->take(reader);
    world.advance(2 * kSecond - 1);
    EXPECT_TRUE(reader.waits());
    world.advance(1);
    EXPECT_TRUE(reader.done());
    EXPECT_EQ(jobs->snapshot().state, State::kOk);
}

TEST(Hold, AWritersTimeCountsFromItsStart) {
    World world;
    auto jobs = world.channel("timeout 5s\n");
    ASSERT_TRUE(jobs->control("pause\n"));
    world.advance(4 * kSecond);
    Writer writer;
    write(*jobs, world, writer, "a");
    world.advance(kSecond);
    EXPECT_TRUE(writer.done());
    EXPECT_EQ(writer.why, Wake::kTimedOut);
}

TEST(Hold, DoesNotStopAPurge) {
    World world;
    auto jobs = world.channel();
    world.push_all(*jobs, {"a", "b"});
    ASSERT_TRUE(jobs->control("pause\npurge\n"));
    EXPECT_EQ(jobs->snapshot().depth, 0U);
    EXPECT_EQ(jobs->snapshot().counters.purged, 2U);
}

TEST(Purge, LetsWaitingWritersIn) {
    World world;
    auto jobs = world.channel(kSmall);
    world.push_all(*jobs, {"a", "b", "c", "d"});
    Writer writer;
    write(*jobs, world, writer, "x");
    ASSERT_TRUE(jobs->control("purge\n"));
    EXPECT_TRUE(writer.done());
    EXPECT_EQ(drain(*jobs), Texts{"x"});
}

TEST(Gate, IsOpenWhileThereIsRoomForAllThatWereLetIn) {
    World world;
    auto jobs = world.channel("capacity 5\n");  // the high mark is 4
    WriteTicket tickets[6];
    world.push(*jobs, "a");
    for (int i = 0; i < 3; ++i) EXPECT_EQ(jobs->try_gate(tickets[i]), Gate::kOpen) << i;
    EXPECT_EQ(jobs->try_gate(tickets[3]), Gate::kWait);
    for (auto& ticket : tickets) jobs->leave(ticket);
}

TEST(Gate, ACloseLetsTheNextOneIn) {
    World world;
    auto jobs = world.channel("capacity 1\nlow-watermark 0\n");
    WriteTicket first, second, third;
    ASSERT_EQ(jobs->try_gate(first), Gate::kOpen);
    Opener waiting, later;
    jobs->gate(waiting, second);
    jobs->gate(later, third);
    EXPECT_TRUE(waiting.waits());
    jobs->leave(first);
    EXPECT_TRUE(waiting.done());
    EXPECT_TRUE(later.waits());
    jobs->leave(second);
    EXPECT_TRUE(later.done());
    jobs->leave(third);
}

TEST(Gate, ACreditLapsesAfterASecond) {
    World world;
    auto jobs = world.channel("capacity 1\nlow-watermark 0\n");
    WriteTicket first, second;
    ASSERT_EQ(jobs->try_gate(first), Gate::kOpen);
    Opener waiting;
    jobs->gate(waiting, second);
    world.advance(kSecond - 1);
    EXPECT_TRUE(waiting.waits());
    world.advance(1);
    EXPECT_TRUE(waiting.done());
    jobs->leave(first);
    jobs->leave(second);
}

TEST(Gate, AWriteThatWentStraightToAReaderLeavesItsPlaceToTheNextOpen) {
    World world;
    auto jobs = world.channel("capacity 1\nlow-watermark 0\n");
    Reader reader;
    jobs->take(reader);
    WriteTicket first, second;
    ASSERT_EQ(jobs->try_gate(first), Gate::kOpen);
    Opener waiting;
    jobs->gate(waiting, second);
    ASSERT_TRUE(waiting.waits());
    auto batch = world.batch("a");
    ASSERT_EQ(jobs->try_push(batch, Via::kOther, true, &first), Push::kQueued);
    EXPECT_TRUE(reader.done());
    EXPECT_TRUE(waiting.done());
    jobs->leave(first);
    jobs->leave(second);
}

TEST(Gate, WaitsWhileTheChannelIsPausedAndIsFirstComeFirstServed) {
    World world;
    auto jobs = world.channel(kSmall);
    world.push_all(*jobs, {"a", "b", "c", "d"});
    WriteTicket tickets[3];
    Opener openers[3];
    for (int i = 0; i < 3; ++i) jobs->gate(openers[i], tickets[i]);
    world.advance(kSecond * 10);  // opens wait without a limit
    EXPECT_TRUE(openers[0].waits());
    jobs->cancel(openers[0], Wake::kInterrupted);
    EXPECT_EQ(openers[0].why, Wake::kInterrupted);
    next(*jobs);
    next(*jobs);
    EXPECT_TRUE(openers[1].done() && openers[2].done());
    WriteTicket extra;
    EXPECT_EQ(jobs->try_gate(extra), Gate::kWait);  // two queued, two credits
    for (auto& ticket : tickets) jobs->leave(ticket);
}

TEST(Gate, NobodyPassesAnOpenThatWaits) {
    World world;
    auto jobs = world.channel("type sync\n");
    WriteTicket first, second, third;
    ASSERT_EQ(jobs->try_gate(first), Gate::kOpen);
    Opener waiting;
    jobs->gate(waiting, second);
    EXPECT_EQ(jobs->try_gate(third), Gate::kWait);
    jobs->leave(first);
    EXPECT_TRUE(waiting.done());
    EXPECT_EQ(jobs->try_gate(third), Gate::kWait);
    jobs->leave(second);
    EXPECT_EQ(jobs->try_gate(third), Gate::kOpen);
    jobs->leave(third);
}

TEST(Gate, OfOverflowPoliciesThatDoNotBlockIsAlwaysOpen) {
    World world;
    auto jobs = world.channel("capacity 1\noverflow reject\n");
    WriteTicket first, second;
    world.push(*jobs, "a");
    EXPECT_EQ(jobs->try_gate(first), Gate::kOpen);
    EXPECT_EQ(jobs->try_gate(second), Gate::kOpen);
}

}  // namespace
}  // namespace ipcfs::channel
