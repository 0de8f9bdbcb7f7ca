// Type stream: when a reader is at its end.
#include "engine_fixture.hpp"

namespace ipcfs::channel {
namespace {

using queue::Wake;

// An open file that reads.
struct End {
    Channel& of;
    StreamView view;
    explicit End(Channel& channel) : of(channel), view{channel.stream_since(), false} {
        of.opened(true, false);
    }
    ~End() { of.closed(true, false); }
    End(const End&) = delete;
    End& operator=(const End&) = delete;
    std::string read() {
        queue::MessageRef message;
        switch (of.try_take(message, UINT64_MAX, Lane::kMain, &view)) {
            case Take::kTaken:
                view.has_read = true;
                of.delivered(*message);
                return text(message);
            case Take::kEnded: return "(end)";
            case Take::kEmpty: return "(waits)";
            default: return "(removed)";
        }
    }
    void wait(Reader& reader) {
        reader.may_end = true;
        reader.view = view;
        of.take(reader);
    }
};

TEST(Stream, ReadersWaitForTheFirstWriter) {
    World world;
    auto bytes = world.channel("type stream\n");
    End reader(*bytes);
    EXPECT_EQ(reader.read(), "(waits)");
    bytes->opened(false, true);
    EXPECT_EQ(reader.read(), "(waits)");
    world.push(*bytes, "a");
    EXPECT_EQ(reader.read(), "a");
    EXPECT_EQ(reader.read(), "(waits)");
    bytes->closed(false, true);
    EXPECT_EQ(reader.read(), "(end)");
    EXPECT_EQ(reader.read(), "(end)");
}

TEST(Stream, AWriterThatWroteNothingEndsItToo) {
    World world;
    auto bytes = world.channel("type stream\n");
    End reader(*bytes);
    bytes->opened(false, true);
    bytes->closed(false, true);
    EXPECT_EQ(reader.read(), "(end)");
}

TEST(Stream, WhatIsLeftIsReadBeforeTheEnd) {
    World world;
    auto bytes = world.channel("type stream\n");
    bytes->opened(false, true);
    world.push_all(*bytes, {"a", "b"});
    bytes->closed(false, true);
    End reader(*bytes);  // which has seen no writer close
    EXPECT_EQ(reader.read(), "a");
    EXPECT_EQ(reader.read(), "b");
    EXPECT_EQ(reader.read(), "(end)");
    End late(*bytes);
    EXPECT_EQ(late.read(), "(waits)") << "as at a FIFO that nobody has opened for writing";
}

TEST(Stream, OnlyTheLastWriterEndsIt) {
    World world;
    auto bytes = world.channel("type stream\n");
    End reader(*bytes);
    bytes->opened(false, true);
    bytes->opened(true, true);
    bytes->closed(false, true);
    EXPECT_EQ(reader.read(), "(waits)");
    bytes->closed(true, true);
    EXPECT_EQ(reader.read(), "(end)");
}

TEST(Stream, GoesOnWithTheNextWriter) {
    World world;
    auto bytes = world.channel("type stream\n");
    End reader(*bytes);
    for (int i = 0; i < 3; ++i) {
        bytes->opened(false, true);
        EXPECT_EQ(reader.read(), "(waits)");
        world.push(*bytes, "a");
        EXPECT_EQ(reader.read(), "a");
        bytes->closed(false, true);
        EXPECT_EQ(reader.read(), "(end)");
    }
}

TEST(Stream, TheLastCloseEndsReadsThatWait) {
    World world;
    auto bytes = world.channel("type stream\n");
    bytes->opened(false, true);
    End first(*bytes), second(*bytes);
    Reader one, two;
    first.wait(one);
    second.wait(two);
    world.push(*bytes, "a");
    ASSERT_TRUE(one.done());
    bytes->delivered(*one.message);
    EXPECT_TRUE(two.waits());
    PollSlot slot;
    int woken = 0;
    EXPECT_EQ(bytes->poll(slot, std::make_unique<CountingTicket>(woken, POLLIN), false, Lane::kMain,
                          &second.view),
              unsigned{POLLOUT});
    bytes->closed(false, true);
    ASSERT_TRUE(two.done());
    EXPECT_EQ(two.why, Wake::kEnded);
    EXPECT_FALSE(two.message);
    EXPECT_EQ(woken, 1);
    EXPECT_EQ(bytes->poll(slot, nullptr, false, Lane::kMain, &second.view),
              unsigned{POLLIN | POLLHUP});
    EXPECT_EQ(bytes->snapshot().waiting_readers, 0U);
}

// Between a read that would wait and the parking of its waiter the last writer may close.
TEST(Stream, AReadThatParksLateEndsAtOnce) {
    World world;
    auto bytes = world.channel("type stream\n");
    bytes->opened(false, true);
    End reader(*bytes);
    EXPECT_EQ(reader.read(), "(waits)");
    bytes->closed(false, true);
    Reader late;
    reader.wait(late);
    ASSERT_TRUE(late.done());
    EXPECT_EQ(late.why, Wake::kEnded);
}

TEST(Stream, DoesNotEndWhileItIsPaused) {
    World world;
    auto bytes = world.channel("type stream\n");
    bytes->opened(false, true);
    world.push(*bytes, "a");
    ASSERT_TRUE(bytes->control("pause"));
    End reader(*bytes), other(*bytes);
    Reader first, second;
    reader.wait(first);
    other.wait(second);
    bytes->closed(false, true);
    EXPECT_EQ(reader.read(), "(waits)");
    EXPECT_TRUE(first.waits());
    ASSERT_TRUE(bytes->control("resume"));
    ASSERT_TRUE(first.done() && second.done());
    EXPECT_EQ(text(first.message), "a");
    EXPECT_EQ(second.why, Wake::kEnded);
    bytes->delivered(*first.message);
}

TEST(Stream, WhatABatchHoldsBackIsReadBeforeTheEnd) {
    World world;
    auto bytes = world.channel("type stream\nbatch 10 1h\n");
    bytes->opened(false, true);
    End reader(*bytes), other(*bytes);
    Reader first, second;
    reader.wait(first);
    other.wait(second);
    world.push(*bytes, "a");
    EXPECT_TRUE(first.waits());
    bytes->closed(false, true);
    ASSERT_TRUE(first.done() && second.done());
    EXPECT_EQ(text(first.message), "a");
    EXPECT_EQ(second.why, Wake::kEnded);
    bytes->delivered(*first.message);
}

// What a reader has not used of a message when it closes is the next one's.
TEST(Stream, ARestThatIsGivenBackComesBeforeTheEnd) {
    World world;
    auto bytes = world.channel("type stream\n");
    bytes->opened(false, true);
    world.push_all(*bytes, {"ab", "c"});
    bytes->closed(false, true);
    queue::MessageRef message;
    ASSERT_EQ(bytes->try_take(message), Take::kTaken);
    queue::MessageRef rest = world.message("b");
    rest->envelope = message->envelope;
    bytes->delivered(*message);
    bytes->give_back(std::move(rest));
    End reader(*bytes);
    EXPECT_EQ(reader.read(), "b");
    EXPECT_EQ(reader.read(), "c");
    EXPECT_EQ(reader.read(), "(end)");
}

TEST(Stream, EndsForNobodyOnOtherTypes) {
    World world;
    auto jobs = world.channel();
    End reader(*jobs);
    jobs->opened(false, true);
    jobs->closed(false, true);
    EXPECT_EQ(reader.read(), "(waits)");
    Reader waits;
    reader.wait(waits);
    EXPECT_TRUE(waits.waits());
    jobs->cancel(waits, Wake::kInterrupted);
}

}  // namespace
}  // namespace ipcfs::channel
