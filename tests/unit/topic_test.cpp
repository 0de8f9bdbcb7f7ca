// Topics: who gets what, in which order, and who pays for it.
#include <algorithm>
#include <map>

#include "topic_fixture.hpp"

namespace ipcfs::channel {
namespace {

using queue::Wake;

TEST(Topic, GivesEverySubscriberEveryMessageFromThenOn) {
    Topics t;
    auto topic = t.topic();
    EXPECT_EQ(t.publish(*topic, "before"), Push::kQueued);
    auto one = t.follow(topic);
    EXPECT_EQ(t.publish(*topic, "first"), Push::kQueued);
    auto two = t.follow(topic);
    auto alice = t.named(topic, "alice");
    EXPECT_EQ(t.publish(*topic, "second"), Push::kQueued);
    EXPECT_EQ(drain(one->channel()), (Texts{"first", "second"}));
    EXPECT_EQ(drain(two->channel()), (Texts{"second"}));
    EXPECT_EQ(drain(*alice), (Texts{"second"}));
    const Snapshot now = topic->snapshot();
    EXPECT_EQ(now.subscriptions, 3U);
    EXPECT_EQ(now.named, 1U);
    EXPECT_EQ(now.depth, 0U);
    EXPECT_EQ(now.counters.enqueued, 3U);
    EXPECT_EQ(now.counters.unmatched, 1U);
    EXPECT_EQ(now.counters.copies, 4U);
    EXPECT_EQ(alice->snapshot().role, Role::kSubscription);
}

TEST(Topic, StampsAMessageOnceForAll) {
    Topics t;
    auto topic = t.topic();
    auto one = t.follow(topic);
    t.publish(*topic, "a");
    auto two = t.follow(topic);
    t.publish(*topic, "b");
    queue::MessageRef a, of_one, of_two;
    ASSERT_EQ(one->channel().try_take(a), Take::kTaken);
    ASSERT_EQ(one->channel().try_take(of_one), Take::kTaken);
    ASSERT_EQ(two->channel().try_take(of_two), Take::kTaken);
    EXPECT_EQ(a->envelope.sequence, 1U);
    EXPECT_EQ(of_one->envelope.sequence, 2U);
    EXPECT_EQ(of_two->envelope.sequence, 2U);
    EXPECT_NE(of_one->envelope.id, 0U);
    EXPECT_EQ(of_one->envelope.id, of_two->envelope.id);
    EXPECT_EQ(of_one->envelope.time, of_two->envelope.time);
    EXPECT_EQ(of_one->envelope.sender.pid, 77);
}

TEST(Topic, StoresABodyOnce) {
    Topics t;
    auto topic = t.topic();
    std::vector<std::shared_ptr<Subscription>> all;
    for (int i = 0; i < 50; ++i) all.push_back(t.follow(topic));
    t.publish(*topic, std::string(100'000, 'b'));
    const std::byte* where = nullptr;
    for (const auto& each : all) {
        queue::MessageRef got;
        ASSERT_EQ(each->channel().try_take(got), Take::kTaken);
        if (!where) where = got->content().data();
        EXPECT_EQ(got->content().data(), where);
        each->channel().delivered(*got);
    }
}

TEST(Topic, ChargesSubscribersForWhatWaitsAndThePublisherForNothing) {
    Topics t;
    auto topic = t.topic();
    auto one = t.follow(topic);
    auto two = t.follow(topic);
    t.publish(*topic, "12345");
    EXPECT_EQ(t.messages_of(t.publisher), 0U);
    EXPECT_EQ(t.bytes_of(t.publisher), 0U);
    EXPECT_EQ(t.messages_of(t.reader), 2U);
    EXPECT_EQ(t.bytes_of(t.reader), 10U);
    EXPECT_EQ(next(one->channel()), "12345");
    EXPECT_EQ(t.messages_of(t.reader), 1U);
    two.reset();
    EXPECT_EQ(t.messages_of(t.reader), 0U);
    EXPECT_EQ(t.bytes_of(t.reader), 0U);
    EXPECT_EQ(topic->snapshot().subscriptions, 1U);
}

TEST(Topic, ASubscriberAtItsQuotaLosesItAndNobodyElse) {
    Topics t;
    auto topic = t.topic();
    t.world.ledger.reload(
        [](uid_t uid) {
            access::Limits limits = access::kNoLimits;
            if (uid == 1003) limits[static_cast<std::size_t>(access::Resource::kMessages)] = 1;
            return limits;
        },
        access::kUnlimited);
    auto poor = topic->subscribe({1003, 1003}, t.world.ledger.account(1003));
    auto rich = t.follow(topic);
    for (const char* body : {"a", "b", "c"}) EXPECT_EQ(t.publish(*topic, body), Push::kQueued);
    EXPECT_EQ(drain(poor->channel()), (Texts{"a"}));
    EXPECT_EQ(drain(rich->channel()), (Texts{"a", "b", "c"}));
    EXPECT_EQ(poor->channel().snapshot().counters.lost, 2U);
    // A batch is lost whole.
    queue::Batch both;
    both.add(t.message("d"));
    both.add(t.message("e"));
    EXPECT_EQ(topic->try_push(both, queue::Via::kOther, false, nullptr), Push::kQueued);
    EXPECT_EQ(drain(poor->channel()), Texts{});
    EXPECT_EQ(drain(rich->channel()), (Texts{"d", "e"}));
    EXPECT_EQ(poor->channel().snapshot().counters.lost, 4U);
}

TEST(Topic, ASlowSubscriberKeepsTheNewestAndCostsOnlyItself) {
    Topics t;
    auto topic = t.topic("type topic\ncapacity 10");
    auto slow = t.follow(topic);
    auto quick = t.follow(topic);
    for (int i = 0; i < 100; ++i) {
        ASSERT_EQ(t.publish(*topic, std::to_string(i)), Push::kQueued);
        ASSERT_EQ(next(quick->channel()), std::to_string(i));
    }
    const Snapshot now = slow->channel().snapshot();
    EXPECT_EQ(now.settings.overflow, Overflow::kDropOldest);
    EXPECT_EQ(now.counters.dropped_oldest, 92U);
    EXPECT_EQ(next(slow->channel()), "92");
    EXPECT_EQ(topic->snapshot().state, State::kOk);
}

TEST(Topic, DropsTheExcessOrRefusesItForOneSubscriberAsThatOneSays) {
    Topics t;
    auto topic = t.topic("type topic\ncapacity 4\nhigh-watermark 100");
    auto newest = t.named(topic, "newest", "", "overflow drop-newest");
    auto reject = t.named(topic, "reject", "", "overflow reject");
    for (int i = 0; i < 6; ++i) EXPECT_EQ(t.publish(*topic, std::to_string(i)), Push::kQueued);
    EXPECT_EQ(newest->snapshot().counters.dropped_newest, 2U);
    EXPECT_EQ(reject->snapshot().counters.lost, 2U);
    EXPECT_EQ(drain(*newest), (Texts{"0", "1", "2", "3"}));
    EXPECT_EQ(drain(*reject), (Texts{"0", "1", "2", "3"}));
}

TEST(Topic, ServesReadersThatWait) {
    Topics t;
    auto topic = t.topic();
    auto one = t.follow(topic);
    auto two = t.follow(topic);
    Reader first, second;
    one->channel().take(first);
    two->channel().take(second);
    t.publish(*topic, "x");
    ASSERT_TRUE(first.done() && second.done());
    EXPECT_EQ(text(first.message), "x");
    EXPECT_EQ(text(second.message), "x");
}

TEST(Topic, ANamedSubscriptionIsSharedByItsReaders) {
    Topics t;
    auto topic = t.topic();
    auto alice = t.named(topic, "alice");
    Reader first, second;
    alice->take(first);
    alice->take(second);
    for (const char* body : {"a", "b", "c"}) t.publish(*topic, body);
    EXPECT_EQ(text(first.message), "a");
    EXPECT_EQ(text(second.message), "b");
    EXPECT_EQ(drain(*alice), (Texts{"c"}));
}

TEST(Topic, ANamedSubscriptionTakesOnLeaseAndBuries) {
    Topics t;
    auto topic = t.topic("type topic\nmax-deliveries 1");
    auto alice = t.named(topic, "alice");
    t.publish(*topic, "a");
    queue::MessageRef message;
    Leased lease;
    ASSERT_EQ(alice->try_lease(message, lease, 0), Take::kTaken);
    EXPECT_TRUE(alice->nack(lease.id, 0));
    EXPECT_EQ(alice->snapshot().dead, 1U);
    message.reset();
    EXPECT_EQ(t.messages_of(t.reader), 1U);
    ASSERT_TRUE(alice->control("purge"));
    EXPECT_EQ(t.messages_of(t.reader), 0U);
}

TEST(Topic, FiltersDecideWhoGetsWhat) {
    Topics t;
    auto topic = t.topic();
    auto urgent = t.named(topic, "urgent", "priority high");
    auto errors = t.follow(topic, "regex ^ERROR");
    auto calls = t.follow(topic, "method disk.*");
    t.publish(*topic, "ERROR one", queue::kHigh);
    t.publish(*topic, "fine", queue::kLow, {}, "disk.read");
    t.publish(*topic, "nobody's");
    EXPECT_EQ(drain(*urgent), (Texts{"ERROR one"}));
    EXPECT_EQ(drain(errors->channel()), (Texts{"ERROR one"}));
    EXPECT_EQ(drain(calls->channel()), (Texts{"fine"}));
    EXPECT_EQ(topic->snapshot().counters.unmatched, 1U);
    // A new filter counts from then on; a wrong one changes nothing.
    EXPECT_FALSE(urgent->subscription()->set_filter("priority low-high\nfoo"));
    EXPECT_EQ(urgent->subscription()->filter(), "priority 192\n");
    EXPECT_TRUE(urgent->snapshot().last_error.starts_with("filter: line 2: "));
    EXPECT_TRUE(urgent->subscription()->set_filter(""));
    t.publish(*topic, "all");
    EXPECT_EQ(drain(*urgent), (Texts{"all"}));
}

TEST(Topic, ChargesAFilterToItsSubscriber) {
    Topics t;
    auto topic = t.topic();
    auto one = t.follow(topic, "regex a");
    EXPECT_GT(t.bytes_of(t.reader), 1000U);
    ASSERT_TRUE(one->set_filter(""));
    EXPECT_EQ(t.bytes_of(t.reader), 0U);
    t.world.ledger.reload(
        [](uid_t) {
            access::Limits limits = access::kNoLimits;
            limits[static_cast<std::size_t>(access::Resource::kBytes)] = 1000;
            return limits;
        },
        access::kUnlimited);
    auto refused = one->set_filter("regex a");
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, EDQUOT);
    EXPECT_EQ(one->filter(), "");
}

TEST(Topic, AMulticastGoesToGroupsAndFilters) {
    Topics t;
    auto topic = t.topic("type multicast");
    auto red = t.named(topic, "red", "group red");
    auto both = t.named(topic, "both", "group red,blue");
    auto high = t.named(topic, "high", "priority high");
    auto all = t.named(topic, "all");
    t.publish(*topic, "to red", queue::kNormal, {"red"});
    t.publish(*topic, "to blue", queue::kHigh, {"blue"});
    t.publish(*topic, "to both", queue::kNormal, {"blue", "red"});
    t.publish(*topic, "to none");
    EXPECT_EQ(drain(*red), (Texts{"to red", "to both"}));
    EXPECT_EQ(drain(*both), (Texts{"to blue", "to red", "to both"}));  // by priority
    EXPECT_EQ(drain(*high), (Texts{"to blue"}));
    EXPECT_EQ(drain(*all), (Texts{"to blue", "to red", "to both", "to none"}));
}

TEST(Topic, RetainsTheLastOnesForNewcomersThatWantThem) {
    Topics t;
    auto topic = t.topic("type topic\nretain 3");
    for (int i = 0; i < 5; ++i) {
        t.publish(*topic, std::to_string(i), i % 2 ? queue::kHigh : queue::kNormal);
    }
    EXPECT_EQ(topic->snapshot().retained, 3U);
    EXPECT_EQ(topic->snapshot().retained_bytes, 3U);
    EXPECT_EQ(t.messages_of(t.publisher), 3U);
    auto one = t.follow(topic);
    t.publish(*topic, "5", queue::kHigh);
    EXPECT_EQ(drain(one->channel()), (Texts{"3", "5", "2", "4"}));  // by priority, then in order
    // One with a name is given its filter after it was made.
    auto alice = t.named(topic, "alice", "priority high");
    EXPECT_EQ(drain(*alice), (Texts{"3", "5"}));
    // What was published for it stays.
    auto bob = t.named(topic, "bob");
    t.publish(*topic, "live");
    ASSERT_TRUE(bob->subscription()->set_filter("priority high"));
    EXPECT_EQ(drain(*bob), (Texts{"3", "5", "live"}));
    ASSERT_TRUE(topic->control("retain 1"));
    EXPECT_EQ(topic->snapshot().retained, 1U);
    EXPECT_EQ(t.messages_of(t.publisher), 1U);
    ASSERT_TRUE(topic->control("purge"));
    EXPECT_EQ(t.messages_of(t.publisher), 0U);
    EXPECT_EQ(t.bytes_of(t.publisher), 0U);
    EXPECT_EQ(drain(t.follow(topic)->channel()), Texts{});
}

TEST(Topic, RetainsNoMoreThanItsBytesAndNothingThatExpired) {
    Topics t;
    auto topic = t.topic("type topic\nretain 100\nbytes 10\nttl 1s");
    for (const char* body : {"1234", "5678", "90ab"}) t.publish(*topic, body);
    EXPECT_EQ(topic->snapshot().retained, 2U);
    EXPECT_EQ(drain(t.follow(topic)->channel()), (Texts{"5678", "90ab"}));
    t.world.advance(2 * kSecond);
    EXPECT_EQ(drain(t.follow(topic)->channel()), Texts{});
}

TEST(Topic, MessagesExpireInSubscriptions) {
    Topics t;
    auto topic = t.topic("type topic\nttl 10s");
    auto patient = t.named(topic, "patient");
    auto hasty = t.named(topic, "hasty", "", "ttl 1s");
    t.publish(*topic, "x");
    t.world.advance(2 * kSecond);
    EXPECT_EQ(drain(*hasty), Texts{});
    EXPECT_EQ(drain(*patient), (Texts{"x"}));
}

TEST(Topic, GathersABatchInEachSubscription) {
    Topics t;
    auto topic = t.topic("type topic\nbatch 2 1s");
    auto one = t.follow(topic);
    t.publish(*topic, "a");
    EXPECT_EQ(next(one->channel()), "(empty)");
    t.publish(*topic, "b");
    EXPECT_EQ(drain(one->channel()), (Texts{"a", "b"}));
}

TEST(Topic, APausedSubscriptionGoesOnCollecting) {
    Topics t;
    auto topic = t.topic();
    auto alice = t.named(topic, "alice", "", "pause");
    EXPECT_EQ(t.publish(*topic, "a"), Push::kQueued);
    EXPECT_EQ(next(*alice), "(empty)");
    ASSERT_TRUE(alice->control("resume"));
    EXPECT_EQ(next(*alice), "a");
}

TEST(Topic, KeepsItsTypeWhileAnybodySubscribesOrSomethingIsRetained) {
    Topics t;
    auto topic = t.topic("type topic\nretain 1");
    auto one = t.follow(topic);
    auto refused = topic->control("type queue");
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, EBUSY);
    one.reset();
    t.publish(*topic, "x");
    EXPECT_FALSE(topic->control("type queue"));
    ASSERT_TRUE(topic->control("purge"));
    EXPECT_TRUE(topic->control("type queue"));
    EXPECT_EQ(topic->subscribe(kReader, t.reader), nullptr);
    EXPECT_EQ(t.name(topic, "alice").error().code, ENOTDIR);
    EXPECT_TRUE(topic->control("type multicast"));
    auto alice = t.named(topic, "alice");
    EXPECT_EQ(alice->control("type sync").error().code, EINVAL);
}

TEST(Topic, ARemovedTopicEndsTheSubscriptionsOfItsReaders) {
    Topics t;
    auto topic = t.topic();
    auto one = t.follow(topic);
    auto two = t.follow(topic);
    Reader reader;
    one->channel().take(reader);
    t.publish(*topic, "x");
    EXPECT_EQ(text(reader.message), "x");
    Reader later;
    one->channel().take(later);
    ASSERT_TRUE(t.registry.remove(Registry::kRootId, "t"));
    EXPECT_EQ(later.why, Wake::kRemoved);
    EXPECT_EQ(next(two->channel()), "(removed)");
    EXPECT_EQ(t.publish(*topic, "y"), Push::kRemoved);
    EXPECT_EQ(t.messages_of(t.reader), 1U);  // the reader has it
}

TEST(Topic, RefusesToGoWhileSomethingIsRetainedOrSomebodyHasAName) {
    Topics t;
    auto topic = t.topic("type topic\nretain 1");
    t.publish(*topic, "x");
    EXPECT_EQ(t.registry.remove(Registry::kRootId, "t").error().code, ENOTEMPTY);
    ASSERT_TRUE(topic->control("purge"));
    auto alice = t.named(topic, "alice");
    EXPECT_EQ(t.registry.remove(Registry::kRootId, "t").error().code, ENOTEMPTY);
    EXPECT_EQ(topic->remove().error().code, ENOTEMPTY);
    ASSERT_TRUE(t.registry.remove(topic->id(), "alice", Role::kSubscription));
    EXPECT_TRUE(t.registry.remove(Registry::kRootId, "t"));
}

TEST(Topic, TheEndOfTheDaemonEndsItsReaders) {
    Topics t;
    auto topic = t.topic();
    auto one = t.follow(topic);
    auto alice = t.named(topic, "alice");
    Reader first, second;
    one->channel().take(first);
    alice->take(second);
    t.registry.shut_down();
    EXPECT_EQ(first.why, Wake::kShutdown);
    EXPECT_EQ(second.why, Wake::kShutdown);
    EXPECT_EQ(topic->subscribe(kReader, t.reader), nullptr);
}

TEST(Topic, ASubscriptionOutlivesItsTopic) {
    Topics t;
    auto topic = t.topic();
    auto one = t.follow(topic);
    ASSERT_TRUE(t.registry.remove(Registry::kRootId, "t"));
    topic.reset();
    EXPECT_EQ(one->topic(), nullptr);
    EXPECT_TRUE(one->set_filter("priority 1"));
    EXPECT_EQ(one->filter(), "priority 1\n");
    EXPECT_EQ(next(one->channel()), "(removed)");
}

TEST(Topic, RingsForNamedSubscriptionsAndItself) {
    Topics t;
    auto topic = t.topic();
    auto one = t.follow(topic);
    const std::uint64_t before = t.world.bell.rings();
    t.publish(*topic, "x");
    EXPECT_EQ(t.world.bell.rings() - before, 1U);  // the topic's own
    auto alice = t.named(topic, "alice");
    t.publish(*topic, "y");
    EXPECT_EQ(t.world.bell.rings() - before, 3U);
}

TEST(Topic, OneOfAThousandNeverReads) {
    Topics t;
    auto topic = t.topic("type topic\ncapacity 10");
    std::vector<std::shared_ptr<Subscription>> all;
    for (int i = 0; i < 1000; ++i) all.push_back(t.follow(topic));
    for (int i = 0; i < 30; ++i) {
        ASSERT_EQ(t.publish(*topic, std::to_string(i)), Push::kQueued);
        for (std::size_t each = 1; each < all.size(); ++each) {
            ASSERT_EQ(next(all[each]->channel()), std::to_string(i));
        }
    }
    EXPECT_EQ(all[0]->channel().snapshot().depth, 8U);
    EXPECT_EQ(t.messages_of(t.reader), 8U);
    all.clear();
    EXPECT_EQ(t.messages_of(t.reader), 0U);
    EXPECT_EQ(topic->snapshot().subscriptions, 0U);
}

// ---- subscriptions whose publishers wait ----------------------------------------------------------

TEST(TopicBlocking, PublishersWaitUntilThereIsRoom) {
    Topics t;
    auto topic = t.topic();
    auto other = t.follow(topic);
    auto slow = t.named(topic, "slow", "", "capacity 10\noverflow block");
    for (int i = 0; i < 8; ++i) ASSERT_EQ(t.publish(*topic, std::to_string(i)), Push::kQueued);
    EXPECT_EQ(topic->snapshot().state, State::kPaused);
    EXPECT_TRUE(topic->full());
    EXPECT_EQ(t.publish(*topic, "no"), Push::kWait);
    PollSlot slot;
    int notified = 0;
    EXPECT_EQ(topic->poll(slot, std::make_unique<CountingTicket>(notified, POLLOUT)) & POLLOUT, 0U);
    Writer writer;
    writer.batch.add(t.message("waited"));
    topic->push(writer, nullptr);
    WriteTicket ticket;
    EXPECT_EQ(topic->try_gate(ticket), Gate::kWait);
    EXPECT_TRUE(writer.waits());
    EXPECT_EQ(drain(other->channel()).size(), 8U);  // nothing half published
    for (int i = 0; i < 5; ++i) next(*slow);
    EXPECT_TRUE(writer.waits());
    EXPECT_EQ(notified, 0);
    next(*slow);  // the low mark
    EXPECT_TRUE(writer.done());
    EXPECT_EQ(writer.why, Wake::kServed);
    EXPECT_EQ(notified, 1);
    EXPECT_EQ(topic->snapshot().state, State::kOk);
    EXPECT_EQ(drain(*slow), (Texts{"6", "7", "waited"}));
    EXPECT_EQ(drain(other->channel()), (Texts{"waited"}));
    topic->forget(slot);
}

TEST(TopicBlocking, WaitsForAllThatHaveNoRoom) {
    Topics t;
    auto topic = t.topic();
    auto one = t.named(topic, "one", "", "capacity 1\noverflow block");
    auto two = t.named(topic, "two", "", "capacity 1\noverflow block");
    ASSERT_EQ(t.publish(*topic, "a"), Push::kQueued);
    Writer writer;
    writer.batch.add(t.message("b"));
    topic->push(writer, nullptr);
    next(*one);
    EXPECT_TRUE(writer.waits());
    next(*two);
    EXPECT_TRUE(writer.done());
    EXPECT_EQ(next(*one), "b");
    EXPECT_EQ(next(*two), "b");
}

TEST(TopicBlocking, ABatchGoesToAllOrToNobody) {
    Topics t;
    auto topic = t.topic();
    auto free = t.follow(topic);
    auto tight = t.named(topic, "tight", "prefix t", "capacity 4\noverflow block");
    ASSERT_EQ(t.publish(*topic, "t1"), Push::kQueued);
    ASSERT_EQ(t.publish(*topic, "t2"), Push::kQueued);
    drain(free->channel());
    queue::Batch batch;
    for (const char* body : {"x", "t3", "y", "t4", "t5"}) batch.add(t.message(body));
    EXPECT_EQ(topic->try_push(batch, queue::Via::kOther, false, nullptr), Push::kWait);
    EXPECT_EQ(batch.count, 5U);
    EXPECT_EQ(drain(free->channel()), Texts{});
    drain(*tight);
    EXPECT_EQ(topic->try_push(batch, queue::Via::kOther, false, nullptr), Push::kQueued);
    EXPECT_EQ(drain(*tight), (Texts{"t3", "t4", "t5"}));
    EXPECT_EQ(drain(free->channel()), (Texts{"x", "t3", "y", "t4", "t5"}));
}

TEST(TopicBlocking, TheReserveIsForCriticalMessages) {
    Topics t;
    auto topic = t.topic();
    auto slow = t.named(topic, "slow", "", "capacity 10\noverflow block");
    for (int i = 0; i < 8; ++i) t.publish(*topic, std::to_string(i));
    EXPECT_EQ(t.publish(*topic, "no"), Push::kWait);
    EXPECT_EQ(t.publish(*topic, "c1", queue::kCritical), Push::kQueued);
    EXPECT_EQ(t.publish(*topic, "c2", queue::kCritical), Push::kQueued);
    EXPECT_EQ(t.publish(*topic, "c3", queue::kCritical), Push::kWait);
    PollSlot slot;
    EXPECT_EQ(topic->poll(slot, nullptr, true) & POLLOUT, 0U);
    Writer urgent, usual;
    usual.batch.add(t.message("usual"));
    urgent.batch.add(t.message("urgent", queue::kCritical));
    topic->push(usual, nullptr);
    topic->push(urgent, nullptr);
    EXPECT_EQ(next(*slow), "c1");
    EXPECT_TRUE(urgent.done());
    EXPECT_TRUE(usual.waits());
    drain(*slow);
    EXPECT_TRUE(usual.done());
}

TEST(TopicBlocking, WhatNeverFitsIsLostAndWaitsForNobody) {
    Topics t;
    auto topic = t.topic();
    auto tiny = t.named(topic, "tiny", "", "bytes 3\noverflow block");
    EXPECT_EQ(t.publish(*topic, "12345"), Push::kQueued);
    EXPECT_EQ(tiny->snapshot().counters.lost, 1U);
    EXPECT_EQ(t.publish(*topic, "1"), Push::kQueued);
    EXPECT_EQ(drain(*tiny), (Texts{"1"}));
}

TEST(TopicBlocking, APublisherGoesOnWhenTheSubscriptionIsPurgedRemovedOrBlocksNoMore) {
    for (const char* way : {"purge", "overflow drop-oldest", "capacity 1000", "remove"}) {
        Topics t;
        auto topic = t.topic();
        auto slow = t.named(topic, "slow", "", "capacity 1\noverflow block");
        t.publish(*topic, "a");
        Writer writer;
        writer.batch.add(t.message("b"));
        topic->push(writer, nullptr);
        ASSERT_TRUE(writer.waits()) << way;
        if (std::string_view(way) == "remove") {
            slow->subscription()->end();
        } else {
            ASSERT_TRUE(slow->control(way));
        }
        EXPECT_TRUE(writer.done()) << way;
        next(*slow);
        EXPECT_EQ(topic->snapshot().state, State::kOk) << way;
    }
}

TEST(TopicBlocking, AWriterWaitsNoLongerThanTheTimeout) {
    Topics t;
    auto topic = t.topic("type topic\ntimeout 2s");
    auto slow = t.named(topic, "slow", "", "capacity 1\noverflow block");
    t.publish(*topic, "a");
    Writer writer;
    writer.batch.add(t.message("b"));
    topic->push(writer, nullptr);
    t.world.advance(3 * kSecond);
    EXPECT_EQ(writer.why, Wake::kTimedOut);
    EXPECT_EQ(drain(*slow), (Texts{"a"}));
    EXPECT_EQ(t.messages_of(t.publisher), 1U);  // still in the waiter's hands
}

// ---- recursive ------------------------------------------------------------------------------------

struct Tree : Topics {
    std::map<std::uint64_t, bool> forbidden;
    std::atomic<int> asked{0};
    Tree() {
        registry.let_receive([this](std::uint64_t channel, const access::Identity& who) {
            ++asked;
            EXPECT_EQ(who.uid, kReader.uid);
            return !forbidden[channel];
        });
    }
};

TEST(TopicRecursive, TakesWhatIsPublishedBelow) {
    Tree t;
    auto top = t.make(Registry::kRootId, "top");
    auto between = t.make(top->id(), "between", "type queue");
    auto leaf = t.make(between->id(), "leaf");
    auto side = t.make(top->id(), "side");
    auto all = t.named(top, "all", "recursive on");
    auto flat = t.named(top, "flat");
    auto own = t.follow(leaf);
    EXPECT_EQ(t.publish(*leaf, "leaf"), Push::kQueued);
    EXPECT_EQ(t.publish(*side, "side"), Push::kQueued);
    EXPECT_EQ(t.publish(*top, "top"), Push::kQueued);
    EXPECT_EQ(drain(*all), (Texts{"leaf", "side", "top"}));
    EXPECT_EQ(drain(*flat), (Texts{"top"}));
    EXPECT_EQ(drain(own->channel()), (Texts{"leaf"}));
    EXPECT_EQ(side->snapshot().counters.unmatched, 0U);
    // Off again.
    ASSERT_TRUE(all->subscription()->set_filter(""));
    t.publish(*leaf, "leaf");
    t.publish(*top, "top");
    EXPECT_EQ(drain(*all), (Texts{"top"}));
}

TEST(TopicRecursive, NumbersItsMessagesItself) {
    Tree t;
    auto top = t.make(Registry::kRootId, "top");
    auto leaf = t.make(top->id(), "leaf");
    auto all = t.named(top, "all", "recursive on");
    for (int i = 0; i < 3; ++i) {
        t.publish(*leaf, "x");
        t.publish(*top, "x");
    }
    std::uint64_t expected = 0;
    queue::MessageRef got;
    while (all->try_take(got) == Take::kTaken) {
        EXPECT_EQ(got->envelope.sequence, ++expected);
        all->delivered(*got);
        got.reset();
    }
    EXPECT_EQ(expected, 6U);
}

TEST(TopicRecursive, TakesNothingThatItMayNotRead) {
    Tree t;
    auto top = t.make(Registry::kRootId, "top");
    auto open = t.make(top->id(), "open");
    auto closed = t.make(top->id(), "closed");
    t.forbidden[closed->id()] = true;
    auto all = t.named(top, "all", "recursive on");
    for (auto& topic : {open, closed, top}) t.publish(*topic, std::to_string(topic->id()));
    EXPECT_EQ(drain(*all), (Texts{std::to_string(open->id()), std::to_string(top->id())}));
    // The answer is kept until something changes, as chmod does.
    const int asked = t.asked;
    for (int i = 0; i < 10; ++i) t.publish(*open, "x");
    EXPECT_EQ(t.asked, asked);
    drain(*all);
    t.forbidden[closed->id()] = false;
    t.forbidden[open->id()] = true;
    ASSERT_TRUE(t.registry.change(
        closed->id(), 1, [](const Attributes& made) { return made; },
        [](Attributes& changed) { changed.mode = 0644; }));
    t.publish(*open, "open");
    t.publish(*closed, "closed");
    EXPECT_EQ(drain(*all), (Texts{"closed"}));
}

TEST(TopicRecursive, TakesNothingFromBelowWithoutAnybodyToAsk) {
    Topics t;
    auto top = t.make(Registry::kRootId, "top");
    auto leaf = t.make(top->id(), "leaf");
    auto all = t.named(top, "all", "recursive on");
    t.publish(*leaf, "leaf");
    t.publish(*top, "top");
    EXPECT_EQ(drain(*all), (Texts{"top"}));
}

TEST(TopicRecursive, AGlobChoosesChannels) {
    Tree t;
    auto top = t.make(Registry::kRootId, "top");
    auto a = t.make(top->id(), "a");
    auto log = t.make(a->id(), "log");
    auto logs = t.named(top, "logs", "recursive on\nchannel **/log");
    auto direct = t.named(top, "direct", "recursive on\nchannel *");
    for (auto& topic : {top, a, log}) t.publish(*topic, t.registry.path(topic->id()));
    EXPECT_EQ(drain(*logs), (Texts{"top/a/log"}));
    EXPECT_EQ(drain(*direct), (Texts{"top", "top/a"}));
    // Names that change count at once.
    ASSERT_TRUE(t.registry.rename(a->id(), "log", top->id(), "moved", true));
    t.publish(*log, "moved");
    EXPECT_EQ(drain(*logs), Texts{});
    EXPECT_EQ(drain(*direct), (Texts{"moved"}));
}

TEST(TopicRecursive, FollowsChannelsThatMoveInAndOut) {
    Tree t;
    auto top = t.make(Registry::kRootId, "top");
    auto leaf = t.make(Registry::kRootId, "leaf");
    auto all = t.named(top, "all", "recursive on");
    t.publish(*leaf, "1");
    ASSERT_TRUE(t.registry.rename(Registry::kRootId, "leaf", top->id(), "leaf", true));
    t.publish(*leaf, "2");
    ASSERT_TRUE(t.registry.rename(top->id(), "leaf", Registry::kRootId, "leaf", true));
    t.publish(*leaf, "3");
    EXPECT_EQ(drain(*all), (Texts{"2"}));
}

TEST(TopicRecursive, PublishersBelowWaitForOneThatBlocks) {
    Tree t;
    auto top = t.make(Registry::kRootId, "top");
    auto a = t.make(top->id(), "a");
    auto b = t.make(top->id(), "b");
    auto slow = t.named(top, "slow", "recursive on", "capacity 2\noverflow block");
    ASSERT_EQ(t.publish(*a, "1"), Push::kQueued);
    ASSERT_EQ(t.publish(*b, "2"), Push::kQueued);
    Writer to_a, to_b, to_top;
    to_a.batch.add(t.message("a"));
    to_b.batch.add(t.message("b"));
    to_top.batch.add(t.message("top"));
    a->push(to_a, nullptr);
    b->push(to_b, nullptr);
    top->push(to_top, nullptr);
    EXPECT_TRUE(to_a.waits() && to_b.waits() && to_top.waits());
    Texts got;
    for (int i = 0; i < 5; ++i) got.push_back(next(*slow));
    EXPECT_TRUE(to_a.done() && to_b.done() && to_top.done());
    std::sort(got.begin() + 2, got.end());
    EXPECT_EQ(got, (Texts{"1", "2", "a", "b", "top"}));
}

}  // namespace
}  // namespace ipcfs::channel
