// The power goes off at every operation on the journal, and syncs fail: what was said to be durable is
// there exactly once and in order, and nothing is there that nobody put.
#include <cstdio>
#include <deque>

#include "silent_logger.hpp"
#include "store_disk.hpp"
#include "store_world.hpp"

namespace ipcfs::store {
namespace {

// What a run has done, as its client knows it.
struct History {
    struct Fate {
        std::string content;
        bool durable = false;         // was told so
        bool failed = false;          // was told EIO
        bool erased = false;          // perhaps
        bool erased_durably = false;  // was told so
    };
    std::map<Key, Fate> messages;
    std::set<std::uint64_t> channels;  // durable
};

// No two sectors are the same: the disk would not notice that one was written again.
std::string content_of(Key key) {
    const std::string word = std::to_string(key.channel) + "/" + std::to_string(key.sequence) + " ";
    std::string content;
    while (content.size() < 20 + key.sequence * 37 % 700) content += word;
    return content;
}

class Power : public testing::Test {
protected:
    Options options(const std::string& boot) {
        Options options;
        options.directory = directory_.path + "/store";
        options.segment_bytes = 16 << 10;
        options.boot = boot;
        options.flush_after = 3600 * kSecond;
        options.medium = [this](const std::string&) { return disk_.medium(); };
        return options;
    }

    // A client's life: puts, moves, erasures, in groups, of which some are waited for. Ends early
    // when the power goes.
    void work(Store& store, std::mt19937_64& random, int rounds) {
        struct Waiting {
            Wait wait;
            std::vector<Key> put;
            Key erased;
        };
        std::deque<Waiting> waiting;
        const auto reap = [&](bool all) {
            while (!waiting.empty() && (all || waiting.size() > 3)) {
                auto& first = waiting.front();
                const int error = first.wait.error();
                for (const Key key : first.put)
                    (error == 0 ? history_.messages[key].durable : history_.messages[key].failed) =
                        true;
                if (first.erased.channel != 0 && error == 0)
                    history_.messages[first.erased].erased_durably = true;
                waiting.pop_front();
            }
        };
        for (const std::uint64_t id : {1U, 2U}) {
            if (history_.channels.contains(id)) continue;
            const auto made = store.put_channel(id, as_span("channel"));
            if (!made) return;
            if (wait_durable(store, *made) != 0) return;
            history_.channels.insert(id);
        }
        for (int i = 0; i < rounds; ++i) {
            const std::uint64_t what = random() % 10;
            if (what < 7) {
                std::vector<Put> together;
                std::vector<std::string> texts(1 + random() % 3);
                auto& wait = waiting.emplace_back();
                for (auto& text : texts) {
                    const Key key{1 + random() % 2, ++sequence_};
                    text = content_of(key);
                    together.push_back(put_of(key, "head", text));
                    wait.put.push_back(key);
                    history_.messages[key].content = text;
                }
                const auto done = store.put(together, 0);
                if (!done) {
                    for (const Key key : wait.put) history_.messages.erase(key);
                    waiting.pop_back();
                    break;
                }
                if (random() % 4 == 0)
                    waiting.pop_back();  // nobody waits
                else
                    store.when_durable(*done, wait.wait);
            } else {
                reap(false);
                std::vector<Key> live;
                for (const auto& [key, fate] : history_.messages)
                    if (fate.durable && !fate.erased) live.push_back(key);
                if (live.empty()) continue;
                if (what == 7) {
                    (void)store.move(live[random() % live.size()], {Place::kTaken, true, 1, 0});
                    continue;
                }
                // So many that segments are emptied, with copies of what is left in them.
                std::shuffle(live.begin(), live.end(), random);
                live.resize(live.size() > 15 ? live.size() - 8 : 1);
                bool all = true;
                for (const Key key : live) {
                    const auto done = store.erase(key);
                    all = all && done;
                    if (!done) break;
                    history_.messages[key].erased = true;
                    auto& wait = waiting.emplace_back();
                    wait.erased = key;
                    store.when_durable(*done, wait.wait);
                }
                if (!all) break;
            }
            if (random() % 3 == 0) reap(false);
        }
        reap(true);
        copied_ += store.health().copied_bytes;
    }

    void check(const Told& told) {
        std::size_t found = 0;
        for (const auto& [key, fate] : history_.messages) {
            const auto channel = told.channels.find(key.channel);
            const bool there =
                channel != told.channels.end() && channel->second.messages.contains(key.sequence);
            const std::string name =
                std::to_string(key.channel) + "/" + std::to_string(key.sequence);
            if (there) {
                ++found;
                ASSERT_EQ(channel->second.messages.at(key.sequence).content, fate.content);
                ASSERT_FALSE(fate.erased_durably) << name << " came back";
            } else {
                ASSERT_FALSE(fate.durable && !fate.erased) << name << " is lost";
            }
        }
        ASSERT_EQ(found, told.messages) << "something was invented";
        for (const std::uint64_t id : history_.channels)
            ASSERT_TRUE(told.channels.contains(id)) << "channel " << id << " is lost";
    }

    // From what came back, the history goes on: what is not there was never put.
    void adopt(const Told& told) {
        std::erase_if(history_.messages, [&](const auto& each) {
            const auto channel = told.channels.find(each.first.channel);
            if (channel == told.channels.end() ||
                !channel->second.messages.contains(each.first.sequence))
                return true;
            return false;
        });
        for (auto& [key, fate] : history_.messages)
            fate = {fate.content, true, false, false, false};
    }

    TempDirectory directory_{std::filesystem::exists("/dev/shm") ? "/dev/shm" : nullptr};
    Disk disk_;
    History history_;
    std::uint64_t sequence_ = 0;
    std::uint64_t copied_ = 0;
};

TEST_F(Power, OffAtAnyOperationLosesNothingThatWasDurable) {
    const std::uint64_t number = seed();
    SCOPED_TRACE("IPCFS_TEST_SEED=" + std::to_string(number));
    std::mt19937_64 random(number);
    std::printf("seed %llu\n", static_cast<unsigned long long>(number));
    std::uint64_t dropped = 0;
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(25);
    std::uint64_t cases = 0;
    constexpr std::uint64_t kFewest = 30;  // also where that takes longer
    for (std::uint64_t end = 0; std::chrono::steady_clock::now() < until || cases < kFewest;
         ++end) {
        bool reached = false;
        for (const auto rest : {Disk::Rest::kNothing, Disk::Rest::kAll, Disk::Rest::kSome}) {
            SCOPED_TRACE("power off at operation " + std::to_string(end) + ", rest " +
                         std::to_string(static_cast<int>(rest)));
            std::filesystem::remove_all(directory_.path + "/store");
            disk_.restart(Disk::Rest::kNothing, random);
            disk_.clear();
            history_ = {};
            sequence_ = 0;
            ++cases;
            disk_.end_at(end);
            {
                SilentLogger silent;
                SegmentStore store(options("first"), silent);
                Told told;
                if (store.recover(told) && store.open()) work(store, random, 300);
            }
            reached = reached || disk_.off();
            // Twice more: the power goes off in the recovery, too, and then while it goes on.
            for (int life = 0; life < 3; ++life) {
                disk_.restart(rest, random);
                if (life < 2) disk_.end_at(life == 0 ? random() % 6 : 10 + random() % 40);
                KeepingLogger log;
                SegmentStore store(options("boot " + std::to_string(life)), log);
                Told told;
                const auto done = store.recover(told);
                if (!done) {
                    ASSERT_TRUE(disk_.off()) << done.error().message();
                    continue;
                }
                ASSERT_FALSE(store.health().damaged) << store.health().text;
                check(told);
                if (HasFatalFailure()) return;
                if (!store.open()) continue;
                if (told.messages < history_.messages.size()) ++dropped;
                adopt(told);
                work(store, random, 30);
            }
        }
        if (!reached && end > 20) break;
    }
    std::printf(
        "%llu power failures, in %llu of them something that was not durable was lost; "
        "%llu bytes copied\n",
        static_cast<unsigned long long>(cases), static_cast<unsigned long long>(dropped),
        static_cast<unsigned long long>(copied_));
    EXPECT_GT(dropped, 10U);
    EXPECT_GT(copied_, 10'000U) << "nothing has been emptied";
}

TEST_F(Power, OffAndBackFlagsThatMarksMayBeMissing) {
    std::mt19937_64 random(1);
    SilentLogger silent;
    {
        SegmentStore store(options("first"), silent);
        Told told;
        ASSERT_TRUE(store.recover(told));
        EXPECT_FALSE(store.may_have_lost_marks());
        ASSERT_TRUE(store.open());
        disk_.end_at(disk_.operations());
        work(store, random, 5);
    }
    disk_.restart(Disk::Rest::kNothing, random);
    SegmentStore store(options("second"), silent);
    Told told;
    ASSERT_TRUE(store.recover(told));
    EXPECT_TRUE(store.may_have_lost_marks());
    EXPECT_EQ(store.generation(), 2U);
}

// One sync fails: those who waited for it are told so, and their puts are gone; everything else is there.
TEST_F(Power, ASyncThatFailsIsEioForThoseWhoWaitedForItAlone) {
    std::size_t all_failed = 0;
    for (std::uint64_t failing = 3; failing < 40; ++failing) {
        SCOPED_TRACE("sync " + std::to_string(failing) + " fails");
        std::mt19937_64 random(failing);
        std::filesystem::remove_all(directory_.path + "/store");
        disk_.restart(Disk::Rest::kNothing, random);
        disk_.clear();
        history_ = {};
        sequence_ = 0;
        KeepingLogger log;
        std::size_t failed = 0;
        {
            SegmentStore store(options("first"), log);
            Told told;
            ASSERT_TRUE(store.recover(told));
            ASSERT_TRUE(store.open());
            disk_.fail_sync(failing);
            work(store, random, 300);
            for (const auto& [key, fate] : history_.messages) failed += fate.failed ? 1 : 0;
            const auto health = store.health();
            EXPECT_FALSE(health.failed) << health.text;
            if (health.failed_syncs != 0) {
                EXPECT_TRUE(health.degraded());
                EXPECT_FALSE(log.lines().empty());
            }
            disk_.fail_sync(UINT64_MAX);  // should it not have come to that one yet
            ASSERT_EQ(wait_durable(store, *put_one(store, {1, ++sequence_}, "goes on")), 0);
            history_.messages[{1, sequence_}] = {"goes on", true, false, false, false};
            // What nobody waited for was appended again, and is durable with the rest by now.
            for (auto& [key, fate] : history_.messages)
                if (!fate.failed) fate.durable = true;
        }
        disk_.restart(failing % 2 == 0 ? Disk::Rest::kNothing : Disk::Rest::kSome, random);
        SegmentStore store(options("second"), log);
        Told told;
        const auto recovered = store.recover(told);
        ASSERT_TRUE(recovered) << recovered.error().message();
        ASSERT_FALSE(store.health().damaged) << store.health().text;
        check(told);
        if (HasFatalFailure()) return;
        for (const auto& [key, fate] : history_.messages) {
            if (!fate.failed) continue;
            EXPECT_FALSE(told.channels.at(key.channel).messages.contains(key.sequence))
                << "a put that had failed came back";
        }
        all_failed += failed;
    }
    EXPECT_GT(all_failed, 0U);
    EXPECT_GT(copied_, 0U);
}

TEST_F(Power, SyncsThatAllFailLatchTheStoreAndEverybodyIsTold) {
    std::mt19937_64 random(7);
    KeepingLogger log;
    SegmentStore store(options("first"), log);
    Told told;
    ASSERT_TRUE(store.recover(told));
    ASSERT_EQ(wait_durable(store, *store.put_channel(1, as_span("c"))), 0);
    ASSERT_TRUE(eventually([&] { return disk_.syncs() >= 3; }));
    disk_.fail_sync(disk_.syncs(), true);
    Wait waits[3];
    std::vector<Lsn> ends;
    for (std::uint64_t i = 1; i <= 3; ++i) ends.push_back(*put_one(store, {1, i}, "never"));
    for (std::size_t i = 0; i < 3; ++i) store.when_durable(ends[i], waits[i]);
    for (auto& wait : waits) EXPECT_EQ(wait.error(), EIO);
    EXPECT_TRUE(eventually([&] {
        const auto more = put_one(store, {1, 100 + random() % 1000000}, "more");
        if (more) {
            EXPECT_EQ(wait_durable(store, *more), EIO);
        }
        return store.health().failed;
    }));
    EXPECT_EQ(put_one(store, {1, 9}, "refused").error().code, EIO);
    EXPECT_FALSE(log.lines().empty());
    store.close();
    Wait late;
    store.when_durable(1, late);
    EXPECT_EQ(late.error(), 0);
}

}  // namespace
}  // namespace ipcfs::store
