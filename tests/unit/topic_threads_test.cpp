// Topics under concurrent publishers, subscribers that come and go, and removal.
#include <atomic>
#include <condition_variable>
#include <map>
#include <thread>

#include "topic_fixture.hpp"

namespace ipcfs::channel {
namespace {

using queue::Wake;

// A reader or a writer that waits on its own thread.
template <class Kind>
class WaitingOnThread final : public Kind {
public:
    void finish() noexcept override {
        std::scoped_lock hold(mutex_);
        is_done_ = true;
        done_.notify_one();
    }
    Wake wait() {
        std::unique_lock hold(mutex_);
        EXPECT_TRUE(done_.wait_for(hold, std::chrono::seconds(60), [&] { return is_done_; }));
        return this->why;
    }

private:
    std::mutex mutex_;
    std::condition_variable done_;
    bool is_done_ = false;
};
using WaitingReader = WaitingOnThread<queue::ReadWaiter>;
using WaitingWriter = WaitingOnThread<queue::WriteWaiter>;

// Publishes, waiting as a blocking writer does.
Wake publish_waiting(Topics& t, Channel& to, std::string_view body) {
    queue::Batch batch;
    batch.add(t.message(body));
    switch (to.try_push(batch, queue::Via::kOther, true, nullptr)) {
        case Push::kQueued: return Wake::kServed;
        case Push::kWait: break;
        default: return Wake::kRemoved;
    }
    WaitingWriter writer;
    writer.batch = std::move(batch);
    to.push(writer, nullptr);
    return writer.wait();
}

Texts follow_until_end(Channel& channel) {
    Texts got;
    for (;;) {
        queue::MessageRef message;
        if (channel.try_take(message) == Take::kEmpty) {
            WaitingReader reader;
            channel.take(reader);
            if (reader.wait() != Wake::kServed) return got;
            message = std::move(reader.message);
        }
        if (!message) return got;
        got.push_back(text(message));
        channel.delivered(*message);
        if (got.back() == "end") return got;
    }
}

TEST(TopicThreads, EverySubscriberSeesOneOrderOfConcurrentPublishers) {
    constexpr int kEach = 500;
    Topics t;
    auto topic = t.topic("type topic\ncapacity 100000");
    std::vector<std::shared_ptr<Subscription>> subscribers;
    for (int i = 0; i < 8; ++i) subscribers.push_back(t.follow(topic));
    std::vector<Texts> seen(subscribers.size());
    std::vector<std::thread> readers, publishers;
    for (std::size_t i = 0; i < subscribers.size(); ++i) {
        readers.emplace_back([&, i] { seen[i] = follow_until_end(subscribers[i]->channel()); });
    }
    for (char name : {'a', 'b', 'c', 'd'}) {
        publishers.emplace_back([&, name] {
            for (int i = 0; i < kEach; ++i) {
                EXPECT_EQ(t.publish(*topic, name + std::to_string(i)), Push::kQueued);
            }
        });
    }
    for (auto& thread : publishers) thread.join();
    t.publish(*topic, "end");
    for (auto& thread : readers) thread.join();
    ASSERT_EQ(seen[0].size(), 4U * kEach + 1);
    for (const Texts& other : seen) EXPECT_EQ(other, seen[0]);
    std::map<char, int> at;
    for (const std::string& body : seen[0]) {
        if (body != "end") {
            EXPECT_EQ(body.substr(1), std::to_string(at[body[0]]++));
        }
    }
    EXPECT_EQ(t.messages_of(t.reader), 0U);
    EXPECT_EQ(t.messages_of(t.publisher), 0U);
}

TEST(TopicThreads, RecursiveOnesSeeOneOrderOfPublishersAtSeveralTopics) {
    constexpr int kEach = 300;
    Topics t;
    t.registry.let_receive([](std::uint64_t, const access::Identity&) { return true; });
    auto top = t.make(Registry::kRootId, "top", "type topic\ncapacity 100000");
    std::vector<std::shared_ptr<Channel>> topics{top};
    for (const char* name : {"a", "b", "c"}) topics.push_back(t.make(top->id(), name));
    std::vector<std::shared_ptr<Channel>> all;
    for (int i = 0; i < 4; ++i) {
        all.push_back(t.named(top, "s" + std::to_string(i), "recursive on"));
    }
    std::vector<std::thread> publishers;
    for (const auto& topic : topics) {
        publishers.emplace_back([&] {
            for (int i = 0; i < kEach; ++i) {
                EXPECT_EQ(t.publish(*topic, std::to_string(topic->id()) + ":" + std::to_string(i)),
                          Push::kQueued);
            }
        });
    }
    for (auto& thread : publishers) thread.join();
    const Texts first = drain(*all[0]);
    EXPECT_EQ(first.size(), 4U * kEach);
    for (std::size_t i = 1; i < all.size(); ++i) EXPECT_EQ(drain(*all[i]), first);
}

TEST(TopicThreads, ABlockingSubscriptionLosesNothingUnderManyPublishers) {
    constexpr int kEach = 300;
    Topics t;
    auto topic = t.topic();
    auto slow = t.named(topic, "slow", "", "capacity 5\noverflow block");
    auto other = t.named(topic, "other", "", "capacity 100000");
    Texts got;
    std::thread reader([&] { got = follow_until_end(*slow); });
    std::vector<std::thread> publishers;
    for (char name : {'a', 'b', 'c', 'd'}) {
        publishers.emplace_back([&, name] {
            for (int i = 0; i < kEach; ++i) {
                // The clock stands still, so nobody's time is ever over.
                EXPECT_EQ(publish_waiting(t, *topic, name + std::to_string(i)), Wake::kServed);
            }
        });
    }
    for (auto& thread : publishers) thread.join();
    EXPECT_EQ(publish_waiting(t, *topic, "end"), Wake::kServed);
    reader.join();
    EXPECT_EQ(got.size(), 4U * kEach + 1);
    EXPECT_EQ(drain(*other), got);
    EXPECT_EQ(slow->snapshot().counters.lost, 0U);
}

TEST(TopicThreads, CompetingReadersShareANamedSubscription) {
    constexpr int kAll = 2000;
    Topics t;
    auto topic = t.topic("type topic\ncapacity 100000");
    auto alice = t.named(topic, "alice");
    std::vector<std::thread> readers;
    std::vector<Texts> seen(3);
    for (auto& mine : seen) {
        readers.emplace_back([&] { mine = follow_until_end(*alice); });
    }
    for (int i = 0; i < kAll; ++i) t.publish(*topic, std::to_string(i));
    for (std::size_t i = 0; i < seen.size(); ++i) t.publish(*topic, "end");
    for (auto& thread : readers) thread.join();
    std::map<std::string, int> count;
    for (const Texts& mine : seen) {
        for (const std::string& body : mine) ++count[body];
    }
    EXPECT_EQ(count.size(), kAll + 1U);
    for (const auto& [body, times] : count) EXPECT_EQ(times, body == "end" ? 3 : 1) << body;
}

TEST(TopicThreads, SubscribersComeAndGoAndTheTopicIsRemovedWhilePublished) {
    for (int round = 0; round < 5; ++round) {
        Topics t;
        t.registry.let_receive([](std::uint64_t, const access::Identity&) { return true; });
        auto top = t.make(Registry::kRootId, "top");
        auto topic = t.make(top->id(), "t", "type topic\nretain 5");
        std::vector<std::thread> threads;
        for (int i = 0; i < 2; ++i) {
            threads.emplace_back([&] {
                for (;;) {
                    Push push = t.publish(*topic, "x");
                    if (push == Push::kRemoved) return;
                    EXPECT_EQ(push, Push::kQueued);
                    t.publish(*top, "y");
                }
            });
        }
        for (int i = 0; i < 2; ++i) {
            threads.emplace_back([&, i] {
                const std::string name = "n" + std::to_string(i);
                for (int k = 0; k < 60; ++k) {
                    auto mine = topic->subscribe(kReader, t.reader);
                    if (!mine) return;
                    if (k % 3 == 0) {
                        EXPECT_TRUE(mine->set_filter("recursive on\nprefix x"));
                    }
                    queue::MessageRef got;
                    if (mine->channel().try_take(got) == Take::kTaken) {
                        mine->channel().delivered(*got);
                    }
                    auto named = t.name(top, name);
                    if (!named) continue;
                    EXPECT_TRUE((*named)->subscription()->set_filter("recursive on"));
                    EXPECT_TRUE((*named)->subscription()->set_filter("priority 1"));
                    (void)(*named)->control("purge");
                    while (!t.registry.remove(top->id(), name, Role::kSubscription)) {
                        ASSERT_TRUE((*named)->control("purge"));
                    }
                }
            });
        }
        threads[2].join();
        threads[3].join();
        // Publishers keep it full of retained messages: it goes when they have none between.
        while (!t.registry.remove(top->id(), "t")) {
            ASSERT_TRUE(topic->control("retain 0"));
        }
        threads[0].join();
        threads[1].join();
        EXPECT_EQ(t.messages_of(t.reader), 0U);
        EXPECT_EQ(t.messages_of(t.publisher), 0U);
        EXPECT_EQ(t.bytes_of(t.reader), 0U);
        EXPECT_EQ(t.world.env.recursion.subscriptions, 0U);
    }
}

}  // namespace
}  // namespace ipcfs::channel
