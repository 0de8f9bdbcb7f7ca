// Type sync: a write ends when its message was taken, or withdraws it; and the ends of channels.
#include "engine_fixture.hpp"

namespace ipcfs::channel {
namespace {

using queue::kNormal;
using queue::Via;
using queue::Wake;

void write_texts(Channel& to, World& world, Writer& writer, const Texts& bodies,
                 Via via = Via::kQueueFile) {
    writer.batch = world.batch(bodies);
    writer.via = via;
    to.push(writer, nullptr);
}

TEST(Sync, AWriteEndsWhenItsMessageWasDelivered) {
    World world;
    auto calls = world.channel("type sync\n");
    Writer writer;
    write_texts(*calls, world, writer, {"a"});
    EXPECT_TRUE(writer.waits());
    queue::MessageRef taken;
    ASSERT_EQ(calls->try_take(taken), Take::kTaken);
    EXPECT_TRUE(writer.waits());  // taken, but the reply may still fail
    calls->delivered(*taken);
    EXPECT_TRUE(writer.done());
    EXPECT_EQ(writer.why, Wake::kServed);
}

TEST(Sync, IsWithdrawnWhenNobodyTakesItInTime) {
    World world;
    auto calls = world.channel("type sync\ntimeout 2s\n");
    Writer writer;
    write_texts(*calls, world, writer, {"a"});
    world.advance(2 * kSecond - 1);
    EXPECT_TRUE(writer.waits());
    world.advance(1);
    EXPECT_EQ(writer.why, Wake::kTimedOut);
    EXPECT_TRUE(writer.done());
    EXPECT_EQ(next(*calls), "(empty)");
    EXPECT_EQ(calls->snapshot().counters.withdrawn, 1U);
}

TEST(Sync, AnInterruptedWriterWithdrawsItsMessage) {
    World world;
    auto calls = world.channel("type sync\n");
    Writer first, second;
    write_texts(*calls, world, first, {"a"});
    write_texts(*calls, world, second, {"b"}, Via::kOther);
    calls->cancel(first, Wake::kInterrupted);
    EXPECT_EQ(first.why, Wake::kInterrupted);
    EXPECT_EQ(drain(*calls), Texts{"b"});
    EXPECT_TRUE(second.done());
}

TEST(Sync, AnInterruptWhileTheMessageIsInFlightLetsTheDeliveryDecide) {
    World world;
    auto calls = world.channel("type sync\n");
    Writer writer;
    write_texts(*calls, world, writer, {"a"});
    queue::MessageRef taken;
    calls->try_take(taken);
    calls->cancel(writer, Wake::kInterrupted);
    EXPECT_TRUE(writer.waits());
    calls->delivered(*taken);
    EXPECT_TRUE(writer.done());
    EXPECT_EQ(writer.why, Wake::kServed);
}

TEST(Sync, AnInterruptedWritersMessageThatComesBackIsNotQueuedAgain) {
    World world;
    auto calls = world.channel("type sync\n");
    Writer writer;
    write_texts(*calls, world, writer, {"a"});
    queue::MessageRef taken;
    calls->try_take(taken);
    calls->cancel(writer, Wake::kInterrupted);
    calls->give_back(std::move(taken));
    EXPECT_TRUE(writer.done());
    EXPECT_EQ(writer.why, Wake::kInterrupted);
    EXPECT_EQ(next(*calls), "(empty)");
}

TEST(Sync, AMessageThatComesBackAfterTheTimeoutEndsItsWriterAsTimedOut) {
    World world;
    auto calls = world.channel("type sync\n");
    Writer writer;
    write_texts(*calls, world, writer, {"a"});
    queue::MessageRef taken;
    calls->try_take(taken);
    world.advance(10 * kSecond);
    EXPECT_TRUE(writer.waits());
    calls->give_back(std::move(taken));
    EXPECT_TRUE(writer.done());
    EXPECT_EQ(writer.why, Wake::kTimedOut);
    EXPECT_EQ(calls->snapshot().counters.timed_out, 1U);
}

TEST(Sync, AMessageThatComesBackInTimeIsDeliveredToTheNextReader) {
    World world;
    auto calls = world.channel("type sync\n");
    Writer writer;
    write_texts(*calls, world, writer, {"a"});
    queue::MessageRef taken;
    calls->try_take(taken);
    calls->give_back(std::move(taken));
    EXPECT_TRUE(writer.waits());
    EXPECT_EQ(next(*calls), "a");
    EXPECT_TRUE(writer.done());
}

TEST(Sync, AnInterruptedBatchTakesBackWhatIsNotInAReadersHands) {
    World world;
    auto calls = world.channel("type sync\n");
    Writer writer;
    write_texts(*calls, world, writer, {"a", "b"});
    queue::MessageRef taken;
    calls->try_take(taken);
    calls->cancel(writer, Wake::kInterrupted);
    EXPECT_EQ(calls->snapshot().depth, 0U);
    EXPECT_TRUE(writer.waits());
    calls->give_back(std::move(taken));
    EXPECT_TRUE(writer.done());
    EXPECT_EQ(writer.why, Wake::kInterrupted);
    EXPECT_EQ(calls->snapshot().depth, 0U);
}

TEST(Sync, APurgeEndsItsWriter) {
    World world;
    auto calls = world.channel("type sync\n");
    Writer writer;
    write_texts(*calls, world, writer, {"a"});
    ASSERT_TRUE(calls->control("purge\n"));
    EXPECT_TRUE(writer.done());
    EXPECT_EQ(writer.why, Wake::kPurged);
}

TEST(Sync, WithoutWaitingItIsTakenNowOrNotAtAll) {
    World world;
    auto calls = world.channel("type sync\n");
    EXPECT_EQ(world.push(*calls, "a"), Push::kWait);
    Reader reader;
    calls->take(reader);
    EXPECT_EQ(world.push(*calls, "b"), Push::kQueued);
    EXPECT_EQ(text(reader.message), "b");
    EXPECT_EQ(calls->snapshot().depth, 0U);
}

TEST(Sync, AWriteDuringAHoldIsSentWhenItEnds) {
    World world;
    auto calls = world.channel("type sync\n");
    ASSERT_TRUE(calls->control("pause\n"));
    Writer writer;
    write_texts(*calls, world, writer, {"a"});
    EXPECT_EQ(calls->snapshot().depth, 0U);
    ASSERT_TRUE(calls->control("resume\n"));
    EXPECT_EQ(next(*calls), "a");
    EXPECT_TRUE(writer.done());
}

TEST(Sync, RingsAtNextWhileTheWriteHoldsTheLockOfQueue) {
    World world;
    auto calls = world.channel("type sync\n");
    Writer writer;
    write_texts(*calls, world, writer, {"a"});
    EXPECT_EQ(world.bell.next, 1U);
    EXPECT_EQ(world.bell.queue, 0U);
    queue::MessageRef taken;
    calls->try_take(taken);
    calls->give_back(std::move(taken));
    EXPECT_EQ(world.bell.next, 2U);
    EXPECT_EQ(world.bell.queue, 0U);
    EXPECT_EQ(next(*calls), "a");
}

TEST(Sync, TheTypeChangesOnlyWhileEmptyAndUnopened) {
    World world;
    auto jobs = world.channel();
    world.push(*jobs, "a");
    auto refused = jobs->control("type sync\n");
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, EBUSY);
    next(*jobs);
    ASSERT_TRUE(jobs->opened(true, false));
    EXPECT_FALSE(jobs->control("type sync\ncapacity 7\n"));
    EXPECT_EQ(jobs->settings().capacity, 1000U);  // all or nothing
    EXPECT_NE(jobs->snapshot().last_error, "");
    jobs->closed(true, false);
    EXPECT_TRUE(jobs->control("type sync\ncapacity 7\n"));
    EXPECT_EQ(jobs->settings().type, Type::kSync);
}

TEST(End, RemovalIsRefusedWhileMessagesAreQueued) {
    World world;
    auto jobs = world.channel();
    world.push(*jobs, "a");
    auto refused = jobs->remove();
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ENOTEMPTY);
    EXPECT_FALSE(jobs->removed());
    EXPECT_EQ(next(*jobs), "a");
}

TEST(End, RemovalEndsAllThatWaitsAndRefusesWhatComesAfter) {
    World world;
    auto jobs = world.channel();
    Reader reader, late;
    Writer writer, late_writer;
    Opener opener, late_opener;
    WriteTicket ticket;
    ASSERT_TRUE(jobs->control("pause\n"));
    jobs->take(reader);
    write_texts(*jobs, world, writer, {"a"});
    jobs->gate(opener, ticket);
    int notified = 0, hung_up = 0;
    PollSlot slot, other;
    jobs->poll(slot, std::make_unique<CountingTicket>(notified, POLLIN));
    jobs->poll(other, std::make_unique<CountingTicket>(hung_up, 0));
    ASSERT_TRUE(jobs->remove());
    EXPECT_EQ(reader.why, Wake::kRemoved);
    EXPECT_EQ(writer.why, Wake::kRemoved);
    EXPECT_EQ(opener.why, Wake::kRemoved);
    EXPECT_TRUE(reader.done() && writer.done() && opener.done());
    EXPECT_EQ(notified, 1);
    EXPECT_EQ(hung_up, 1);
    EXPECT_EQ(jobs->poll(slot, nullptr), unsigned{POLLIN | POLLOUT | POLLHUP});
    jobs->take(late);
    jobs->gate(late_opener, ticket);
    write_texts(*jobs, world, late_writer, {"b"});
    EXPECT_EQ(late.why, Wake::kRemoved);
    EXPECT_EQ(late_opener.why, Wake::kRemoved);
    EXPECT_EQ(late_writer.why, Wake::kRemoved);
    EXPECT_EQ(next(*jobs), "(removed)");
    EXPECT_EQ(world.push(*jobs, "c"), Push::kRemoved);
    EXPECT_FALSE(jobs->opened(true, true));
    EXPECT_EQ(jobs->snapshot().state, State::kClosed);
}

TEST(End, AMessageGivenBackToARemovedChannelIsFreedAndEndsItsSyncWriter) {
    World world;
    auto calls = world.channel("type sync\n");
    Writer writer;
    write_texts(*calls, world, writer, {"a"});
    queue::MessageRef taken;
    calls->try_take(taken);
    ASSERT_TRUE(calls->remove());
    EXPECT_TRUE(writer.waits());
    calls->give_back(std::move(taken));
    EXPECT_TRUE(writer.done());
    EXPECT_EQ(writer.why, Wake::kRemoved);
    EXPECT_EQ(calls->snapshot().depth, 0U);
}

TEST(End, ShuttingDownEndsAllWaitsAndNothingWaitsAnyMore) {
    World world;
    auto jobs = world.channel();
    Reader reader, late;
    Writer late_writer;
    Opener late_opener;
    WriteTicket ticket;
    jobs->take(reader);
    jobs->shut_down();
    EXPECT_EQ(reader.why, Wake::kShutdown);
    jobs->take(late);
    jobs->gate(late_opener, ticket);
    write_texts(*jobs, world, late_writer, {"b"});
    EXPECT_EQ(late.why, Wake::kShutdown);
    EXPECT_EQ(late_opener.why, Wake::kShutdown);
    EXPECT_EQ(late_writer.why, Wake::kShutdown);
    EXPECT_TRUE(reader.done() && late.done() && late_writer.done() && late_opener.done());
}

TEST(End, ShuttingDownWithdrawsWhatSyncWritersQueued) {
    World world;
    auto calls = world.channel("type sync\n");
    Writer writer;
    write_texts(*calls, world, writer, {"a"});
    calls->shut_down();
    EXPECT_TRUE(writer.done());
    EXPECT_EQ(writer.why, Wake::kShutdown);
    EXPECT_EQ(calls->snapshot().depth, 0U);
}

}  // namespace
}  // namespace ipcfs::channel
