// Who is told what: the doorbell, polls, events and their filters.
#include <thread>

#include "engine_fixture.hpp"

namespace ipcfs::channel {
namespace {

using queue::kCritical;
using queue::kHigh;
using queue::kLow;
using queue::kNormal;
using queue::Via;
using queue::Wake;

constexpr const char* kTwo = "capacity 2\nhigh-watermark 100\nlow-watermark 50\n";

TEST(Bell, RingsForEveryWayInButAWriteOnQueueItself) {
    World world;
    auto jobs = world.channel();
    world.push(*jobs, "natural", kNormal, Via::kQueueFile);
    EXPECT_EQ(world.bell.rings(), 0U);
    world.push(*jobs, "other", kNormal, Via::kOther);
    EXPECT_EQ(world.bell.queue, 1U);
    EXPECT_EQ(jobs->snapshot().counters.rings, 1U);
}

TEST(Bell, RingsForAMessageThatAWaitingReaderTookToo) {
    World world;
    auto jobs = world.channel();
    Reader reader;
    jobs->take(reader);
    world.push(*jobs, "a");
    EXPECT_EQ(world.bell.queue, 1U);
}

TEST(Bell, WaitsForTheEndOfAParkedWriteOnQueueAndRingsThen) {
    World world;
    auto jobs = world.channel("capacity 4\nhigh-watermark 50\nlow-watermark 0\n");
    world.push_all(*jobs, {"a", "b"});
    const auto before = world.bell.rings();
    Writer natural;
    natural.batch = world.batch("n");
    natural.via = Via::kQueueFile;
    jobs->push(natural, nullptr);
    ASSERT_TRUE(natural.waits());
    world.push(*jobs, "!", kCritical);
    EXPECT_EQ(world.bell.rings(), before);
    jobs->cancel(natural, Wake::kInterrupted);  // the kernel makes no event for a failed write
    EXPECT_EQ(world.bell.rings(), before + 1);
}

TEST(Bell, OfAGivenBackMessageWaitsForAParkedWriteToo) {
    World world;
    auto jobs = world.channel(kTwo);
    world.push_all(*jobs, {"a", "b"});
    Writer natural;
    natural.batch = world.batch(Texts{"n", "m"});
    natural.via = Via::kQueueFile;
    jobs->push(natural, nullptr);
    queue::MessageRef taken;
    jobs->try_take(taken);
    ASSERT_TRUE(natural.waits());
    const auto before = world.bell.rings();
    jobs->give_back(std::move(taken));
    EXPECT_EQ(world.bell.rings(), before);
    jobs->cancel(natural, Wake::kTimedOut);
    EXPECT_EQ(world.bell.rings(), before + 1);
}

TEST(Bell, RingsAtTheEndOfAPauseWithMessagesQueued) {
    World world;
    auto jobs = world.channel();
    world.push(*jobs, "a", kNormal, Via::kQueueFile);
    ASSERT_TRUE(jobs->control("pause 1s\n"));
    EXPECT_EQ(world.bell.rings(), 0U);
    world.advance(kSecond);
    EXPECT_EQ(world.bell.queue, 1U);
}

TEST(Poll, TellsWhatHoldsNow) {
    World world;
    auto jobs = world.channel(kTwo);
    PollSlot slot;
    EXPECT_EQ(jobs->poll(slot, nullptr), unsigned{POLLOUT});
    world.push(*jobs, "a");
    EXPECT_EQ(jobs->poll(slot, nullptr), unsigned{POLLIN | POLLOUT});
    world.push(*jobs, "b");
    EXPECT_EQ(jobs->poll(slot, nullptr), unsigned{POLLIN});
    ASSERT_TRUE(jobs->control("pause\n"));
    EXPECT_EQ(jobs->poll(slot, nullptr), 0U);
}

TEST(Poll, NotifiesATicketOnceAndOnlyForWhatItWants) {
    World world;
    auto jobs = world.channel();
    int in = 0, out = 0;
    PollSlot one, two;
    jobs->poll(one, std::make_unique<CountingTicket>(in, POLLIN));
    jobs->poll(two, std::make_unique<CountingTicket>(out, POLLOUT));
    world.push_all(*jobs, {"a", "b"});
    EXPECT_EQ(in, 1);
    EXPECT_EQ(out, 0);
    EXPECT_EQ(one.ticket, nullptr);
    jobs->forget(two);
}

TEST(Poll, AReplacedOrForgottenTicketIsNotNotified) {
    World world;
    auto jobs = world.channel();
    int old = 0, fresh = 0;
    PollSlot slot;
    jobs->poll(slot, std::make_unique<CountingTicket>(old, POLLIN));
    jobs->poll(slot, std::make_unique<CountingTicket>(fresh, POLLIN));
    jobs->forget(slot);
    world.push(*jobs, "a");
    EXPECT_EQ(old + fresh, 0);
}

TEST(Poll, TellsWhenAWriteWouldNoLongerBlock) {
    for (const char* overflow : {"block", "reject"}) {
        World world;
        auto jobs = world.channel(std::string("overflow ") + overflow + "\n" + kTwo);
        world.push_all(*jobs, {"a", "b"});
        int out = 0;
        PollSlot slot;
        EXPECT_EQ(jobs->poll(slot, std::make_unique<CountingTicket>(out, POLLOUT)),
                  unsigned{POLLIN});
        next(*jobs);
        EXPECT_EQ(out, 1) << overflow;
        EXPECT_EQ(jobs->poll(slot, nullptr), unsigned{POLLIN | POLLOUT});
    }
}

TEST(Poll, TellsAWriterOfASyncChannelThatAReaderWaits) {
    World world;
    auto calls = world.channel("type sync\n");
    int out = 0;
    PollSlot slot;
    EXPECT_EQ(calls->poll(slot, std::make_unique<CountingTicket>(out, POLLOUT)), 0U);
    Reader reader;
    calls->take(reader);
    EXPECT_EQ(out, 1);
    EXPECT_EQ(calls->poll(slot, nullptr), unsigned{POLLOUT});
    calls->cancel(reader, Wake::kInterrupted);
    EXPECT_EQ(calls->poll(slot, nullptr), 0U);
}

TEST(Poll, TellsOfTheEndOfAHold) {
    World world;
    auto jobs = world.channel();
    world.push(*jobs, "a");
    ASSERT_TRUE(jobs->control("pause\n"));
    int in = 0, out = 0;
    PollSlot one, two;
    jobs->poll(one, std::make_unique<CountingTicket>(in, POLLIN));
    jobs->poll(two, std::make_unique<CountingTicket>(out, POLLOUT));
    ASSERT_TRUE(jobs->control("resume\n"));
    EXPECT_EQ(in, 1);
    EXPECT_EQ(out, 1);
}

class Notebook final : public EventListener {
public:
    explicit Notebook(std::string_view filter = {}) : filter_(*parse_filter(filter)) {}
    bool on_event(const Event& event) noexcept override {
        if (filter_.matches(event)) {
            seen.with([&](auto& all) { all.push_back(event); });
        }
        return !over;
    }
    bool alive() const noexcept override { return !over; }
    std::string names() {
        std::string all;
        seen.with([&](auto& events) {
            for (const Event& event : events) all.append(name_of(event.kind)).append(" ");
        });
        return all;
    }
    Guarded<std::vector<Event>> seen;
    std::atomic<bool> over{false};

private:
    EventFilter filter_;
};

TEST(Events, TellTheLifeOfAQueue) {
    World world;
    auto jobs = world.channel(kTwo);
    auto book = std::make_shared<Notebook>();
    jobs->events().add(book);
    world.push_all(*jobs, {"a", "bc"});
    next(*jobs);
    next(*jobs);
    EXPECT_EQ(book->names(), "arrival arrival high low drained ");
    auto events = book->seen.with([](auto& all) { return all; });
    EXPECT_EQ(events[1].sequence, 2U);
    EXPECT_EQ(events[1].depth, 2U);
    EXPECT_EQ(events[1].detail, 2U);
    EXPECT_EQ(events[1].priority, kNormal);
    EXPECT_EQ(events[0].text(),
              "1 " + std::to_string(world.clock.realtime()) + " arrival 128 1 size=1\n");
}

TEST(Events, TellOfOverflowExpiryAndState) {
    World world;
    auto jobs = world.channel("capacity 1\noverflow reject\nttl 1s\n");
    auto book = std::make_shared<Notebook>("events=overflow,expired,state,removed");
    jobs->events().add(book);
    world.push(*jobs, "a");
    world.push(*jobs, "b");
    world.advance(kSecond);
    ASSERT_TRUE(jobs->control("pause\nresume\n"));
    ASSERT_TRUE(jobs->remove());
    EXPECT_EQ(book->names(), "overflow expired state state removed ");
    EXPECT_EQ(book->seen.with([](auto& all) { return all[1].detail; }), 1U);
}

TEST(Events, AFilterPicksKindsPrioritiesAndTypes) {
    World world;
    auto jobs = world.channel();
    auto urgent = std::make_shared<Notebook>("events=arrival min-priority=high");
    auto typed = std::make_shared<Notebook>("events=arrival,drained type=event");
    jobs->events().add(urgent);
    jobs->events().add(typed);
    world.push(*jobs, "a", kHigh - 1);
    world.push(*jobs, "b", kHigh);
    auto batch = world.batch("c", kLow);
    batch.messages.front().envelope.type = 3;
    jobs->try_push(batch, Via::kOther, false, nullptr);
    drain(*jobs);
    EXPECT_EQ(urgent->names(), "arrival ");
    EXPECT_EQ(typed->names(), "arrival ");
}

TEST(Events, AListenerThatIsOverIsForgotten) {
    World world;
    auto jobs = world.channel();
    auto book = std::make_shared<Notebook>(), other = std::make_shared<Notebook>();
    jobs->events().add(book);
    jobs->events().add(other);
    book->over = true;
    world.push(*jobs, "a");
    world.push(*jobs, "b");
    EXPECT_EQ(book->names(), "arrival ");
    EXPECT_EQ(other->names(), "arrival arrival ");
    other->over = true;
    EXPECT_EQ(jobs->events().sweep(), 0U);
    EXPECT_FALSE(jobs->events().has_listeners());
    EXPECT_EQ(book.use_count(), 1);
}

TEST(EventFilters, AreParsedInAnyOrderAndWhitespace) {
    auto filter = parse_filter("  rate=100/s\nmin-priority=7\ttype=error events=low,high\r\n");
    ASSERT_TRUE(filter);
    EXPECT_EQ(filter->rate, 100U);
    EXPECT_EQ(filter->min_priority, 7);
    EXPECT_EQ(filter->type, 8);
    EXPECT_FALSE(filter->matches({.kind = EventKind::kArrival, .priority = 255, .type = 8}));
    EXPECT_TRUE(filter->matches({.kind = EventKind::kLow, .priority = 255, .type = 8}));
    EXPECT_FALSE(filter->matches({.kind = EventKind::kLow, .priority = 6, .type = 8}));
    EXPECT_FALSE(filter->matches({.kind = EventKind::kLow, .priority = 255, .type = 7}));
}

TEST(EventFilters, OfNothingMatchAll) {
    auto filter = parse_filter("");
    ASSERT_TRUE(filter);
    for (std::size_t kind = 0; kind < kEventKinds; ++kind) {
        EXPECT_TRUE(filter->matches({.kind = static_cast<EventKind>(kind)}));
    }
}

TEST(EventFilters, WhatIsMalformedIsRefusedWithAReason) {
    for (const char* text :
         {"events=", "events=arival", "events=arrival,,high", "min-priority=256",
          "min-priority=", "min-priority=-1", "type=none", "rate=0", "rate=1000001/s", "rate=/s",
          "rate=1/m", "arrival", "=", "colour=red", "events"}) {
        auto filter = parse_filter(text);
        ASSERT_FALSE(filter) << text;
        EXPECT_EQ(filter.error().code, EINVAL) << text;
        EXPECT_NE(filter.error().operation, "") << text;
    }
}

TEST(EventFilters, PrioritiesHaveNames) {
    EXPECT_EQ(parse_priority("critical"), 255);
    EXPECT_EQ(parse_priority("high"), 192);
    EXPECT_EQ(parse_priority("normal"), 128);
    EXPECT_EQ(parse_priority("low"), 0);
    EXPECT_EQ(parse_priority("17"), 17);
    EXPECT_FALSE(parse_priority("urgent"));
    EXPECT_FALSE(parse_priority("256"));
}

TEST(EventThreads, ListenersComeAndGoWhileOthersPublish) {
    EventHub hub;
    auto witness = std::make_shared<Notebook>();
    hub.add(witness);
    constexpr int kEach = 2000;
    std::vector<std::thread> threads;
    for (int t = 0; t < 2; ++t) {
        threads.emplace_back([&] {
            for (int i = 0; i < kEach; ++i) hub.publish({.detail = 1});
        });
        threads.emplace_back([&] {
            for (int i = 0; i < kEach / 4; ++i) {
                auto passing = std::make_shared<Notebook>();
                hub.add(passing);
                if (i % 2) {
                    hub.remove(passing.get());
                } else {
                    passing->over = true;
                    hub.sweep();
                }
            }
        });
    }
    for (auto& thread : threads) thread.join();
    EXPECT_EQ(hub.sweep(), 1U);
    auto seen = witness->seen.with([](auto& all) { return all; });
    ASSERT_EQ(seen.size(), 2U * kEach);
    std::vector<bool> numbers(seen.size() + 1);
    for (const Event& event : seen) {
        ASSERT_LE(event.sequence, seen.size());
        EXPECT_FALSE(numbers[event.sequence]);
        numbers[event.sequence] = true;
    }
}

}  // namespace
}  // namespace ipcfs::channel
