// A disk that is full: what is refused, what is not, and that there is room again.
#include <cstdio>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <thread>

#include "silent_logger.hpp"
#include "store_world.hpp"

namespace ipcfs::store {
namespace {

class Full : public testing::Test {
protected:
    void SetUp() override {
        // In a mount namespace of this thread's own, so that nothing is left behind.
        if (::unshare(CLONE_NEWNS) != 0) GTEST_SKIP() << "no mount namespace: not root?";
        ASSERT_EQ(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
        if (::mount("tmpfs", directory_.path.c_str(), "tmpfs", 0, "size=1m") != 0)
            GTEST_SKIP() << "no tmpfs";
        mounted_ = true;
    }
    void TearDown() override {
        if (mounted_) {
            EXPECT_EQ(::umount2(directory_.path.c_str(), MNT_DETACH), 0);
        }
    }
    Options options() {
        Options options;
        options.directory = directory_.path + "/store";
        return options;
    }

    TempDirectory directory_;
    bool mounted_ = false;
};

TEST_F(Full, ADiskRefusesPutsTakesErasuresAndHasRoomAgain) {
    for (const std::size_t size : {100U, 1000U, 9000U}) {
        SCOPED_TRACE("messages of " + std::to_string(size));
        std::filesystem::remove_all(directory_.path + "/store");
        std::set<std::uint64_t> there;
        std::uint64_t next = 1;
        const auto text = [&](std::uint64_t i) {
            return std::string(size, static_cast<char>('a' + i % 26));
        };
        // Until there is no room even after a while.
        const auto fill = [&](Store& store) {
            int refusals = 0;
            while (refusals < 40) {
                const auto put = put_one(store, {1, next}, text(next));
                if (put) {
                    there.insert(next++);
                    EXPECT_EQ(wait_durable(store, *put), 0);
                    refusals = 0;
                    continue;
                }
                EXPECT_EQ(put.error().code, ENOSPC) << put.error().message();
                if (put.error().code != ENOSPC) return;
                ++refusals;
                ::usleep(5000);
            }
        };
        for (int round = 0; round < 3; ++round) {
            SCOPED_TRACE("round " + std::to_string(round));
            KeepingLogger log;
            SegmentStore store(options(), log);
            Told told;
            const auto done = store.recover(told);
            ASSERT_TRUE(done) << done.error().message();
            EXPECT_FALSE(store.health().damaged) << store.health().text;
            ASSERT_EQ(told.messages, there.size());
            for (const std::uint64_t i : there)
                ASSERT_EQ(told.channels[1].messages.at(i).content, text(i));
            if (round == 0) {
                ASSERT_TRUE(store.put_channel(1, as_span("c")));
            }
            fill(store);
            const std::size_t most = there.size();
            EXPECT_TRUE(store.health().full);
            EXPECT_GT(most * size, 150'000U);
            // The older half goes, as readers take it; then there is room for more.
            for (std::size_t i = 0; i < most / 2; ++i) {
                ASSERT_TRUE(store.erase({1, *there.begin()}));
                there.erase(there.begin());
            }
            EXPECT_TRUE(eventually([&] {
                const auto put = put_one(store, {1, next}, text(next));
                if (put) there.insert(next++);
                return put.has_value();
            })) << store.health().text;
            const std::size_t before = there.size();
            fill(store);
            std::printf("size %zu: %zu fit, %zu more after half was erased\n", size, most,
                        there.size() - before);
            EXPECT_GT(there.size() - before, most / 10);
        }
        // All of it goes.
        SilentLogger silent;
        SegmentStore store(options(), silent);
        Told told;
        ASSERT_TRUE(store.recover(told));
        for (const std::uint64_t i : there) ASSERT_TRUE(store.erase({1, i}));
        EXPECT_TRUE(eventually([&] { return !store.health().full; }));
    }
}

// Marks and erasures in bursts, as deliveries that end together make them, while writers try again and
// again.
TEST_F(Full, ADiskHasRoomAgainForWritersThatKeepTrying) {
    // From the marks to the erasures: before, while and after the cleaner tries again.
    for (const int pause : {0, 10'000, 20'000, 120'000}) {
        SCOPED_TRACE("erased after " + std::to_string(pause) + " us");
        std::filesystem::remove_all(directory_.path + "/store");
        const std::string text(2000, 't');
        constexpr State kTaken{Place::kTaken, true, 1, 0};
        std::uint64_t first = 1, next = 1;
        {
            KeepingLogger log;
            SegmentStore store(options(), log);
            Told told;
            ASSERT_TRUE(store.recover(told));
            ASSERT_TRUE(store.put_channel(1, as_span("c")));
            const auto put = [&] {
                const auto done = put_one(store, {1, next}, text);
                if (!done) return false;
                ++next;
                EXPECT_EQ(wait_durable(store, *done), 0);
                return true;
            };
            int refusals = 0;
            while (refusals < 40) {
                if (put()) {
                    refusals = 0;
                    continue;
                }
                ++refusals;
                ::usleep(5000);
            }
            const std::uint64_t most = next - 1;
            for (int round = 0; round < 5; ++round) {
                SCOPED_TRACE("round " + std::to_string(round));
                const std::uint64_t from = first;
                first += round == 0 ? most / 2 : most / 4;
                for (std::uint64_t i = from; i < first; ++i)
                    EXPECT_TRUE(store.move({1, i}, kTaken));
                std::thread reader([&] {
                    ::usleep(static_cast<unsigned>(pause));
                    for (std::uint64_t i = from; i < first; ++i) EXPECT_TRUE(store.erase({1, i}));
                });
                std::uint64_t more = 0;
                EXPECT_TRUE(eventually([&] {
                    while (more < most / 4 && put()) ++more;
                    return more == most / 4;
                })) << more
                    << " of " << most / 4 << ": " << store.health().text;
                reader.join();
                if (HasFailure()) return;
            }
            EXPECT_EQ(log.lines(), "");
            // One that is marked keeps its mark, wherever it is by then.
            for (std::uint64_t i = first; i < next; i += 2) EXPECT_TRUE(store.move({1, i}, kTaken));
            ::usleep(100'000);
        }
        SilentLogger silent;
        SegmentStore store(options(), silent);
        Told told;
        ASSERT_TRUE(store.recover(told));
        EXPECT_FALSE(store.health().damaged) << store.health().text;
        EXPECT_EQ(told.messages, next - first);
        for (const auto& [sequence, message] : told.channels[1].messages) {
            EXPECT_GE(sequence, first);
            EXPECT_EQ(message.content, text);
            EXPECT_EQ(message.state, (sequence - first) % 2 == 0 ? kTaken : State{}) << sequence;
        }
    }
}

TEST_F(Full, ADiskRefusesTheFirstFilesAndNothingOfThemIsLeft) {
    const std::string fat = directory_.path + "/fat";
    const Fd file(::open(fat.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    SilentLogger silent;
    SegmentStore store(options(), silent);
    Told told;
    ASSERT_TRUE(store.recover(told));
    for (off_t size = 4096; ::posix_fallocate(file.get(), 0, size) == 0; size += 4096) continue;
    for (int i = 0; i < 2; ++i) {
        EXPECT_EQ(store.put_channel(1, as_span("c")).error().code, ENOSPC);
        EXPECT_FALSE(store.health().degraded()) << store.health().text;
        EXPECT_FALSE(std::filesystem::exists(options().directory + "/current"));
        EXPECT_FALSE(std::filesystem::exists(options().directory + "/current.new"));
    }
    ASSERT_EQ(::ftruncate(file.get(), 0), 0);
    ASSERT_TRUE(store.put_channel(1, as_span("c")));
    ASSERT_EQ(wait_durable(store, *put_one(store, {1, 1}, "fits")), 0);
}

TEST_F(Full, ADiskRefusesPayloads) {
    SilentLogger silent;
    SegmentStore store(options(), silent);
    Told told;
    ASSERT_TRUE(store.recover(told));
    ASSERT_TRUE(store.open());
    const Fd zeros(::open("/dev/zero", O_RDONLY | O_CLOEXEC));
    EXPECT_EQ(store.save_payload(1, zeros.get(), 0, 4 << 20, true).error().code, ENOSPC);
    EXPECT_TRUE(store.save_payload(1, zeros.get(), 0, 10000, true));
    EXPECT_TRUE(store.open_payload(1));
}

}  // namespace
}  // namespace ipcfs::store
