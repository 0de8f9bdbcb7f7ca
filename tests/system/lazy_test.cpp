// Lazy payloads through a real daemon: producer and receivers are processes with the client header.
#include <atomic>
#include <fcntl.h>
#include <functional>
#include <random>
#include <string>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include "child.hpp"
#include "daemon_fixture.hpp"
#include <ipcfs/channel.hpp>
#include <ipcfs/lazy.hpp>
#include <ipcfs/page_map.hpp>

namespace ipcfs::test {
namespace {

constexpr std::size_t kLazySize = (std::size_t{16} << 20) + 777;  // ends within a page

std::byte expected(std::size_t at) {
    return static_cast<std::byte>(at * 31 + (at >> 12) * 7 + (at >> 20));
}

bool right(std::span<const std::byte> bytes, std::size_t from, std::size_t length) {
    for (std::size_t i = from; i < from + length; ++i)
        if (bytes[i] != expected(i)) return false;
    return true;
}

bool right_at_random(std::span<const std::byte> bytes, unsigned seed) {
    std::mt19937_64 random(seed);
    for (int i = 0; i < 2000; ++i)
        if (const std::size_t at = random() % bytes.size(); bytes[at] != expected(at)) return false;
    return true;
}

class Lazy : public MountedTest {
protected:
    void SetUp() override {
        MountedTest::SetUp();
        if (HasFatalFailure() || IsSkipped()) return;
        make_channel("tensors");
        if (auto opened = detail::uffd::open(); !opened) GTEST_SKIP() << opened.error().message();
    }

    // Offers kLazySize bytes and stays until nobody needs them. Queued when this returns.
    Child producer(uid_t uid = 0, std::size_t size = kLazySize) {
        const long before = depth("tensors");
        Child child(Child::As{uid, -1}, [path = at("tensors"), size](std::string& text) {
            std::vector<std::byte> bytes(size);
            for (std::size_t i = 0; i < size; ++i) bytes[i] = expected(i);
            auto channel = Channel::open(path);
            if (!channel) {
                text = channel.error().message();
                return channel.error().code;
            }
            auto offered = offer(*channel, bytes);
            if (!offered) {
                text = offered.error().message();
                return offered.error().code;
            }
            if (auto gone = offered->wait_gone(kPatience); !gone) return gone.error().code;
            text = std::to_string(offered->statistics().receivers) + " " +
                   std::to_string(offered->statistics().faults);
            return 0;
        });
        const bool queued = wait_until([&] { return depth("tensors") == before + 1; }, 5s);
        EXPECT_TRUE(queued) << child.wait(1s).value_or(-1) << " " << child.text();
        return child;
    }

    // Receives the message and maps it with `options`; then `use`, whose value is the exit code.
    using Use = std::function<int(LazyRange& range, std::string& text)>;
    Child receiver(const Use& use, uid_t uid = 0, LazyMapOptions options = {}) {
        return Child(Child::As{uid, -1}, [=, path = at("tensors")](std::string& text) {
            auto channel = Channel::open(path);
            if (!channel) return channel.error().code;
            auto message = channel->receive(kPatience);
            if (!message) return message.error().code;
            auto range = page_map(*message, options);
            if (!range) {
                text = range.error().message();
                return range.error().code;
            }
            return use(*range, text);
        });
    }

    static bool waits_for_a_page(pid_t pid) {
        const std::string task = "/proc/" + std::to_string(pid);
        return slurp(task + "/wchan").find("userfault") != std::string::npos ||
               slurp(task + "/stack").find("userfault") != std::string::npos;
    }
    long counter(const std::string& name) {
        for (const Row& row : parse_table(slurp(at("kern/ipc/stats/mappings"))))
            if (row.at("state") == name) return number(row.at("count"));
        return -1;
    }
};

TEST_F(Lazy, ShowsTheReceiverTheProducersBytes) {
    Child from = producer();
    Child to = receiver([](LazyRange& range, std::string& text) {
        text = range.why();
        if (range.fell_back() || range.size() != kLazySize) return 1;
        if (!right_at_random(range.bytes(), 1)) return 2;
        if (!right(range.bytes(), 0, kLazySize)) return 3;
        return range.fetch(0, kLazySize) ? 0 : 4;
    });
    EXPECT_EQ(to.wait(), 0) << to.text();
    EXPECT_EQ(from.wait(), 0) << from.text();  // it saw that nobody needs it any more
    EXPECT_EQ(from.text().substr(0, 2), "1 ");
    EXPECT_TRUE(wait_until([&] { return counter("lazy_pages") >= long{kLazySize / 4096}; }));
    EXPECT_GT(counter("lazy_faults"), 0);
    EXPECT_LT(counter("lazy_faults"), long{kLazySize / 4096});
}

TEST_F(Lazy, IsFetchedWholeByAPlainPageMap) {
    Child from = producer();
    Child to([path = at("tensors")](std::string& text) {
        auto channel = Channel::open(path);
        auto message = channel->receive(kPatience);
        if (!message) return message.error().code;
        if (message->payload().kind() != PayloadKind::kLazy || message->size() != kLazySize)
            return 1;
        auto mapped = page_map(*message);
        if (!mapped) {
            text = mapped.error().message();
            return mapped.error().code;
        }
        if (page_map(*message, Access::read_write).error().code != EACCES) return 2;
        message = Message();
        return right(mapped->bytes(), 0, kLazySize) && mapped->size() == kLazySize ? 0 : 3;
    });
    EXPECT_EQ(to.wait(), 0) << to.text();
    EXPECT_EQ(from.wait(), 0) << from.text();
}

TEST_F(Lazy, IsMappedBySeveralAtOnce) {
    Child from = producer();
    Child to([path = at("tensors")](std::string&) {
        auto channel = Channel::open(path);
        auto message = channel->receive(kPatience);
        if (!message) return message.error().code;
        std::atomic<int> good{0};
        std::vector<std::thread> threads;
        for (unsigned t = 0; t < 4; ++t)
            threads.emplace_back([&, t] {
                auto range = page_map(*message, LazyMapOptions{});
                if (range && right_at_random(range->bytes(), t)) ++good;
            });
        for (auto& each : threads) each.join();
        return good == 4 ? 0 : 1;
    });
    EXPECT_EQ(to.wait(), 0);
    EXPECT_EQ(from.wait(), 0) << from.text();
    EXPECT_EQ(from.text().substr(0, 2), "4 ");
}

TEST_F(Lazy, EndsATouchPromptlyWhenTheProducerIsKilled) {
    Child from = producer();
    const Events mapped;
    const Events go;
    Child to = receiver([&](LazyRange& range, std::string&) {
        const rlimit none{0, 0};
        setrlimit(RLIMIT_CORE, &none);
        ::signal(SIGBUS, SIG_DFL);
        ::signal(SIGSEGV, SIG_DFL);
        if (!mapped.tell() || !go.await()) return 1;
        return range.bytes()[kLazySize / 2] == expected(kLazySize / 2) ? 2 : 3;
    });
    ASSERT_TRUE(mapped.await());
    from.signal(SIGSTOP);  // so that it answers no more
    const std::string stat = "/proc/" + std::to_string(from.pid()) + "/stat";
    ASSERT_TRUE(wait_until([&] { return slurp(stat).find(") T ") != std::string::npos; }));
    ASSERT_TRUE(go.tell());
    ASSERT_TRUE(wait_until([&] { return waits_for_a_page(to.pid()); }));
    from.signal(SIGKILL);
    const int code = to.wait().value_or(-1);
    EXPECT_TRUE(code == 1000 + SIGBUS || code == 1000 + SIGSEGV) << code;
}

TEST_F(Lazy, GivesAnErrorValueToAFetchWhenTheProducerIsKilled) {
    Child from = producer();
    const Events mapped;
    const Events go;
    Child to = receiver([&](LazyRange& range, std::string& text) {
        if (!range.fetch(0, 1 << 20) || !mapped.tell() || !go.await()) return 1;
        const auto came = range.fetch(0, kLazySize);
        if (came) return 2;
        text = came.error().message();
        if (!right(range.bytes(), 0, 1 << 20) || !range.fetch(1000, 1000)) return 3;
        return came.error().code;
    });
    ASSERT_TRUE(mapped.await());
    from.signal(SIGKILL);
    ASSERT_TRUE(go.tell());
    EXPECT_EQ(to.wait(), ECONNRESET) << to.text();
    EXPECT_NE(to.text().find("the producer is gone"), std::string::npos) << to.text();
}

TEST_F(Lazy, SaysThatTheProducerWasGoneBefore) {
    {
        Child from = producer();
        from.signal(SIGKILL);
        EXPECT_EQ(from.wait(), 1000 + SIGKILL);
    }
    const auto use = [](LazyRange&, std::string&) { return 0; };
    // The daemon may not have seen it yet: the answer is the same.
    Child to = receiver(use);
    EXPECT_EQ(to.wait(), ECONNRESET) << to.text();
}

// The daemon of the fixture is to live: this one is the test's.
TEST(LazyWithoutADaemon, IsServedOn) {
    if (auto opened = detail::uffd::open(); !opened) GTEST_SKIP() << opened.error().message();
    Daemon daemon({});
    ASSERT_TRUE(daemon.running()) << daemon.log();
    const std::string path = daemon.mount() + "/tensors";
    ASSERT_EQ(::mkdir(path.c_str(), 0777), 0);
    const Events ended;
    Child from([&](std::string& text) {
        std::vector<std::byte> bytes(kLazySize);
        for (std::size_t i = 0; i < kLazySize; ++i) bytes[i] = expected(i);
        auto channel = Channel::open(path);
        if (!channel) return channel.error().code;
        auto offered = offer(*channel, bytes);
        if (!offered) return offered.error().code;
        if (auto gone = offered->wait_gone(kPatience); !gone) text = gone.error().message();
        return ended.await() ? 0 : 1;
    });
    const Events mapped;
    const Events go;
    Child to([&](std::string& text) {
        auto channel = Channel::open(path);
        if (!channel) return channel.error().code;
        auto message = channel->receive(kPatience);
        if (!message) return message.error().code;
        auto range = page_map(*message, LazyMapOptions{});
        if (!range) return range.error().code;
        if (!mapped.tell() || !go.await()) return 1;
        if (!right_at_random(range->bytes(), 3) || !right(range->bytes(), 0, kLazySize)) return 2;
        text = range->why();
        return range->producer_gone() ? 3 : 0;
    });
    ASSERT_TRUE(mapped.await());
    ::kill(daemon.pid(), SIGKILL);
    ASSERT_TRUE(wait_until([&] { return !daemon.running(); }));
    ASSERT_TRUE(go.tell());
    EXPECT_EQ(to.wait(), 0) << to.text();
    ASSERT_TRUE(ended.tell());
    EXPECT_EQ(from.wait(), 0);
    EXPECT_EQ(from.text(), "");  // without a daemon, and then without receivers, it is over
}

TEST_F(Lazy, IsMappedWholeFromAnotherUserAndByPageFromRoot) {
    const auto use = [](LazyRange& range, std::string& text) {
        text = range.why();
        return right(range.bytes(), 0, kLazySize) ? (range.fell_back() ? 1 : 0) : 2;
    };
    {
        Child from = producer(kAlice);
        Child to = receiver(use, kBob);
        EXPECT_EQ(to.wait(), 1);
        EXPECT_EQ(to.text(), "the producer is another user");
        EXPECT_EQ(from.wait(), 0) << from.text();
    }
    {
        Child from = producer(kAlice);
        Child to = receiver(use, 0);  // root has the most to lose
        EXPECT_EQ(to.wait(), 1);
        EXPECT_EQ(to.text(), "the producer is another user");
    }
    {
        Child from = producer(kAlice);
        Child to = receiver(use, kAlice);
        EXPECT_EQ(to.wait(), 0) << to.text();
    }
    {
        Child from = producer(0);
        Child to = receiver(use, kBob);
        EXPECT_EQ(to.wait(), 0) << to.text();
    }
    {
        LazyMapOptions trusting;
        trusting.trust_any_user = true;
        Child from = producer(kAlice);
        Child to = receiver(use, kBob, trusting);
        EXPECT_EQ(to.wait(), 0) << to.text();
    }
    {
        LazyMapOptions whole;
        whole.whole = true;
        whole.access = Access::copy_on_write;
        Child from = producer(kBob);
        Child to = receiver(
            [&](LazyRange& range, std::string& text) {
                range.writable_bytes()[0] = std::byte{1};
                range.writable_bytes()[0] = expected(0);
                return use(range, text);
            },
            kBob, whole);
        EXPECT_EQ(to.wait(), 1);
        EXPECT_EQ(to.text(), "asked for");
    }
}

TEST_F(Lazy, IsForThoseWhoMayReadTheChannel) {
    ASSERT_EQ(::chmod(at("tensors/queue").c_str(), 0622), 0);
    Child from = producer(kAlice);
    const Events received;
    const Events tried;
    Child to = receiver(
        [&](LazyRange&, std::string&) { return received.tell() && tried.await() ? 0 : 1; });
    ASSERT_TRUE(received.await());
    // Alice may send there, and not receive: the id alone gives her nothing.
    Child alice(Child::As{kAlice, -1}, [mount = daemon().mount()](std::string&) {
        for (std::uint64_t id = 1; id < 10; ++id) {
            const auto attach = [&](const ControlLazy& request,
                                    std::span<const int> fds) -> Expected<void> {
                auto reply =
                    detail::Connection::request(mount, ControlOp::kLazyAttach, request, {}, fds);
                if (!reply) return std::move(reply).error();
                return {};
            };
            auto range = LazyRange::map(id, kLazySize, true, {}, attach);
            if (range) return 1;
            if (range.error().code == EACCES) return EACCES;
        }
        return 2;
    });
    EXPECT_EQ(alice.wait(), EACCES);
    ASSERT_TRUE(tried.tell());
    EXPECT_EQ(to.wait(), 0) << to.text();
}

TEST_F(Lazy, CanBeMappedUntilTheNextMessageIsReceived) {
    Child from = producer();
    ASSERT_EQ(send("tensors", "next"), 0);
    Child to([path = at("tensors")](std::string&) {
        auto channel = Channel::open(path);
        auto lazy = channel->receive(kPatience);
        auto next = channel->receive(kPatience);
        if (!lazy || !next || next->text() != "next") return 1;
        // On the classic transport the thread that answered the first read lets go of its message
        // after the answer, and the second read may be answered by another in that moment. Who is just
        // then connected to the producer is told that it is gone.
        int code = 0;
        (void)wait_until([&] {
            auto range = page_map(*lazy, LazyMapOptions{});
            code = range ? 0 : range.error().code;
            return code != 0 && code != ECONNRESET;
        });
        return code;
    });
    EXPECT_EQ(to.wait(), ENOENT);
    EXPECT_EQ(from.wait(), 0) << from.text();
    EXPECT_EQ(from.text().substr(0, 2), "0 ");
}

TEST_F(Lazy, ReleasesTheProducerWhenItsMessageIsDropped) {
    Child from = producer();
    ASSERT_EQ(ctl("tensors", "purge\n"), 0);
    EXPECT_EQ(from.wait(), 0) << from.text();
}

TEST_F(Lazy, EndsItsReceiversWhenTheOfferEnds) {
    const Events taken;
    const Events mapped;
    Child from([&, path = at("tensors")](std::string&) {
        std::vector<std::byte> bytes(kLazySize);
        auto channel = Channel::open(path);
        if (!channel) return channel.error().code;
        {
            auto offered = offer(*channel, bytes);
            if (!offered) return offered.error().code;
            if (!mapped.await()) return 1;
        }
        return taken.tell() && ::pause() != 0 ? 0 : 2;  // it lives on
    });
    Child to = receiver([&](LazyRange& range, std::string&) {
        if (!range.fetch(0, 4096) || !mapped.tell() || !taken.await()) return 1;
        return range.fetch(kLazySize / 2, 4096).error().code;
    });
    EXPECT_EQ(to.wait(), ECONNRESET);
}

TEST_F(Lazy, RefusesWhatTheChannelDoes) {
    make_channel("tight", "max-payload 1M\ncapacity 2\nhigh-watermark 50\n");
    Child from([path = at("tight")](std::string& text) {
        auto channel = Channel::open(path);
        if (!channel) return 1;
        std::vector<std::byte> bytes(2 << 20);
        const auto large = offer(*channel, bytes);
        if (large || large.error().code != EMSGSIZE) {
            text = large ? "was taken" : large.error().message();
            return 2;
        }
        if (offer(*channel, {}).error().code != EINVAL) return 3;
        std::vector<LazyOffer> kept;
        LazyOptions now;
        now.send.timeout = Timeout::zero();
        for (int i = 0; i < 3; ++i) {
            auto offered = offer(*channel, std::span(bytes).first(4096), now);
            if (!offered) {
                text = offered.error().message();
                return offered.error().code;
            }
            kept.push_back(std::move(*offered));
        }
        return 4;
    });
    EXPECT_EQ(from.wait(), EAGAIN) << from.text();
    make_channel("private", {}, 0700);
    Child denied(Child::As{kAlice, -1}, [mount = daemon().mount()](std::string&) {
        const std::vector<std::byte> bytes(4096);
        ControlSend what;
        what.size = bytes.size();
        what.path_length = 7;
        auto reply = detail::Connection::request(mount, ControlOp::kLazyOffer, what, {"private"});
        return reply ? 0 : reply.error().code;
    });
    EXPECT_EQ(denied.wait(), EACCES);
}

}  // namespace
}  // namespace ipcfs::test
