// Many threads at once, for the thread and address sanitizers, with what must hold in the end.
#include <condition_variable>
#include <map>
#include <thread>
#include <unistd.h>

#include "engine_fixture.hpp"

namespace ipcfs::channel {
namespace {

using queue::Batch;
using queue::Via;
using queue::Wake;

// A waiter that a thread can wait for.
template <class W>
class Awaited final : public W {
public:
    void finish() noexcept override {
        std::scoped_lock hold(mutex_);
        finished_ = true;
        changed_.notify_all();
    }
    void wait() {
        std::unique_lock hold(mutex_);
        if (!changed_.wait_for(hold, std::chrono::seconds(60), [&] { return finished_; })) {
            std::fprintf(stderr, "a waiter was never finished\n");
            std::abort();
        }
    }

private:
    std::mutex mutex_;
    std::condition_variable changed_;
    bool finished_ = false;
};

constexpr int kWriters = 8, kReaders = 8, kOfEach = 400;

// Writers and readers that wait, are cancelled at random and give back at random. Each writer's
// messages carry its number and their own.
void exchange(const std::string& settings) {
    World world;
    SystemClock clock;
    Environment env{clock, world.timers, world.pool, world.ledger};
    env.bell.connect(&world.bell);
    auto jobs = std::make_shared<Channel>(env, 1, parse_control(settings, Settings{})->settings);
    std::atomic<int> to_deliver{kWriters * kOfEach};
    std::vector<std::thread> threads;
    const std::uint64_t seed = test_seed();
    SCOPED_TRACE("IPCFS_TEST_SEED=" + std::to_string(seed));

    for (int w = 0; w < kWriters; ++w) {
        threads.emplace_back([&, w] {
            std::mt19937_64 random(seed + static_cast<std::uint64_t>(w));
            auto& account = world.ledger.account(static_cast<uid_t>(w));
            for (int i = 0; i < kOfEach;) {
                Awaited<queue::WriteWaiter> writer;
                auto message = world.message(std::to_string(w) + " " + std::to_string(i));
                message->charged_message =
                    *access::Charge::take(account, access::Resource::kMessages, 1);
                writer.batch.add(std::move(message));
                writer.via = random() % 2 ? Via::kOther : Via::kQueueFile;
                std::thread canceller;
                if (random() % 16 == 0) {
                    canceller = std::thread([&] { jobs->cancel(writer, Wake::kInterrupted); });
                }
                jobs->push(writer, nullptr);
                writer.wait();
                if (canceller.joinable()) canceller.join();
                if (writer.why == Wake::kServed) ++i;
            }
        });
    }
    std::vector<std::vector<std::string>> got(kReaders);
    for (int r = 0; r < kReaders; ++r) {
        threads.emplace_back([&, r] {
            std::mt19937_64 random(seed + 100 + static_cast<std::uint64_t>(r));
            while (to_deliver > 0) {
                Awaited<queue::ReadWaiter> reader;
                std::thread canceller;
                if (random() % 8 == 0) {
                    canceller = std::thread([&] { jobs->cancel(reader, Wake::kInterrupted); });
                }
                if (random() % 4 == 0) {
                    jobs->try_take(reader.message);
                    if (!reader.message) std::this_thread::yield();
                } else {
                    jobs->take(reader);
                    if (to_deliver <= 0) jobs->cancel(reader, Wake::kInterrupted);
                    reader.wait();
                }
                if (canceller.joinable()) canceller.join();
                if (!reader.message) continue;
                if (random() % 8 == 0) {
                    jobs->give_back(std::move(reader.message));
                    continue;
                }
                got[static_cast<std::size_t>(r)].push_back(text(reader.message));
                jobs->delivered(*reader.message);
                if (--to_deliver == 0) jobs->shut_down();  // for the readers that still wait
            }
        });
    }
    std::atomic<bool> over{false};
    threads.emplace_back([&] {
        while (!over) {
            world.timers.run(clock.monotonic());
            (void)jobs->snapshot();
            (void)jobs->list();
            PollSlot slot;
            jobs->poll(slot, nullptr);
            std::this_thread::yield();
        }
    });
    for (std::size_t i = 0; i + 1 < threads.size(); ++i) threads[i].join();
    over = true;
    threads.back().join();

    std::map<std::string, int> seen;
    for (const auto& reader : got) {
        for (const std::string& body : reader) EXPECT_EQ(++seen[body], 1) << body << " came twice";
    }
    EXPECT_EQ(seen.size(), std::size_t{kWriters * kOfEach});
    EXPECT_EQ(jobs->snapshot().depth, 0U);
    auto counters = jobs->snapshot().counters;
    EXPECT_EQ(counters.delivered, counters.given_back + kWriters * kOfEach);
    world.ledger.for_each([](const access::Account& account) {
        EXPECT_EQ(account.used(access::Resource::kMessages), 0U);
    });
}

TEST(ChannelThreads, EightWritersAndEightReadersLoseAndDoubleNothing) {
    exchange("capacity 16\ntimeout 60s\n");
}

TEST(ChannelThreads, NorDoTheyOnASyncChannel) {
    exchange("type sync\ntimeout 60s\n");
}

// Does by chance with leases what can be done with them; counts what it acked.
void work(Channel& jobs, std::uint64_t seed, const std::atomic<bool>& over,
          std::map<std::string, int>& acked) {
    std::mt19937_64 random(seed);
    while (!over) {
        Awaited<queue::ReadWaiter> reader;
        reader.leases = true;
        reader.holder = getpid();
        if (random() % 2) {
            jobs.try_lease(reader.message, reader.lease, reader.holder);
            if (!reader.message) std::this_thread::yield();
        } else {
            jobs.take(reader);
            if (random() % 4 == 0) jobs.cancel(reader, Wake::kInterrupted);
            reader.wait();
        }
        if (!reader.message) continue;
        const Leased& lease = reader.lease;
        EXPECT_TRUE(lease.envelope.redelivered || lease.envelope.deliveries == 1);
        const std::string body = text(reader.message);
        switch (random() % 8) {
            case 0: jobs.nack(lease.id, 0); break;
            case 1: jobs.nack(lease.id, static_cast<Nanos>(random() % 3) * kMillisecond); break;
            case 2: jobs.end_lease(lease.id); break;
            case 3: break;  // it times out
            case 4: jobs.extend(lease.id, kMillisecond); [[fallthrough]];
            default:
                if (jobs.ack(lease.id)) ++acked[body];
        }
    }
}

TEST(ChannelThreads, LeasesThatEndInEveryWayAckOfEachMessageOnce) {
    constexpr int kHolders = 4, kMessages = 3000;
    World world;
    SystemClock clock;
    Environment env{clock, world.timers, world.pool, world.ledger};
    const Settings settings =
        parse_control("capacity 64\nlease 2ms\nmax-deliveries 4\nbatch 3 1ms\n", Settings{})
            ->settings;
    auto jobs = std::make_shared<Channel>(env, 1, settings);
    std::atomic<bool> over{false};
    std::vector<std::thread> threads;
    std::vector<std::map<std::string, int>> acked(kHolders);
    const std::uint64_t seed = test_seed();
    SCOPED_TRACE("IPCFS_TEST_SEED=" + std::to_string(seed));
    for (std::size_t i = 0; i < kHolders; ++i) {
        threads.emplace_back([&, i] { work(*jobs, seed + i, over, acked[i]); });
    }
    threads.emplace_back([&] {
        while (!over) {
            world.timers.run(clock.monotonic());
            env.leases.sweep();
            (void)jobs->list(Lane::kDead);
            std::this_thread::yield();
        }
    });
    for (int i = 0; i < kMessages;) {
        Batch one = world.batch(std::to_string(i));
        if (jobs->try_push(one, Via::kOther, false, nullptr) == Push::kQueued) {
            ++i;
        } else {
            EXPECT_TRUE(jobs->control("redrive"));
            std::this_thread::yield();
        }
    }
    const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(120);
    for (;;) {
        EXPECT_TRUE(jobs->control("redrive"));
        const Snapshot now = jobs->snapshot();
        if (now.counters.acked == kMessages) break;
        ASSERT_LT(std::chrono::steady_clock::now(), give_up) << now.counters.acked;
        std::this_thread::yield();
    }
    over = true;
    jobs->shut_down();  // for those that wait
    for (std::thread& thread : threads) thread.join();
    std::map<std::string, int> all;
    for (const auto& one : acked) {
        for (const auto& [body, times] : one) all[body] += times;
    }
    EXPECT_EQ(all.size(), std::size_t{kMessages});
    for (const auto& [body, times] : all) EXPECT_EQ(times, 1) << body;
    const Snapshot end = jobs->snapshot();
    EXPECT_EQ(end.depth + end.leased + end.delayed + end.dead, 0U);
    EXPECT_EQ(end.counters.leased, end.counters.acked + end.counters.nacked +
                                       end.counters.lease_returns + end.counters.lease_timeouts);
}

TEST(ChannelThreads, OneReaderSeesEachWritersMessagesInTheirOrder) {
    World world;
    auto jobs = world.channel("capacity 16\nschedule fair\n");
    std::vector<std::thread> threads;
    for (int w = 0; w < 4; ++w) {
        threads.emplace_back([&, w] {
            for (int i = 0; i < 1000;) {
                Batch batch = world.batch(std::to_string(w) + " " + std::to_string(i));
                if (jobs->try_push(batch, Via::kOther, false, nullptr) == Push::kQueued) {
                    ++i;
                } else {
                    std::this_thread::yield();
                }
            }
        });
    }
    std::map<std::string, int> nexts;
    for (int i = 0; i < 4000; ++i) {
        Awaited<queue::ReadWaiter> reader;
        jobs->take(reader);
        reader.wait();
        const std::string body = text(reader.message);
        EXPECT_EQ(std::stoi(body.substr(1)), nexts[body.substr(0, 1)]++);
    }
    for (auto& thread : threads) thread.join();
}

TEST(ChannelThreads, NoPollMissesAMessage) {
    World world;
    auto jobs = world.channel("capacity 4\n");
    struct Ticket final : PollTicket {
        explicit Ticket(std::atomic<int>& woken) : woken_(woken) { events = POLLIN; }
        void notify() noexcept override { ++woken_; }
        std::atomic<int>& woken_;
    };
    std::thread writer([&] {
        for (int i = 0; i < 3000;) {
            if (world.push(*jobs, "x") == Push::kQueued) {
                ++i;
            } else {
                std::this_thread::yield();
            }
        }
    });
    std::atomic<int> woken{0};
    PollSlot slot;
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    for (int got = 0; got < 3000;) {
        const int before = woken;
        if (jobs->poll(slot, std::make_unique<Ticket>(woken)) & POLLIN) {
            got += next(*jobs) == "x";
            continue;
        }
        while (woken == before) {
            ASSERT_LT(std::chrono::steady_clock::now(), deadline) << "a lost wake-up";
            std::this_thread::yield();
        }
    }
    writer.join();
    jobs->forget(slot);
}

TEST(RegistryThreads, ChannelsAreMadeRemovedRenamedAndVisitedAtOnce) {
    World world;
    Registry registry(world.env, Settings{}, 4);
    auto& user = world.ledger.account(1);
    std::vector<std::thread> threads;
    std::atomic<int> made{0}, removed{0}, working{4};
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&, t] {
            std::mt19937_64 random(test_seed() + static_cast<std::uint64_t>(t));
            for (int i = 0; i < 1500; ++i) {
                const std::string name = std::to_string(random() % 12);
                const std::string other = std::to_string(random() % 12);
                auto parent = registry.child(0, other);
                const std::uint64_t in = parent && random() % 2 ? parent->id() : 0;
                switch (random() % 5) {
                    case 0:
                    case 1:
                        if (auto done = registry.create(in, name, Attributes{}, user)) {
                            ++made;
                            if (random() % 4 == 0) {
                                Batch batch = world.batch("x");
                                (*done)->try_push(batch, Via::kOther, false, nullptr);
                            }
                        }
                        break;
                    case 2:
                        if (auto at = registry.child(in, name)) next(*at);
                        break;
                    case 3:
                        if (registry.remove(in, name)) ++removed;
                        break;
                    default: (void)registry.rename(in, name, 0, other, random() % 2);
                }
            }
            --working;
        });
    }
    for (int t = 0; t < 2; ++t) {
        threads.emplace_back([&] {
            while (working > 0) {
                std::uint64_t last = 0;
                registry.for_each([&](const std::shared_ptr<Channel>& at, const std::string&) {
                    EXPECT_GT(at->id(), last);
                    last = at->id();
                    (void)registry.path(at->id());
                    (void)at->snapshot();
                });
                registry.list(0, 0, [](std::uint64_t, std::string_view) { return true; });
                (void)registry.find_path("1/2");
            }
        });
    }
    for (auto& thread : threads) thread.join();
    EXPECT_GT(made, 0);
    EXPECT_GT(removed, 0);
    EXPECT_EQ(user.used(access::Resource::kChannels), registry.size());
    std::size_t counted = 0;
    registry.for_each([&](const std::shared_ptr<Channel>& at, const std::string& path) {
        ++counted;
        EXPECT_EQ(registry.find_path(path), at);
        EXPECT_FALSE(at->removed());
    });
    EXPECT_EQ(counted, registry.size());
}

}  // namespace
}  // namespace ipcfs::channel
