// Many at once, and much: writers that share syncs, a disk that is full, a million messages.
#include <cstdio>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <thread>

#include "store_world.hpp"

namespace ipcfs::store {
namespace {

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr std::uint64_t kMany = 100'000;
#else
constexpr std::uint64_t kMany = 1'000'000;
#endif

double seconds_since(std::chrono::steady_clock::time_point start) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// A disk that takes a millisecond for a sync, wherever the test runs.
class SlowMedium final : public Medium {
public:
    explicit SlowMedium(std::unique_ptr<Medium> real) : real_(std::move(real)) {}
    Result<std::vector<std::string>> list() override { return real_->list(); }
    Result<std::unique_ptr<Region>> make(const std::string& name, std::size_t size) override {
        return slow(real_->make(name, size));
    }
    Result<std::unique_ptr<Region>> open(const std::string& name) override {
        return slow(real_->open(name));
    }
    Result<std::vector<std::byte>> read(const std::string& name) override {
        return real_->read(name);
    }
    Result<void> rename(const std::string& from, const std::string& to) override {
        return real_->rename(from, to);
    }
    Result<void> remove(const std::string& name) override { return real_->remove(name); }
    Result<void> sync_names() override { return real_->sync_names(); }

private:
    class SlowRegion final : public Region {
    public:
        explicit SlowRegion(std::unique_ptr<Region> real) : real_(std::move(real)) {}
        std::span<std::byte> bytes() noexcept override { return real_->bytes(); }
        Result<void> sync() override {
            ::usleep(1000);
            return real_->sync();
        }

    private:
        std::unique_ptr<Region> real_;
    };
    static Result<std::unique_ptr<Region>> slow(Result<std::unique_ptr<Region>> region) {
        if (!region) return region;
        return std::make_unique<SlowRegion>(std::move(*region));
    }
    std::unique_ptr<Medium> real_;
};

TEST(StoreLoad, WritersThatWaitShareSyncs) {
    TempDirectory directory;
    SilentLogger silent;
    Options options;
    options.directory = directory.path + "/store";
    options.medium = [](const std::string& path) -> Result<std::unique_ptr<Medium>> {
        auto real = file_medium(path);
        if (!real) return real;
        return std::make_unique<SlowMedium>(std::move(*real));
    };
    constexpr std::uint64_t kThreads = 32;
    constexpr std::uint64_t kEach = 60;
    {
        LmdbStore store(options, silent);
        Told told;
        ASSERT_TRUE(store.recover(told));
        ASSERT_TRUE(store.put_channel(1, as_span("c")));
        std::vector<std::thread> threads;
        std::mutex order;
        std::uint64_t sequence = 0;
        for (std::uint64_t i = 0; i < kThreads; ++i) {
            threads.emplace_back([&, i] {
                const std::string text(1024, static_cast<char>('a' + i % 26));
                for (std::uint64_t n = 0; n < kEach; ++n) {
                    Lsn lsn = 0;
                    Key key{1, 0};
                    {
                        const std::scoped_lock hold(order);
                        key.sequence = ++sequence;
                        const auto put = put_one(store, key, text);
                        ASSERT_TRUE(put);
                        lsn = *put;
                    }
                    ASSERT_EQ(wait_durable(store, lsn), 0);
                    if (n % 2 == 0) {
                        ASSERT_TRUE(store.erase(key));
                    }
                }
            });
        }
        for (auto& thread : threads) thread.join();
        const auto health = store.health();
        std::printf("%llu puts, %llu syncs\n", static_cast<unsigned long long>(health.puts),
                    static_cast<unsigned long long>(health.syncs));
        EXPECT_EQ(health.puts, kThreads * kEach);
        EXPECT_LT(health.syncs, health.puts / 2);
    }
    LmdbStore store(options, silent);
    Told told;
    ASSERT_TRUE(store.recover(told));
    EXPECT_EQ(told.messages, kThreads * kEach / 2);
}

TEST(StoreLoad, PutsMovesErasuresAndCheckpointsOfSeveralThreadsGoOnTogether) {
    TempDirectory directory;
    SilentLogger silent;
    Options options;
    options.directory = directory.path + "/store";
    options.segment_bytes = 64 << 10;
    constexpr std::uint64_t kThreads = 4;
    constexpr std::uint64_t kEach = 3000;
    {
        LmdbStore store(options, silent);
        Told told;
        ASSERT_TRUE(store.recover(told));
        for (std::uint64_t id = 1; id <= kThreads; ++id)
            ASSERT_TRUE(store.put_channel(id, as_span("c")));
        std::vector<std::thread> threads;
        for (std::uint64_t id = 1; id <= kThreads; ++id) {
            threads.emplace_back([&, id] {
                for (std::uint64_t n = 1; n <= kEach; ++n) {
                    ASSERT_TRUE(put_one(store, {id, n}, std::string(n % 300, 'x')));
                    if (n > 50) {
                        ASSERT_TRUE(store.move({id, n - 50}, {Place::kTaken, false, 1, 0}));
                    }
                    if (n > 100 && n % 10 != 0) {
                        ASSERT_TRUE(store.erase({id, n - 100}));
                    }
                    if (n % 500 == 0) (void)store.health();
                }
            });
        }
        for (auto& thread : threads) thread.join();
        EXPECT_TRUE(eventually([&] { return store.health().checkpoints > 5; }));
    }
    LmdbStore store(options, silent);
    Told told;
    ASSERT_TRUE(store.recover(told));
    for (std::uint64_t id = 1; id <= kThreads; ++id) {
        for (std::uint64_t n = 1; n <= kEach; ++n) {
            const bool erased = n <= kEach - 100 && (n + 100) % 10 != 0;
            const auto& messages = told.channels.at(id).messages;
            ASSERT_EQ(messages.contains(n), !erased) << id << "/" << n;
            if (erased) continue;
            ASSERT_EQ(messages.at(n).state.place, n <= kEach - 50 ? Place::kTaken : Place::kQueued);
        }
    }
}

// Bench measures it; here it is only printed.
TEST(StoreLoad, AMillionMessagesComeBack) {
    class Count final : public Recovery {
    public:
        void channel(std::uint64_t, std::span<const std::byte>, std::uint64_t) override {}
        void message(const Recovered& message) override {
            in_order = in_order && message.key.sequence > last;
            last = message.key.sequence;
            ++messages;
        }
        void request(std::uint64_t) override {}
        std::uint64_t messages = 0, last = 0;
        bool in_order = true;
    };
    TempDirectory directory;
    SilentLogger silent;
    Options options;
    options.directory = directory.path + "/store";
    const std::string text(100, 'm');
    {
        LmdbStore store(options, silent);
        Told told;
        ASSERT_TRUE(store.recover(told));
        ASSERT_TRUE(store.put_channel(1, as_span("c")));
        const auto start = std::chrono::steady_clock::now();
        for (std::uint64_t i = 1; i <= kMany; ++i) ASSERT_TRUE(put_one(store, {1, i}, text));
        std::printf("put %llu in %.2f s\n", static_cast<unsigned long long>(kMany),
                    seconds_since(start));
    }
    for (int i = 0; i < 2; ++i) {
        const auto start = std::chrono::steady_clock::now();
        LmdbStore store(options, silent);
        Count count;
        ASSERT_TRUE(store.recover(count));
        std::printf("recovered %llu in %.2f s\n", static_cast<unsigned long long>(count.messages),
                    seconds_since(start));
        EXPECT_EQ(count.messages, kMany);
        EXPECT_TRUE(count.in_order);
        // The second time more of it is in LMDB.
        if (i == 0) {
            EXPECT_TRUE(eventually([&] { return store.health().journal_bytes <= 48U << 20; }));
        }
    }
}

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
            LmdbStore store(options(), log);
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
        LmdbStore store(options(), silent);
        Told told;
        ASSERT_TRUE(store.recover(told));
        for (const std::uint64_t i : there) ASSERT_TRUE(store.erase({1, i}));
        EXPECT_TRUE(eventually([&] { return !store.health().full; }));
    }
}

TEST_F(Full, ADiskRefusesPayloads) {
    SilentLogger silent;
    LmdbStore store(options(), silent);
    Told told;
    ASSERT_TRUE(store.recover(told));
    const Fd zeros(::open("/dev/zero", O_RDONLY | O_CLOEXEC));
    EXPECT_EQ(store.save_payload(1, zeros.get(), 0, 4 << 20, true).error().code, ENOSPC);
    EXPECT_TRUE(store.save_payload(1, zeros.get(), 0, 10000, true));
    EXPECT_TRUE(store.open_payload(1));
}

}  // namespace
}  // namespace ipcfs::store
