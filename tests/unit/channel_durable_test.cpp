// What a channel's keeper tells its store, step by step; a store in memory is looked into. What a disk and a
// restart make of it is tested in tests/system/durable_test.cpp.
#include <thread>

#include "engine_fixture.hpp"
#include "memory_store.hpp"

namespace ipcfs::channel {
namespace {

using store::Place;

struct KeptWorld {
    std::shared_ptr<store::MemoryStore::Contents> contents =
        std::make_shared<store::MemoryStore::Contents>();
    store::MemoryStore store{contents};
    World world;
    Environment env{world.clock, world.timers, world.pool, world.ledger, &store};
    Registry registry{env, Settings{}, 4};

    KeptWorld() {
        struct Nothing final : store::Recovery {
            void channel(std::uint64_t, std::span<const std::byte>, std::uint64_t) override {}
            void message(const store::Recovered&) override {}
            void request(std::uint64_t) override {}
        } nothing;
        EXPECT_TRUE(store.recover(nothing));
    }

    std::shared_ptr<Channel> make(const std::string& settings) {
        Attributes attributes;
        attributes.mode = 0755;
        auto made = registry.create(Registry::kRootId, "c", attributes, world.ledger.account(1000));
        EXPECT_TRUE(made) << made.error().operation;
        auto done = (*made)->control(settings);
        EXPECT_TRUE(done) << done.error().operation;
        return *made;
    }
    // The places of what is kept, in the order of its numbers.
    std::vector<Place> places(const Channel& of) const {
        std::vector<Place> all;
        auto at = contents->channels.find(of.id());
        if (at == contents->channels.end()) return all;
        for (const auto& [key, message] : at->second.messages) all.push_back(message.state.place);
        return all;
    }
};
using Places = std::vector<Place>;

TEST(ChannelDurable, AMessageIsKeptUntilItIsDelivered) {
    KeptWorld t;
    auto jobs = t.make("durable async");
    t.world.push_all(*jobs, {"a", "b"});
    EXPECT_EQ(t.places(*jobs), (Places{Place::kQueued, Place::kQueued}));
    queue::MessageRef message;
    ASSERT_EQ(jobs->try_take(message), Take::kTaken);
    EXPECT_EQ(t.places(*jobs), (Places{Place::kTaken, Place::kQueued}));
    jobs->give_back(message);
    EXPECT_EQ(t.places(*jobs), (Places{Place::kQueued, Place::kQueued}));
    EXPECT_EQ(drain(*jobs), (Texts{"a", "b"}));
    EXPECT_EQ(t.places(*jobs), Places{});
}

TEST(ChannelDurable, AMessageForAWaitingReaderIsKeptToo) {
    KeptWorld t;
    auto jobs = t.make("durable async");
    Reader reader;
    jobs->take(reader);
    t.world.push(*jobs, "a");
    ASSERT_TRUE(reader.done());
    EXPECT_EQ(t.places(*jobs), Places{Place::kTaken});
    jobs->delivered(*reader.message);
    EXPECT_EQ(t.places(*jobs), Places{});
}

TEST(ChannelDurable, ADeadLetterIsKeptAsOneAndRedrivenAsAMessage) {
    KeptWorld t;
    auto jobs = t.make("durable async");
    t.world.push(*jobs, "a");
    queue::MessageRef message;
    Leased lease;
    ASSERT_EQ(jobs->try_lease(message, lease, 0), Take::kTaken);
    EXPECT_EQ(t.places(*jobs), Places{Place::kTaken});
    ASSERT_TRUE(jobs->bury(lease.id));
    EXPECT_EQ(t.places(*jobs), Places{Place::kDead});
    ASSERT_TRUE(jobs->control("redrive"));
    EXPECT_EQ(t.places(*jobs), Places{Place::kQueued});
    ASSERT_TRUE(jobs->control("purge"));
    EXPECT_EQ(t.places(*jobs), Places{});
}

TEST(ChannelDurable, TheSettingTakesInWhatIsThereAndLetsGoOfIt) {
    KeptWorld t;
    auto jobs = t.make("");
    t.world.push_all(*jobs, {"a", "b"});
    EXPECT_EQ(t.places(*jobs), Places{});
    ASSERT_TRUE(jobs->control("durable async"));
    EXPECT_EQ(t.places(*jobs), (Places{Place::kQueued, Place::kQueued}));
    t.world.push(*jobs, "c");
    EXPECT_EQ(t.places(*jobs).size(), 3U);
    ASSERT_TRUE(jobs->control("durable off"));
    EXPECT_EQ(t.places(*jobs), Places{});
    EXPECT_EQ(drain(*jobs), (Texts{"a", "b", "c"}));
}

TEST(ChannelDurable, AWriteWithSyncEndsWhenItIsOnDisk) {
    KeptWorld t;
    auto jobs = t.make("durable sync");
    queue::Batch batch = t.world.batch("a");
    ASSERT_EQ(jobs->try_push(batch, queue::Via::kOther, true, nullptr), Push::kCommit);
    Writer writer;
    writer.batch = std::move(batch);
    jobs->push(writer, nullptr);
    for (int i = 0; i < 100'000 && writer.waits(); ++i) std::this_thread::yield();
    ASSERT_TRUE(writer.done());
    EXPECT_EQ(writer.why, queue::Wake::kServed);
    EXPECT_EQ(drain(*jobs), Texts{"a"});
}

}  // namespace
}  // namespace ipcfs::channel
