// Leases, subscriptions, groups and durable sends of the client header on a real mount.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <fcntl.h>
#include <map>
#include <mutex>
#include <set>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include "daemon_fixture.hpp"
#include "expected.hpp"
#include <ipcfs/ipcfs.hpp>

namespace ipcfs::test {
namespace {

class ClientDelivery : public MountedTest {
protected:
    ipcfs::Channel open(const char* name, ChannelOptions options = {}) {
        auto opened = ipcfs::Channel::open(at(name), options);
        EXPECT_TRUE(opened) << opened.error().message();
        return std::move(*opened);
    }
    ipcfs::Subscription subscribe(const char* topic, const char* name,
                                  std::string_view filter = {}) {
        SubscriptionOptions options;
        options.create = true;
        options.filter = filter;
        auto opened = ipcfs::Subscription::open(at(topic), name, options);
        EXPECT_TRUE(opened) << opened.error().message();
        return std::move(*opened);
    }
    std::string take(ipcfs::Channel& channel) {
        auto message = channel.receive(kPatience);
        return message ? std::string(message->text()) : message.error().message();
    }
    std::string take(ipcfs::Subscription& subscription) {
        auto message = subscription.receive(kPatience);
        return message ? std::string(message->text()) : message.error().message();
    }
};

// ---- leases ---------------------------------------------------------------------------------------

TEST_F(ClientDelivery, AnAcknowledgedMessageIsGone) {
    make_channel("jobs");
    auto channel = open("jobs");
    EXPECT_OK(channel.send("one"));
    auto lease = channel.lease(kPatience);
    ASSERT_TRUE(lease) << lease.error().message();
    EXPECT_TRUE(*lease);
    EXPECT_EQ(lease->message().text(), "one");
    EXPECT_FALSE((*lease)->redelivered());
    EXPECT_EQ(status("jobs", "leased"), "1");
    EXPECT_FAILS(EAGAIN, channel.try_lease());
    EXPECT_OK(lease->ack());
    EXPECT_FALSE(*lease);
    EXPECT_EQ(lease->message().text(), "one");  // it outlives the lease
    EXPECT_FAILS(ESTALE, lease->ack());
    EXPECT_EQ(status("jobs", "leased"), "0");
    EXPECT_EQ(depth("jobs"), 0);
}

TEST_F(ClientDelivery, WhatIsNotAcknowledgedComesBackFlagged) {
    make_channel("jobs");
    auto channel = open("jobs");
    EXPECT_OK(channel.send("one"));
    EXPECT_OK(channel.send("two"));
    {
        auto lease = channel.lease(kPatience);
        ASSERT_TRUE(lease);
        EXPECT_EQ(lease->message().text(), "one");
    }
    // Its file is closed, which the daemon hears of a moment later.
    ASSERT_TRUE(wait_until([&] { return status("jobs", "leased") == "0"; }));
    auto lease = channel.lease(kPatience);
    ASSERT_TRUE(lease);
    EXPECT_EQ(lease->message().text(), "one");
    EXPECT_TRUE(lease->message().redelivered());
    EXPECT_OK(lease->nack());
    EXPECT_EQ(take(channel), "one");  // at the front again
    EXPECT_EQ(take(channel), "two");
}

TEST_F(ClientDelivery, ADelayedOneComesLater) {
    make_channel("jobs");
    auto channel = open("jobs");
    EXPECT_OK(channel.send("one"));
    auto lease = channel.lease(kPatience);
    ASSERT_TRUE(lease);
    EXPECT_OK(lease->nack(std::chrono::hours(1)));
    EXPECT_FAILS(EAGAIN, channel.try_lease());
    EXPECT_EQ(status("jobs", "delayed"), "1");
    EXPECT_OK(channel.send("two"));
    lease = channel.lease(kPatience);
    ASSERT_TRUE(lease);
    EXPECT_EQ(lease->message().text(), "two");
    const auto start = std::chrono::steady_clock::now();
    EXPECT_OK(lease->nack(50ms));
    lease = channel.lease(kPatience);
    ASSERT_TRUE(lease);
    EXPECT_GE(std::chrono::steady_clock::now() - start, 50ms);
    EXPECT_OK(lease->ack());
}

TEST_F(ClientDelivery, ALeaseRunsOutUnlessItIsExtended) {
    make_channel("jobs", "lease 1s\n");  // long enough to be extended on any machine
    auto channel = open("jobs");
    EXPECT_OK(channel.send("kept"));
    auto kept = channel.lease(kPatience);
    ASSERT_TRUE(kept);
    EXPECT_OK(kept->extend(std::chrono::hours(1)));
    EXPECT_OK(channel.send("lost"));
    auto lost = channel.lease(kPatience);
    ASSERT_TRUE(lost);
    auto again = channel.lease(kPatience);
    ASSERT_TRUE(again);
    EXPECT_EQ(again->message().text(), "lost");
    EXPECT_TRUE(again->message().redelivered());
    EXPECT_FAILS(ESTALE, lost->extend(1s));
    EXPECT_FALSE(*lost);
    EXPECT_FAILS(ESTALE, lost->ack());
    EXPECT_OK(again->extend(1h));
    EXPECT_OK(again->ack());
    EXPECT_OK(kept->ack());
    EXPECT_EQ(depth("jobs"), 0);
}

TEST_F(ClientDelivery, ABuriedOneIsADeadLetterUntilItIsRedriven) {
    make_channel("jobs");
    auto channel = open("jobs");
    EXPECT_OK(channel.send("hopeless"));
    auto lease = channel.lease(kPatience);
    ASSERT_TRUE(lease);
    EXPECT_OK(lease->dead());
    EXPECT_FAILS(EAGAIN, channel.try_lease());
    EXPECT_EQ(status("jobs", "dead"), "1");
    EXPECT_EQ(ctl("jobs", "redrive\n"), 0);
    EXPECT_EQ(take(channel), "hopeless");
}

TEST_F(ClientDelivery, ManyLeasesAreHeldAtOnceAndTheirFilesAreUsedAgain) {
    make_channel("jobs");
    auto channel = open("jobs");
    constexpr int kMany = 40;
    for (int round = 0; round < 3; ++round) {
        for (int i = 0; i < kMany; ++i) EXPECT_OK(channel.send(std::to_string(i)));
        std::vector<Lease> leases;
        for (int i = 0; i < kMany; ++i) {
            auto lease = channel.lease(kPatience);
            ASSERT_TRUE(lease) << lease.error().message();
            EXPECT_EQ(lease->message().text(), std::to_string(i));
            leases.push_back(std::move(*lease));
        }
        EXPECT_EQ(status("jobs", "leased"), std::to_string(kMany));
        for (Lease& lease : leases) EXPECT_OK(lease.ack());
    }
    // Free ones are kept, but not without a bound; the kernel tells of a close after it.
    EXPECT_TRUE(wait_until([&] { return number(status("jobs", "readers")) <= 16; }))
        << status("jobs", "readers");
}

TEST_F(ClientDelivery, ALargeOrPooledBodyCanBeReadAgainAfterItCameBack) {
    make_channel("video", "payloads pooled\n");
    auto channel = open("video");
    const std::string frame(3 << 20, 'f');
    auto loan = channel.loan(frame.size());
    ASSERT_TRUE(loan);
    ASSERT_TRUE(loan->pooled());
    std::memcpy(loan->data(), frame.data(), frame.size());
    EXPECT_OK(channel.send(std::move(*loan)));
    for (int i = 0; i < 3; ++i) {
        auto lease = channel.lease(kPatience);
        ASSERT_TRUE(lease) << lease.error().message();
        EXPECT_EQ(lease->message().redelivered(), i > 0);
        EXPECT_TRUE(lease->message().text() == frame);
        EXPECT_OK(i < 2 ? lease->nack() : lease->ack());
    }
    // Its chunk is free again.
    EXPECT_TRUE(wait_until([&] {
        auto next = channel.loan(frame.size(), LoanOptions{.timeout = Timeout::zero()});
        return next.has_value() && next->pooled();
    }));
}

TEST_F(ClientDelivery, AForkedChildHoldsNoLeaseAndEndsNone) {
    make_channel("jobs");
    auto channel = open("jobs");
    EXPECT_OK(channel.send("one"));
    EXPECT_OK(channel.send("two"));
    auto lease = channel.lease(kPatience);
    ASSERT_TRUE(lease);
    const pid_t child = ::fork();
    if (child == 0) {
        auto told = lease->ack();
        if (told || told.error().code != ESTALE) ::_exit(1);
        *lease = Lease();  // nor by destroying it
        // But it can take one of its own, from the same Channel.
        auto own = channel.lease(kPatience);
        if (!own || own->message().text() != "two" || !own->ack()) ::_exit(2);
        ::_exit(0);
    }
    int status_of = 0;
    ::waitpid(child, &status_of, 0);
    EXPECT_EQ(status_of, 0);
    EXPECT_OK(lease->ack());
    EXPECT_EQ(depth("jobs"), 0);
    EXPECT_EQ(status("jobs", "leased"), "0");
}

TEST_F(ClientDelivery, AKilledHolderGivesBackWhatItHeld) {
    make_channel("jobs");
    auto channel = open("jobs");
    EXPECT_OK(channel.send("one"));
    int ready[2];
    ASSERT_EQ(::pipe(ready), 0);
    const pid_t child = ::fork();
    if (child == 0) {
        auto lease = channel.lease(kPatience);
        const char got = lease ? 'y' : 'n';
        (void)!::write(ready[1], &got, 1);
        ::pause();
        ::_exit(0);
    }
    char got = 0;
    ASSERT_EQ(::read(ready[0], &got, 1), 1);
    EXPECT_EQ(got, 'y');
    ::close(ready[0]);
    ::close(ready[1]);
    EXPECT_FAILS(EAGAIN, channel.try_receive());
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    auto back = channel.receive(kPatience);
    ASSERT_TRUE(back);
    EXPECT_TRUE(back->redelivered());
}

TEST_F(ClientDelivery, ThreadsThatLeaseFromOneChannelShareItsMessages) {
    make_channel("jobs");
    auto channel = open("jobs");
    constexpr int kMessages = 400;
    std::atomic<int> done{0};
    std::mutex mutex;
    std::multiset<std::string> seen;
    std::vector<std::thread> crew;
    for (int i = 0; i < 4; ++i) {
        crew.emplace_back([&] {
            while (done < kMessages) {
                auto lease = channel.lease(20ms);
                if (!lease) continue;
                {
                    const std::scoped_lock hold(mutex);
                    seen.emplace(lease->message().text());
                }
                EXPECT_OK(lease->ack());
                ++done;
            }
        });
    }
    for (int i = 0; i < kMessages; ++i) EXPECT_OK(channel.send(std::to_string(i)));
    for (std::thread& each : crew) each.join();
    EXPECT_EQ(seen.size(), static_cast<std::size_t>(kMessages));
    for (int i = 0; i < kMessages; ++i) EXPECT_EQ(seen.count(std::to_string(i)), 1U);
}

TEST_F(ClientDelivery, ALeaseThatWaitsEndsWithItsTimeAndWithTheChannel) {
    make_channel("jobs");
    auto channel = open("jobs");
    EXPECT_FAILS(ETIMEDOUT, channel.lease(10ms));
    std::thread waits([&] { EXPECT_FAILS(EPIPE, channel.lease(kPatience)); });
    EXPECT_TRUE(wait_until([&] { return status("jobs", "readers") == "1"; }));
    EXPECT_EQ(::rmdir(at("jobs").c_str()), 0);
    waits.join();
}

TEST_F(ClientDelivery, TypesWithoutLeasesSaySo) {
    make_channel("sync", "type sync\n");
    make_channel("topic", "type topic\n");
    auto sync = open("sync");
    auto topic = open("topic");
    EXPECT_FAILS(ENOENT, sync.try_lease());
    EXPECT_FAILS(ENOENT, topic.try_lease());
}

// ---- subscriptions --------------------------------------------------------------------------------

TEST_F(ClientDelivery, AFollowerGetsWhatIsPublishedFromThenOn) {
    make_channel("logs", "type topic\n");
    auto topic = open("logs");
    EXPECT_OK(topic.send("missed"));
    auto first = ipcfs::Subscription::follow(at("logs"));
    auto second = ipcfs::Subscription::follow(at("logs"));
    ASSERT_TRUE(first && second);
    EXPECT_OK(topic.send("one"));
    EXPECT_OK(topic.send("two"));
    for (auto* each : {&*first, &*second}) {
        EXPECT_EQ(take(*each), "one");
        EXPECT_EQ(take(*each), "two");
        EXPECT_FAILS(EAGAIN, each->try_receive());
        EXPECT_FAILS(ENOTSUP, each->lease());
        EXPECT_FAILS(ENOTSUP, each->filter());
    }
    EXPECT_EQ(status("logs", "subscribers"), "2");
    first = ipcfs::Subscription::follow(at("logs"));  // the one before ends
    EXPECT_TRUE(wait_until([&] { return status("logs", "subscribers") == "2"; }));
    make_channel("jobs");
    EXPECT_FAILS(EINVAL, ipcfs::Subscription::follow(at("jobs")));
    EXPECT_FAILS(ENOENT, ipcfs::Subscription::follow(at("nowhere")));
}

TEST_F(ClientDelivery, ANamedSubscriptionLastsAndHasLeases) {
    make_channel("logs", "type topic\n");
    auto topic = open("logs");
    EXPECT_FAILS(ENOENT, ipcfs::Subscription::open(at("logs"), "alice"));
    { auto made = subscribe("logs", "alice"); }
    EXPECT_OK(topic.send("one"));
    EXPECT_OK(topic.send("two"));
    auto alice = ipcfs::Subscription::open(at("logs"), "alice");
    ASSERT_TRUE(alice) << alice.error().message();
    EXPECT_EQ(alice->name(), "alice");
    auto lease = alice->lease(kPatience);
    ASSERT_TRUE(lease) << lease.error().message();
    EXPECT_EQ(lease->message().text(), "one");
    EXPECT_FAILS(ENOTEMPTY, ipcfs::Subscription::remove(at("logs"), "alice"));
    EXPECT_OK(lease->ack());
    EXPECT_EQ(take(*alice), "two");
    SubscriptionOptions exclusive;
    exclusive.create = exclusive.exclusive = true;
    EXPECT_FAILS(EEXIST, ipcfs::Subscription::open(at("logs"), "alice", exclusive));
    EXPECT_OK(ipcfs::Subscription::remove(at("logs"), "alice"));
    EXPECT_FAILS(EPIPE, alice->receive(kPatience));
    for (const char* name : {"", ".", "..", "a/b"})
        EXPECT_FAILS(EINVAL, ipcfs::Subscription::open(at("logs"), name));
}

TEST_F(ClientDelivery, AFilterIsSetReadAndRefusedWithAReason) {
    make_channel("logs", "type topic\n");
    auto topic = open("logs");
    auto urgent = subscribe("logs", "urgent", "priority high-critical\nmethod disk*\n");
    auto all = subscribe("logs", "all");
    SendOptions options;
    options.method = "disk-full";
    EXPECT_OK(topic.send("calm", options));
    options.priority = 192;
    EXPECT_OK(topic.send("urgent", options));
    options.method = "login";
    EXPECT_OK(topic.send("other", options));
    EXPECT_EQ(take(urgent), "urgent");
    EXPECT_FAILS(EAGAIN, urgent.try_receive());
    for (const char* each : {"urgent", "other", "calm"}) EXPECT_EQ(take(all), each);
    auto said = urgent.filter();
    ASSERT_TRUE(said);
    EXPECT_NE(said->find("method disk*"), std::string::npos) << *said;
    auto wrong = urgent.set_filter("colour blue\n");
    EXPECT_FAILS(EINVAL, wrong);
    EXPECT_NE(wrong.error().reason.find("colour"), std::string::npos) << wrong.error().message();
    EXPECT_EQ(*urgent.filter(), *said);
    SubscriptionOptions bad;
    bad.create = true;
    bad.filter = "colour blue\n";
    EXPECT_FAILS(EINVAL, ipcfs::Subscription::open(at("logs"), "never", bad));
    EXPECT_FAILS(ENOENT, ipcfs::Subscription::open(at("logs"), "never"));
    EXPECT_OK(urgent.set_filter(""));
    EXPECT_OK(topic.send("anything"));
    EXPECT_EQ(take(urgent), "anything");
}

TEST_F(ClientDelivery, AMulticastGoesToTheGroupsThatItNames) {
    make_channel("orders", "type multicast\n");
    auto channel = open("orders");
    auto europe = subscribe("orders", "europe", "group eu\n");
    auto america = subscribe("orders", "america", "group us,ca\n");
    SendOptions options;
    options.group = "eu";
    EXPECT_OK(channel.send("one", options));
    options.group = "ca,eu";
    EXPECT_OK(channel.send("two", options));
    Batch batch;
    options.group = "us";
    EXPECT_OK(batch.add("three", options));
    EXPECT_OK(channel.send_batch(batch));
    EXPECT_EQ(take(europe), "one");
    EXPECT_EQ(take(europe), "two");
    EXPECT_FAILS(EAGAIN, europe.try_receive());
    EXPECT_EQ(take(america), "two");
    EXPECT_EQ(take(america), "three");
    options.group = std::string_view();
    const std::string too_long(70000, 'g');
    options.group = too_long;
    EXPECT_FAILS(EINVAL, channel.send("x", options));
}

TEST_F(ClientDelivery, ALargePayloadReachesEverySubscriber) {
    make_channel("films", "type topic\n");
    auto topic = open("films");
    auto one = subscribe("films", "one");
    auto two = subscribe("films", "two");
    const std::string film(5 << 20, 'x');
    EXPECT_OK(topic.send(film));
    for (auto* each : {&one, &two}) {
        auto message = each->receive(kPatience);
        ASSERT_TRUE(message) << message.error().message();
        auto body = message->map();
        ASSERT_TRUE(body) << body.error().message();
        EXPECT_TRUE(message->text() == film);
    }
}

TEST_F(ClientDelivery, CallbacksComeFromASubscriptionToo) {
    make_channel("logs", "type topic\n");
    auto topic = open("logs");
    auto subscription = subscribe("logs", "called");
    auto channel = std::make_shared<ipcfs::Channel>(std::move(subscription.channel()));
    std::atomic<int> calls{0};
    auto callbacks = ipcfs::on_message(
        channel, [](const std::function<void()>& task) { task(); },
        [&](const Expected<Message>& message) { calls += message ? 1 : 0; });
    ASSERT_TRUE(callbacks);
    EXPECT_OK(topic.send("one"));
    EXPECT_OK(topic.send("two"));
    EXPECT_TRUE(wait_until([&] { return calls == 2; }));
}

// ---- sends that wait for a disk -------------------------------------------------------------------

TEST_F(ClientDelivery, DurableSendsOfEverySizeArriveWholeAndInOrder) {
    make_channel("jobs", "durable sync\n");
    auto channel = open("jobs");
    // Around what goes by ioctl, in one piece and in two, and what is a payload.
    const std::size_t sizes[] = {0, 1, 4096, 4097, 15263, 15264, 15265, 16384, 1 << 20, 3 << 20};
    for (const std::size_t size : sizes)
        EXPECT_OK(channel.send(std::string(size, static_cast<char>('a' + size % 26))));
    for (const std::size_t size : sizes) {
        auto message = channel.receive(kPatience);
        ASSERT_TRUE(message) << message.error().message();
        EXPECT_TRUE(message->text() == std::string(size, static_cast<char>('a' + size % 26)))
            << size;
        EXPECT_EQ(message->sender_pid(), static_cast<std::uint32_t>(::getpid()));
    }
}

TEST_F(ClientDelivery, ADurableChannelThatIsFullMakesSendersWaitAsAnyOther) {
    make_channel("jobs", "durable sync\ncapacity 10\n");
    auto channel = open("jobs");
    while (channel.try_send("x")) {
    }
    EXPECT_FAILS(EAGAIN, channel.try_send("x"));
    SendOptions options;
    options.timeout = 10ms;
    EXPECT_FAILS(ETIMEDOUT, channel.send("x", options));
    std::thread waits([&] { EXPECT_OK(channel.send("waited")); });
    while (depth("jobs") > 2) EXPECT_OK(channel.receive(kPatience));
    waits.join();
    EXPECT_EQ(ctl("jobs", "overflow reject\n"), 0);
    while (channel.try_send("x")) {
    }
    EXPECT_FAILS(ENOBUFS, channel.try_send("x"));
}

TEST_F(ClientDelivery, ManyDurableSendersAtOnceLoseNothing) {
    make_channel("jobs", "durable sync\ncapacity 10000\n");
    auto channel = open("jobs");
    constexpr int kSenders = 8;
    constexpr int kEach = 50;
    std::vector<std::thread> senders;
    for (int s = 0; s < kSenders; ++s)
        senders.emplace_back([&, s] {
            for (int i = 0; i < kEach; ++i)
                EXPECT_OK(channel.send(std::to_string(s) + " " + std::to_string(i)));
        });
    for (std::thread& each : senders) each.join();
    std::map<int, int> last;
    for (int i = 0; i < kSenders * kEach; ++i) {
        auto message = channel.receive(kPatience);
        ASSERT_TRUE(message) << message.error().message();
        int sender = -1;
        int number = -1;
        ASSERT_EQ(std::sscanf(std::string(message->text()).c_str(), "%d %d", &sender, &number), 2);
        const auto [known, is_first] = last.try_emplace(sender, number);
        if (!is_first) {
            EXPECT_EQ(number, known->second + 1);
        }
        known->second = number;
    }
}

// ---- over the death of the daemon -----------------------------------------------------------------

TEST_F(ClientDelivery, WhoIsConnectedNoticesNothingWhenTheDaemonIsReplaced) {
    if (version("survives") != "yes") GTEST_SKIP() << version("why-not-survives");
    constexpr int kKills = 8;
    make_channel("jobs", "durable async\ncapacity 1000\n");
    make_channel("work", "durable async\ncapacity 1000\nmax-deliveries 1000\n");
    std::atomic<bool> over = false;
    // What came by plain receives and what was leased; the second time only if flagged.
    const auto note = [](std::set<long>& seen, const Message& message) {
        const long number = std::atol(std::string(message.text()).c_str());
        EXPECT_TRUE(seen.insert(number).second || message.redelivered()) << number;
    };
    const auto sends = [&](const char* name, long& sent) {
        auto channel = open(name);
        for (; !over; ++sent) {
            auto done = channel.send(std::to_string(sent));
            ASSERT_TRUE(done) << sent << ": " << done.error().message();
        }
        EXPECT_OK(channel.send("-1"));
    };
    long to_jobs = 0, to_work = 0;
    std::set<long> received, leased;
    std::vector<std::thread> threads;
    threads.emplace_back([&] { sends("jobs", to_jobs); });
    threads.emplace_back([&] { sends("work", to_work); });
    threads.emplace_back([&] {
        auto channel = open("jobs");
        while (!received.contains(-1)) {
            auto message = channel.receive(kPatience);
            ASSERT_TRUE(message) << message.error().message();
            note(received, *message);
        }
    });
    threads.emplace_back([&] {
        auto channel = open("work");
        while (!leased.contains(-1)) {
            auto lease = channel.lease(kPatience);
            ASSERT_TRUE(lease) << lease.error().message();
            note(leased, lease->message());
            // One that a dead daemon gave comes again.
            auto done = lease->ack();
            EXPECT_TRUE(done || done.error().code == ESTALE) << done.error().message();
        }
    });
    for (int i = 0; i < kKills && !HasFailure(); ++i) {
        std::this_thread::sleep_for(30ms);
        replace_server();
    }
    over = true;
    for (std::thread& each : threads) each.join();
    EXPECT_EQ(received.size(), static_cast<std::size_t>(to_jobs) + 1);
    EXPECT_EQ(leased.size(), static_cast<std::size_t>(to_work) + 1);
}

}  // namespace
}  // namespace ipcfs::test
