// Messages on trial: how a lease ends, what comes back when and where, dead letters, redrive.
#include <csignal>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine_fixture.hpp"

namespace ipcfs::channel {
namespace {

using queue::kHigh;
using queue::kNormal;
using queue::Wake;

struct Trial {
    Take take = Take::kEmpty;
    queue::MessageRef message;
    Leased lease;
};

Trial lease(Channel& from, pid_t holder = getpid()) {
    Trial trial;
    trial.take = from.try_lease(trial.message, trial.lease, holder);
    return trial;
}

Texts texts(Channel& of, Lane lane = Lane::kMain) {
    Texts all;
    for (const Listed& one : of.list(lane)) all.push_back(std::to_string(one.envelope.sequence));
    return all;
}

std::string next_dead(Channel& from) {
    queue::MessageRef message;
    if (from.try_take(message, UINT64_MAX, Lane::kDead) != Take::kTaken) return "(empty)";
    EXPECT_TRUE(message->envelope.dead);
    from.delivered(*message);
    return text(message);
}

TEST(Lease, HidesAMessageUntilItEnds) {
    World world;
    auto jobs = world.channel();
    world.push_all(*jobs, {"a", "b"});
    Trial first = lease(*jobs);
    ASSERT_EQ(first.take, Take::kTaken);
    EXPECT_EQ(text(first.message), "a");
    EXPECT_NE(first.lease.id, 0U);
    EXPECT_EQ(first.lease.envelope.deliveries, 1U);
    EXPECT_FALSE(first.lease.envelope.redelivered);
    const Snapshot now = jobs->snapshot();
    EXPECT_EQ(now.depth, 1U);
    EXPECT_EQ(now.leased, 1U);
    EXPECT_EQ(now.leased_bytes, 1U);
    EXPECT_EQ(drain(*jobs), Texts{"b"});
    EXPECT_TRUE(jobs->ack(first.lease.id));
    EXPECT_FALSE(has_lease(*jobs, first.lease.id));
    EXPECT_EQ(jobs->snapshot().leased, 0U);
    EXPECT_EQ(jobs->snapshot().counters.acked, 1U);
    EXPECT_EQ(lease(*jobs).take, Take::kEmpty);
}

TEST(Lease, EndsOnce) {
    World world;
    auto jobs = world.channel();
    for (int how = 0; how < 5; ++how) {
        world.push(*jobs, "a");
        const std::uint64_t id = lease(*jobs).lease.id;
        auto end = [&](int by) {
            switch (by) {
                case 0: return jobs->ack(id);
                case 1: return jobs->nack(id, 0);
                case 2: return jobs->bury(id);
                case 3: return jobs->end_lease(id);
                default: return jobs->undo_lease(id);
            }
        };
        EXPECT_TRUE(end(how));
        for (int again = 0; again < 5; ++again) EXPECT_FALSE(end(again)) << how << " " << again;
        EXPECT_FALSE(jobs->extend(id, kSecond));
        ASSERT_TRUE(jobs->control("purge"));
    }
    EXPECT_FALSE(jobs->ack(0));
    EXPECT_FALSE(jobs->ack(4711));
}

TEST(Lease, ComesBackToTheFrontInOrderAndFlagged) {
    World world;
    auto jobs = world.channel();
    world.push_all(*jobs, {"1", "2", "3", "4"});
    Trial a = lease(*jobs), b = lease(*jobs), c = lease(*jobs);
    EXPECT_TRUE(jobs->nack(b.lease.id, 0));
    EXPECT_TRUE(jobs->end_lease(c.lease.id));
    EXPECT_TRUE(jobs->nack(a.lease.id, 0));
    EXPECT_EQ(texts(*jobs), (Texts{"1", "2", "3", "4"}));
    Trial again = lease(*jobs);
    EXPECT_EQ(text(again.message), "1");
    EXPECT_TRUE(again.lease.envelope.redelivered);
    EXPECT_EQ(again.lease.envelope.deliveries, 2U);
    EXPECT_NE(again.lease.id, a.lease.id);
    const Counters is = jobs->snapshot().counters;
    EXPECT_EQ(is.nacked, 2U);
    EXPECT_EQ(is.lease_returns, 1U);
    EXPECT_EQ(is.redelivered, 1U);
    EXPECT_EQ(is.leased, 4U);
}

TEST(Lease, ComesBackToItsPriority) {
    World world;
    auto jobs = world.channel();
    world.push(*jobs, "normal", kNormal);
    Trial normal = lease(*jobs);
    world.push(*jobs, "high", kHigh);
    jobs->nack(normal.lease.id, 0);
    EXPECT_EQ(drain(*jobs), (Texts{"high", "normal"}));
}

TEST(Lease, TimesOutAndNotBefore) {
    World world;
    auto jobs = world.channel("lease 30s\n");
    world.push(*jobs, "a");
    Trial trial = lease(*jobs);
    world.advance(30 * kSecond - 1);
    EXPECT_EQ(next(*jobs), "(empty)");
    EXPECT_TRUE(has_lease(*jobs, trial.lease.id));
    world.advance(1);
    EXPECT_FALSE(jobs->ack(trial.lease.id));
    EXPECT_EQ(next(*jobs), "a");
    EXPECT_EQ(jobs->snapshot().counters.lease_timeouts, 1U);
}

TEST(Lease, IsExtendedFromNow) {
    World world;
    auto jobs = world.channel("lease 10s\n");
    world.push_all(*jobs, {"a", "b"});
    Trial longer = lease(*jobs), shorter = lease(*jobs);
    world.advance(9 * kSecond);
    EXPECT_TRUE(jobs->extend(longer.lease.id, 10 * kSecond));
    EXPECT_TRUE(jobs->extend(shorter.lease.id, kMillisecond));
    world.advance(kMillisecond);
    EXPECT_EQ(drain(*jobs), Texts{"b"});
    world.advance(10 * kSecond - 2 * kMillisecond);
    EXPECT_TRUE(has_lease(*jobs, longer.lease.id));
    world.advance(kMillisecond);
    EXPECT_FALSE(has_lease(*jobs, longer.lease.id));
    EXPECT_EQ(drain(*jobs), Texts{"a"});
}

TEST(Lease, ThatAllTimeOutTogetherComeBackInOrder) {
    World world;
    auto jobs = world.channel("capacity 3000\nhigh-watermark 100\n");
    for (int i = 1; i <= 2000; ++i) ASSERT_EQ(world.push(*jobs, std::to_string(i)), Push::kQueued);
    for (int i = 0; i < 2000; ++i) lease(*jobs);
    world.push(*jobs, "2001");
    world.advance(30 * kSecond);
    Texts expected;
    for (int i = 1; i <= 2001; ++i) expected.push_back(std::to_string(i));
    EXPECT_EQ(drain(*jobs), expected);
}

// Leases are measured by the monotonic clock: a step of the other changes nothing.
TEST(Lease, DoesNotCareForAClockSetBackAnHour) {
    World world;
    auto jobs = world.channel("lease 10s\nttl 60s\n");
    world.push_all(*jobs, {"a", "b", "c"});
    Trial held = lease(*jobs), delayed = lease(*jobs);
    EXPECT_TRUE(jobs->nack(delayed.lease.id, 5 * kSecond));
    world.clock.step(-3600 * kSecond);
    world.advance(5 * kSecond - 1);
    EXPECT_EQ(texts(*jobs), Texts{"3"});
    world.advance(1);
    EXPECT_EQ(texts(*jobs), (Texts{"2", "3"}));
    world.advance(5 * kSecond);
    EXPECT_EQ(texts(*jobs), (Texts{"1", "2", "3"}));
    EXPECT_FALSE(jobs->ack(held.lease.id));
    world.push(*jobs, "d");
    world.advance(50 * kSecond);
    EXPECT_EQ(texts(*jobs), Texts{"4"});
    world.advance(10 * kSecond + 20 * kMillisecond);
    EXPECT_EQ(texts(*jobs), Texts{});
}

TEST(Lease, WaitsItsDelayAfterANack) {
    World world;
    auto jobs = world.channel();
    world.push_all(*jobs, {"a", "b"});
    jobs->nack(lease(*jobs).lease.id, 5 * kSecond);
    EXPECT_EQ(jobs->snapshot().delayed, 1U);
    EXPECT_EQ(jobs->snapshot().depth, 1U);
    world.advance(5 * kSecond - 1);
    EXPECT_EQ(texts(*jobs), Texts{"2"});
    const std::uint64_t rings = world.bell.rings();
    world.advance(1);
    EXPECT_EQ(texts(*jobs), (Texts{"1", "2"}));
    EXPECT_EQ(world.bell.rings(), rings + 1);
    EXPECT_EQ(jobs->snapshot().delayed, 0U);
}

TEST(Lease, ServesReadersOfBothKindsInTurn) {
    World world;
    auto jobs = world.channel();
    Reader plain, leasing, last;
    leasing.leases = true;
    leasing.holder = getpid();
    jobs->take(leasing);
    jobs->take(plain);
    jobs->take(last);
    world.push_all(*jobs, {"a", "b"});
    ASSERT_TRUE(leasing.done() && plain.done() && last.waits());
    EXPECT_EQ(text(leasing.message), "a");
    EXPECT_EQ(text(plain.message), "b");
    EXPECT_EQ(plain.lease.id, 0U);
    EXPECT_EQ(leasing.lease.envelope.deliveries, 1U);
    jobs->delivered(*plain.message);
    jobs->nack(leasing.lease.id, 0);
    ASSERT_TRUE(last.done());
    EXPECT_EQ(text(last.message), "a");
    EXPECT_TRUE(last.message->envelope.redelivered);
}

TEST(Lease, WaitsAreInterruptedBeforeAndAfterTheyPark) {
    World world;
    auto jobs = world.channel();
    Reader early, late, dead;
    early.leases = late.leases = true;
    jobs->cancel(early, Wake::kInterrupted);
    jobs->take(early);
    ASSERT_TRUE(early.done());
    EXPECT_EQ(early.why, Wake::kInterrupted);
    jobs->take(late);
    dead.lane = Lane::kDead;
    jobs->take(dead);
    EXPECT_EQ(jobs->snapshot().waiting_readers, 2U);
    jobs->cancel(late, Wake::kInterrupted);
    jobs->cancel(dead, Wake::kInterrupted);
    ASSERT_TRUE(late.done() && dead.done());
    EXPECT_EQ(jobs->snapshot().waiting_readers, 0U);
    world.push(*jobs, "a");
    EXPECT_EQ(jobs->snapshot().counters.leased, 0U);
    jobs->bury(lease(*jobs).lease.id);
    EXPECT_EQ(next_dead(*jobs), "a");
}

TEST(Lease, ThatNeverReachedItsHolderDoesNotCount) {
    World world;
    auto jobs = world.channel("max-deliveries 1\n");
    world.push(*jobs, "a");
    for (int i = 0; i < 5; ++i) EXPECT_TRUE(jobs->undo_lease(lease(*jobs).lease.id));
    Trial trial = lease(*jobs);
    EXPECT_EQ(trial.lease.envelope.deliveries, 1U);
    EXPECT_TRUE(trial.lease.envelope.redelivered);
    EXPECT_EQ(jobs->snapshot().counters.lease_undone, 5U);
    EXPECT_EQ(jobs->snapshot().dead, 0U);
}

TEST(Lease, PlainReadsThatComeBackDoNotCount) {
    World world;
    auto jobs = world.channel("max-deliveries 2\n");
    world.push(*jobs, "a");
    for (int i = 0; i < 5; ++i) {
        queue::MessageRef message;
        ASSERT_EQ(jobs->try_take(message), Take::kTaken);
        jobs->give_back(std::move(message));
    }
    EXPECT_EQ(lease(*jobs).lease.envelope.deliveries, 1U);
}

TEST(Lease, CountsAgainstTheBounds) {
    World world;
    auto jobs = world.channel("capacity 4\nhigh-watermark 100\nlow-watermark 50\n");
    world.push_all(*jobs, {"a", "b", "c"});
    std::vector<Trial> held;
    for (int i = 0; i < 3; ++i) held.push_back(lease(*jobs));
    world.push(*jobs, "d");
    EXPECT_EQ(world.push(*jobs, "e"), Push::kWait);
    jobs->nack(held[0].lease.id, kSecond);  // delayed ones do, too
    EXPECT_EQ(world.push(*jobs, "e"), Push::kWait);
    Writer writer;
    writer.batch = world.batch("e");
    jobs->push(writer, nullptr);
    EXPECT_TRUE(writer.waits());
    jobs->ack(held[1].lease.id);
    EXPECT_TRUE(writer.waits()) << "three of four are above the low watermark";
    jobs->bury(held[2].lease.id);
    EXPECT_TRUE(writer.done()) << "dead letters take no room";
    EXPECT_EQ(drain(*jobs), (Texts{"d", "e"}));
}

// A reader that waits for a lease does not make the room that a reader makes.
TEST(Lease, NeedsRoomAlsoForWhoeverWaits) {
    World world;
    auto jobs = world.channel("capacity 1\noverflow reject\n");
    Reader leasing;
    leasing.leases = true;
    jobs->take(leasing);
    EXPECT_EQ(world.push(*jobs, "a"), Push::kQueued);
    ASSERT_TRUE(leasing.done());
    EXPECT_EQ(world.push(*jobs, "b"), Push::kFull);
    jobs->ack(leasing.lease.id);
    EXPECT_EQ(world.push(*jobs, "b"), Push::kQueued);
}

TEST(Lease, KeepsItsMessageFromExpiringUntilItComesBack) {
    World world;
    auto jobs = world.channel("ttl 1s\n");
    world.push_all(*jobs, {"a", "b"});
    Trial kept = lease(*jobs), back = lease(*jobs);
    world.advance(10 * kSecond);
    EXPECT_EQ(jobs->snapshot().counters.expired, 0U);
    EXPECT_TRUE(jobs->nack(back.lease.id, 0));
    EXPECT_EQ(next(*jobs), "(empty)");
    EXPECT_EQ(jobs->snapshot().counters.expired, 1U);
    EXPECT_TRUE(jobs->ack(kept.lease.id));
}

TEST(Lease, IsNotTakenWhileTheChannelIsHeldButEnds) {
    World world;
    auto jobs = world.channel("max-deliveries 2\n");
    world.push_all(*jobs, {"a", "b"});
    Trial a = lease(*jobs), b = lease(*jobs);
    ASSERT_TRUE(jobs->control("pause"));
    EXPECT_TRUE(jobs->ack(a.lease.id));
    EXPECT_TRUE(jobs->nack(b.lease.id, 0));
    EXPECT_EQ(lease(*jobs).take, Take::kEmpty);
    Reader waiting;
    waiting.leases = true;
    jobs->take(waiting);
    EXPECT_TRUE(waiting.waits());
    ASSERT_TRUE(jobs->control("resume"));
    ASSERT_TRUE(waiting.done());
    EXPECT_EQ(waiting.lease.envelope.deliveries, 2U);
}

TEST(Lease, EndsWithAPurgeOfTheChannel) {
    World world;
    auto jobs = world.channel();
    world.push_all(*jobs, {"a", "b", "c", "d"});
    Trial held = lease(*jobs), delayed = lease(*jobs), buried = lease(*jobs);
    jobs->nack(delayed.lease.id, kSecond);
    jobs->bury(buried.lease.id);
    EXPECT_FALSE(jobs->remove());
    ASSERT_TRUE(jobs->control("purge"));
    EXPECT_FALSE(jobs->ack(held.lease.id));
    EXPECT_EQ(text(held.message), "a") << "whoever reads it goes on";
    const Snapshot now = jobs->snapshot();
    EXPECT_EQ(now.depth + now.leased + now.delayed + now.dead, 0U);
    EXPECT_EQ(now.counters.purged, 4U);
    world.advance(60 * kSecond);
    EXPECT_EQ(next(*jobs), "(empty)");
    EXPECT_TRUE(jobs->remove());
    EXPECT_EQ(lease(*jobs).take, Take::kRemoved);
}

TEST(Lease, KeepsTheChannelFromBeingRemovedOrRetyped) {
    World world;
    auto jobs = world.channel();
    auto is_kept = [&] {
        EXPECT_EQ(jobs->remove().error().code, ENOTEMPTY);
        EXPECT_EQ(jobs->control("type batch\n").error().code, EBUSY);
    };
    world.push(*jobs, "a");
    Trial trial = lease(*jobs);
    is_kept();
    jobs->nack(trial.lease.id, kSecond);
    is_kept();
    world.advance(kSecond);
    jobs->bury(lease(*jobs).lease.id);
    is_kept();
    EXPECT_EQ(next_dead(*jobs), "a");
    EXPECT_TRUE(jobs->control("type batch\n"));
    EXPECT_TRUE(jobs->remove());
}

TEST(Lease, OutlivesNeitherWaitsNorShutdown) {
    World world;
    auto jobs = world.channel();
    world.push(*jobs, "a");
    Trial held = lease(*jobs);
    Reader waiting, dead;
    waiting.leases = true;
    dead.lane = Lane::kDead;
    jobs->take(waiting);
    jobs->take(dead);
    jobs->shut_down();
    ASSERT_TRUE(waiting.done() && dead.done());
    EXPECT_EQ(waiting.why, Wake::kShutdown);
    EXPECT_EQ(lease(*jobs).take, Take::kEmpty);
    EXPECT_TRUE(jobs->ack(held.lease.id)) << "what is done is done";
    Trial none;
    EXPECT_EQ(jobs->snapshot().leased, 0U);
}

TEST(Lease, PollSeesWhatComesBackAndWhatDies) {
    World world;
    auto jobs = world.channel("max-deliveries 2\n");
    world.push(*jobs, "a");
    Trial first = lease(*jobs);
    PollSlot main, dead;
    int readable = 0, died = 0;
    jobs->poll(main, std::make_unique<CountingTicket>(readable, POLLIN));
    EXPECT_EQ(jobs->poll(dead, std::make_unique<CountingTicket>(died, POLLIN), false, Lane::kDead),
              0U);
    jobs->nack(first.lease.id, 0);
    EXPECT_EQ(readable, 1);
    EXPECT_EQ(died, 0);
    jobs->poll(main, std::make_unique<CountingTicket>(readable, POLLIN));
    readable = 0;
    jobs->nack(lease(*jobs).lease.id, 0);
    EXPECT_EQ(readable, 0);
    EXPECT_EQ(died, 1);
    EXPECT_EQ(jobs->poll(dead, nullptr, false, Lane::kDead), unsigned{POLLIN});
    jobs->forget(main);
    jobs->forget(dead);
}

pid_t new_process() {
    const pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;) pause();
    }
    return pid;
}

void end_process(pid_t pid) {
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
}

TEST(Lease, EndsWithItsProcess) {
    World world;
    auto jobs = world.channel();
    world.push_all(*jobs, {"a", "b", "c"});
    const pid_t doomed = new_process();
    Trial mine = lease(*jobs), first = lease(*jobs, doomed), second = lease(*jobs, doomed);
    EXPECT_EQ(world.env.leases.sweep(), 0U);
    end_process(doomed);
    EXPECT_EQ(world.env.leases.sweep(), 2U);
    EXPECT_FALSE(jobs->ack(first.lease.id));
    EXPECT_TRUE(has_lease(*jobs, mine.lease.id));
    EXPECT_EQ(drain(*jobs), (Texts{"b", "c"}));
    EXPECT_TRUE(jobs->ack(mine.lease.id));
    EXPECT_EQ(world.env.leases.sweep(), 0U);
    EXPECT_EQ(world.env.leases.watched(), 0U);
    // It is looked after again when it has leases again.
    world.push(*jobs, "d");
    lease(*jobs);
    EXPECT_EQ(world.env.leases.watched(), 1U);
    jobs.reset();
    EXPECT_EQ(world.env.leases.sweep(), 0U);
}

// ---- dead letters

TEST(DeadLetters, AreWhatWasGivenOutTooOften) {
    World world;
    auto jobs = world.channel("max-deliveries 3\nlease 1s\n");
    world.push_all(*jobs, {"poison", "good"});
    EXPECT_TRUE(jobs->nack(lease(*jobs).lease.id, 0));
    EXPECT_TRUE(jobs->end_lease(lease(*jobs).lease.id));
    EXPECT_EQ(jobs->snapshot().dead, 0U);
    lease(*jobs);
    world.advance(kSecond);
    EXPECT_EQ(jobs->snapshot().dead, 1U);
    EXPECT_EQ(drain(*jobs), Texts{"good"});
    auto listed = jobs->list(Lane::kDead);
    ASSERT_EQ(listed.size(), 1U);
    EXPECT_EQ(listed[0].envelope.deliveries, 3U);
    EXPECT_TRUE(listed[0].envelope.redelivered);
    EXPECT_EQ(next_dead(*jobs), "poison");
    EXPECT_EQ(next_dead(*jobs), "(empty)");
    EXPECT_EQ(jobs->snapshot().counters.dead, 1U);
    EXPECT_EQ(jobs->snapshot().counters.dead_taken, 1U);
}

TEST(DeadLetters, AreNotDelayedByTheLastNack) {
    World world;
    auto jobs = world.channel("max-deliveries 1\n");
    world.push(*jobs, "a");
    jobs->nack(lease(*jobs).lease.id, kSecond);
    EXPECT_EQ(jobs->snapshot().dead, 1U);
    EXPECT_EQ(jobs->snapshot().delayed, 0U);
}

TEST(DeadLetters, AreReadWhileTheChannelIsPausedAndDoNotExpire) {
    World world;
    auto jobs = world.channel("ttl 1s\n");
    world.push(*jobs, "a");
    jobs->bury(lease(*jobs).lease.id);
    ASSERT_TRUE(jobs->control("pause"));
    world.advance(10 * kSecond);
    EXPECT_EQ(next_dead(*jobs), "a");
}

TEST(DeadLetters, WakeWhoeverWaitsForOne) {
    World world;
    auto jobs = world.channel();
    Reader first, second;
    first.lane = second.lane = Lane::kDead;
    jobs->take(first);
    jobs->take(second);
    world.push(*jobs, "a");
    ASSERT_TRUE(first.waits());
    jobs->bury(lease(*jobs).lease.id);
    ASSERT_TRUE(first.done());
    EXPECT_EQ(text(first.message), "a");
    EXPECT_TRUE(second.waits());
    // What could not be delivered is the next one again.
    jobs->give_back(std::move(first.message));
    ASSERT_TRUE(second.done());
    jobs->delivered(*second.message);
    EXPECT_EQ(next(*jobs), "(empty)");
}

TEST(DeadLetters, TellWhoeverListens) {
    World world;
    auto jobs = world.channel();
    struct Ear final : EventListener {
        std::vector<Event> heard;
        bool on_event(const Event& event) noexcept override {
            if (event.kind == EventKind::kDead) heard.push_back(event);
            return true;
        }
    };
    auto ear = std::make_shared<Ear>();
    jobs->events().add(ear);
    world.push(*jobs, "a", kHigh);
    jobs->bury(lease(*jobs).lease.id);
    ASSERT_EQ(ear->heard.size(), 1U);
    EXPECT_EQ(ear->heard[0].priority, kHigh);
    EXPECT_EQ(ear->heard[0].detail, 1U);
}

TEST(DeadLetters, GoToTheBackOfTheQueueWhenTheyAreRedriven) {
    World world;
    auto jobs = world.channel("max-deliveries 1\n");
    world.push_all(*jobs, {"1", "2", "3", "4"});
    Trial a = lease(*jobs), b = lease(*jobs);
    jobs->nack(b.lease.id, 0);
    jobs->nack(a.lease.id, 0);
    ASSERT_TRUE(jobs->control("redrive"));
    EXPECT_EQ(texts(*jobs), (Texts{"3", "4", "2", "1"}));
    EXPECT_EQ(jobs->snapshot().dead, 0U);
    EXPECT_EQ(jobs->snapshot().counters.redriven, 2U);
    lease(*jobs), lease(*jobs);
    Trial again = lease(*jobs);
    EXPECT_EQ(text(again.message), "2");
    EXPECT_EQ(again.lease.envelope.deliveries, 1U);
    EXPECT_TRUE(again.lease.envelope.redelivered);
    EXPECT_FALSE(again.lease.envelope.dead);
    // And it keeps that place when it comes back.
    world.push(*jobs, "5");
    jobs->undo_lease(again.lease.id);
    EXPECT_EQ(texts(*jobs), (Texts{"2", "1", "5"}));
}

TEST(DeadLetters, AreRedrivenWhateverTheBoundsSay) {
    World world;
    auto jobs = world.channel("capacity 2\nhigh-watermark 100\nlow-watermark 50\n");
    world.push_all(*jobs, {"1", "2"});
    jobs->bury(lease(*jobs).lease.id);
    jobs->bury(lease(*jobs).lease.id);
    world.push_all(*jobs, {"3"});
    ASSERT_TRUE(jobs->control("redrive"));
    EXPECT_EQ(jobs->snapshot().depth, 3U);
    EXPECT_EQ(jobs->snapshot().state, State::kPaused);
    EXPECT_EQ(world.push(*jobs, "4"), Push::kWait);
    EXPECT_EQ(drain(*jobs), (Texts{"3", "1", "2"}));
    EXPECT_EQ(world.push(*jobs, "4"), Push::kQueued);
}

TEST(DeadLetters, StartTheirTimeAnewWhenTheyAreRedriven) {
    World world;
    auto jobs = world.channel("ttl 1s\n");
    world.push(*jobs, "a");
    jobs->bury(lease(*jobs).lease.id);
    world.advance(10 * kSecond);
    const std::uint64_t rings = world.bell.rings();
    ASSERT_TRUE(jobs->control("redrive"));
    EXPECT_EQ(world.bell.rings(), rings + 1);
    world.advance(kSecond - 1);
    EXPECT_EQ(jobs->snapshot().depth, 1U);
    world.advance(21 * kMillisecond);
    EXPECT_EQ(jobs->snapshot().depth, 0U);
    ASSERT_TRUE(jobs->control("redrive")) << "of none";
}

}  // namespace
}  // namespace ipcfs::channel
