// Many at once, and much: writers that share syncs, a million messages.
#include <cstdio>
#include <thread>

#include "silent_logger.hpp"
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
        SegmentStore store(options, silent);
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
    SegmentStore store(options, silent);
    Told told;
    ASSERT_TRUE(store.recover(told));
    EXPECT_EQ(told.messages, kThreads * kEach / 2);
}

TEST(StoreLoad, PutsMovesErasuresAndTheCleanerGoOnTogether) {
    TempDirectory directory;
    SilentLogger silent;
    Options options;
    options.directory = directory.path + "/store";
    options.segment_bytes = 64 << 10;
    constexpr std::uint64_t kThreads = 4;
    constexpr std::uint64_t kEach = 3000;
    {
        SegmentStore store(options, silent);
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
        EXPECT_TRUE(eventually([&] { return store.health().cleaned > 5; }));
    }
    SegmentStore store(options, silent);
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
        SegmentStore store(options, silent);
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
        SegmentStore store(options, silent);
        Count count;
        ASSERT_TRUE(store.recover(count));
        std::printf("recovered %llu in %.2f s\n", static_cast<unsigned long long>(count.messages),
                    seconds_since(start));
        EXPECT_EQ(count.messages, kMany);
        EXPECT_TRUE(count.in_order);
    }
}

}  // namespace
}  // namespace ipcfs::store
