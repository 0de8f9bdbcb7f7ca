// The client header on a real mount: what goes in comes out, small and large, one by one and in
// batches, across threads, forks, timeouts and the deaths of the other side.
#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <fcntl.h>
#include <mutex>
#include <numeric>
#include <poll.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include "child.hpp"
#include "daemon_fixture.hpp"
#include "expected.hpp"
#include <ipcfs/ipcfs.hpp>

namespace ipcfs::test {
namespace {

// What the body of message `number` of `size` bytes is.
std::string pattern(std::size_t size, unsigned number) {
    std::string text(size, '\0');
    for (std::size_t i = 0; i < size; ++i) text[i] = static_cast<char>(i * 31 + (i >> 12) + number);
    return text;
}

class Client : public MountedTest {
protected:
    ipcfs::Channel open(const char* name, ChannelOptions options = {}) {
        auto opened = ipcfs::Channel::open(at(name), options);
        EXPECT_TRUE(opened) << opened.error().message();
        return std::move(*opened);
    }
    // How many bytes of payloads and pools the daemon accounts for, and chunks it sees lent.
    std::uint64_t bytes_of(std::string_view object) {
        std::uint64_t sum = 0;
        for (const Row& row : parse_table(slurp(at("kern/ipc/stats/mappings"))))
            if (row.at("object") == object) sum += std::stoull(row.at("bytes"));
        return sum;
    }
    std::uint64_t count_of(std::string_view object, std::string_view state) {
        std::uint64_t sum = 0;
        for (const Row& row : parse_table(slurp(at("kern/ipc/stats/mappings"))))
            if (row.at("object") == object && row.at("state") == state)
                sum += std::stoull(row.at("count"));
        return sum;
    }
};

TEST_F(Client, SendsAndReceivesWithAllThatAHeaderHas) {
    make_channel("jobs");
    auto channel = open("jobs");
    EXPECT_EQ(channel.mount(), daemon().mount());
    EXPECT_EQ(channel.name(), "jobs");
    EXPECT_EQ(channel.setting("type"), "queue");
    std::vector<std::byte> extensions;
    const std::string method = "draw";
    append_extension(extensions, ExtensionType::kMethod, std::as_bytes(std::span(method)));
    SendOptions options;
    options.type = FrameType::kRequest;
    options.priority = 200;
    options.message_id = 17;
    options.correlation_id = 4711;
    options.extensions = extensions;
    EXPECT_OK(channel.send("hello", options));
    auto message = channel.receive();
    ASSERT_TRUE(message) << message.error().message();
    EXPECT_EQ(message->text(), "hello");
    EXPECT_EQ(message->type(), FrameType::kRequest);
    EXPECT_EQ(message->priority(), 200);
    EXPECT_EQ(message->header().message_id, 17U);
    EXPECT_EQ(message->correlation_id(), 4711U);
    EXPECT_EQ(message->sender_pid(), static_cast<std::uint32_t>(::getpid()));
    EXPECT_FALSE(message->has_payload());
    const auto found = message->extension(ExtensionType::kMethod);
    ASSERT_TRUE(found);
    EXPECT_EQ(found->size(), 4U);
}

TEST_F(Client, NamesAreBelowTheMountOfTheEnvironment) {
    make_channel("a");
    make_channel("a/b");
    ::setenv("IPCFS_MOUNT", daemon().mount().c_str(), 1);
    auto channel = ipcfs::Channel::open("a/b");
    auto missing = ipcfs::Channel::open("a/c");
    ::unsetenv("IPCFS_MOUNT");
    ASSERT_TRUE(channel) << channel.error().message();
    EXPECT_EQ(channel->name(), "a/b");
    EXPECT_FAILS(ENOENT, missing);
    ::rename(at("a/b").c_str(), at("a/moved").c_str());
    EXPECT_EQ(channel->name(), "a/moved");
    // Payloads go by the name: it is the present one.
    EXPECT_OK(channel->send(pattern(3 * kMiB, 1)));
    EXPECT_OK(channel->receive());
    ChannelOptions create;
    create.create = true;
    EXPECT_OK(ipcfs::Channel::open(at("made"), create));
    EXPECT_OK(ipcfs::Channel::open(at("made"), create));
    EXPECT_FAILS(EINVAL, ipcfs::Channel::open(daemon().mount()));
}

TEST_F(Client, EverySizeComesBackAsItWas) {
    make_channel("jobs");
    auto channel = open("jobs");
    for (const std::size_t size :
         {std::size_t{0}, std::size_t{1}, std::size_t{4095}, std::size_t{4096}, std::size_t{4097},
          std::size_t{8000}, std::size_t{8192}, std::size_t{100000}, 252 * std::size_t{4096},
          std::size_t{1032096}, std::size_t{1032193}, detail::kMaxWrite - 96,
          detail::kMaxWrite - 95, kMiB, 2 * kMiB, 5 * kMiB + 1}) {
        SCOPED_TRACE(size);
        // At an address that is no multiple of anything: the kernel may not split it for that.
        const std::string body = pattern(size + 1, static_cast<unsigned>(size));
        EXPECT_OK(channel.send(std::string_view(body).substr(1)));
        auto message = channel.receive(20s);
        ASSERT_TRUE(message) << message.error().message();
        EXPECT_EQ(message->size(), size);
        EXPECT_OK(message->map());
        EXPECT_TRUE(message->text() == std::string_view(body).substr(1));
        EXPECT_EQ(message->has_payload(), size > detail::kMaxWrite - 96);
    }
}

TEST_F(Client, WhatIsOverMaxMessageGoesAsAPayload) {
    make_channel("jobs", "max-message 1000\nmax-payload 1M");
    auto channel = open("jobs");
    EXPECT_OK(channel.send(std::string(1000, 'a')));
    EXPECT_OK(channel.send(std::string(1001, 'b')));
    EXPECT_FAILS(EMSGSIZE, channel.send(std::string(kMiB + 1, 'c')));
    EXPECT_FALSE(channel.receive()->has_payload());
    auto large = channel.receive();
    ASSERT_TRUE(large);
    EXPECT_TRUE(large->has_payload());
    EXPECT_TRUE(large->text() == std::string(1001, 'b'));
    EXPECT_FAILS(EAGAIN, channel.try_receive());
}

TEST_F(Client, BatchesAreOneWriteAndOneRead) {
    make_channel("jobs");
    auto channel = open("jobs");
    std::vector<std::string> bodies;
    for (unsigned i = 0; i < 100; ++i) bodies.push_back(pattern(i * 7, i));
    EXPECT_OK(channel.send_batch(bodies));
    auto first = channel.receive_batch(30);
    ASSERT_TRUE(first) << first.error().message();
    EXPECT_EQ(first->size(), 30U);
    // A single receive takes one, also after a batch.
    auto one = channel.receive();
    ASSERT_TRUE(one);
    EXPECT_TRUE(one->text() == bodies[30]);
    EXPECT_EQ(depth("jobs"), 69);
    auto rest = channel.receive_batch(1000, 20s);
    ASSERT_TRUE(rest);
    ASSERT_EQ(rest->size(), 69U);
    for (std::size_t i = 0; i < 30; ++i) EXPECT_TRUE((*first)[i].text() == bodies[i]) << i;
    for (std::size_t i = 0; i < 69; ++i) EXPECT_TRUE((*rest)[i].text() == bodies[31 + i]) << i;
    EXPECT_FAILS(EAGAIN, channel.receive_batch(10, Timeout::zero()));
}

TEST_F(Client, ABatchIsSentWholeOrNotAtAll) {
    make_channel("jobs", "capacity 10\noverflow reject");
    auto channel = open("jobs");
    const std::vector<std::string> five(5, "x");
    EXPECT_OK(channel.send_batch(five));
    EXPECT_FAILS(ENOBUFS, channel.send_batch(five));
    EXPECT_EQ(depth("jobs"), 5);
    EXPECT_FAILS(EMSGSIZE, channel.send_batch(std::vector<std::string>(11, "x")));
}

TEST_F(Client, PayloadsWithinABatchStayValid) {
    make_channel("jobs");
    auto channel = open("jobs");
    for (unsigned i = 0; i < 5; ++i) {
        EXPECT_OK(channel.send(pattern(2 * kMiB, i)));
        EXPECT_OK(channel.send("between"));
    }
    std::vector<Message> all;
    while (all.size() < 10) {
        auto some = channel.receive_batch(4, 20s);
        ASSERT_TRUE(some) << some.error().message();
        for (Message& each : *some) all.push_back(std::move(each));
    }
    // Looked at after all reads, when the daemon has let go of them.
    for (unsigned i = 0; i < 5; ++i) {
        EXPECT_TRUE(all[2 * i].text() == pattern(2 * kMiB, i)) << i;
        EXPECT_EQ(all[2 * i + 1].text(), "between");
    }
}

TEST_F(Client, ASealedPayloadCannotBeChangedByAnybody) {
    make_channel("jobs");
    auto channel = open("jobs");
    auto loan = channel.loan(3 * kMiB);
    ASSERT_TRUE(loan) << loan.error().message();
    EXPECT_FALSE(loan->pooled());
    std::ranges::fill(loan->bytes(), std::byte{7});
    EXPECT_OK(channel.send(std::move(*loan)));
    EXPECT_FALSE(*loan);  // NOLINT(bugprone-use-after-move): it says so
    auto message = channel.receive();
    ASSERT_TRUE(message);
    EXPECT_EQ(message->payload().kind(), PayloadKind::kSealed);
    const auto bytes = message->body();
    ASSERT_EQ(bytes.size(), 3 * kMiB);
    EXPECT_TRUE(std::ranges::all_of(bytes, [](std::byte b) { return b == std::byte{7}; }));
    EXPECT_NE(::mprotect(const_cast<std::byte*>(bytes.data()), 4096, PROT_READ | PROT_WRITE), 0);
    EXPECT_EQ(::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, message->payload().fd(), 0),
              MAP_FAILED);
    // By value: a copy keeps it, whatever becomes of the message and the channel.
    const Payload kept = message->payload();
    message = Message();
    EXPECT_EQ(kept.bytes()[3 * kMiB - 1], std::byte{7});
}

TEST_F(Client, PooledChunksAreReusedAndGivenBack) {
    make_channel("video", "payloads pooled");
    auto sender = open("video");
    auto receiver = open("video");
    const std::byte* first = nullptr;
    for (unsigned i = 0; i < 100; ++i) {
        auto loan = sender.loan(kMiB);
        ASSERT_TRUE(loan) << loan.error().message();
        ASSERT_TRUE(loan->pooled());
        if (i == 0) first = loan->data();
        EXPECT_EQ(loan->data(), first) << i;  // the only one in use is always free again
        std::ranges::fill(loan->bytes(), static_cast<std::byte>(i));
        EXPECT_OK(sender.send(std::move(*loan)));
        auto message = receiver.receive(20s);
        ASSERT_TRUE(message) << message.error().message();
        EXPECT_EQ(message->payload().kind(), PayloadKind::kPooled);
        ASSERT_EQ(message->size(), kMiB);
        EXPECT_EQ(message->body()[kMiB - 1], static_cast<std::byte>(i));
    }
    EXPECT_GT(bytes_of("pool"), 0U);
    EXPECT_EQ(count_of("chunk", "lent"), 0U);
}

TEST_F(Client, WhenAllChunksAreLentALoanWaitsFailsOrIsSealed) {
    make_channel("video", "payloads pooled");
    ChannelOptions two;
    two.pools.chunks = 2;
    auto sender = open("video", two);
    auto receiver = open("video");
    for (int i = 0; i < 2; ++i) {
        auto loan = sender.loan(100000);
        ASSERT_TRUE(loan && loan->pooled());
        EXPECT_OK(sender.send(std::move(*loan)));
    }
    LoanOptions now;
    now.timeout = Timeout::zero();
    EXPECT_FAILS(EAGAIN, sender.loan(100000, now));
    LoanOptions soon;
    soon.timeout = 5ms;
    EXPECT_FAILS(ETIMEDOUT, sender.loan(100000, soon));
    LoanOptions sealed;
    sealed.sealed_when_busy = true;
    auto other = sender.loan(100000, sealed);
    ASSERT_TRUE(other);
    EXPECT_FALSE(other->pooled());
    auto held = receiver.receive();
    ASSERT_TRUE(held);
    std::thread waiting([&] {
        auto loan = sender.loan(100000);
        EXPECT_TRUE(loan && loan->pooled());
    });
    held = Message();  // the waiting one gets this chunk
    waiting.join();
}

TEST_F(Client, ChunksOfAKilledReceiverComeBack) {
    make_channel("video", "payloads pooled");
    ChannelOptions two;
    two.pools.chunks = 2;
    auto sender = open("video", two);
    Child receiver([&](std::string&) {
        auto channel = ipcfs::Channel::open(at("video"));
        if (!channel) return channel.error().code;
        auto first = channel->receive();
        auto second = channel->receive();
        if (!first || !second || !first->map() || !second->map()) return 1;
        if (auto told = channel->send("have them"); !told) return told.error().code;
        ::pause();
        return 0;
    });
    for (int i = 0; i < 2; ++i) {
        auto loan = sender.loan(100000);
        ASSERT_TRUE(loan && loan->pooled());
        EXPECT_OK(sender.send(std::move(*loan)));
    }
    ASSERT_TRUE(wait_until([&] { return count_of("chunk", "lent") == 2; }));
    auto told = sender.receive(20s);
    ASSERT_TRUE(told);
    EXPECT_EQ(told->text(), "have them");
    receiver.signal(SIGKILL);
    LoanOptions patient;
    patient.timeout = 20s;
    auto loan = sender.loan(100000, patient);
    ASSERT_TRUE(loan) << loan.error().message();
    EXPECT_TRUE(loan->pooled());
}

TEST_F(Client, WhatAKilledSenderHadSentStaysWhole) {
    make_channel("video", "payloads pooled");
    make_channel("film");
    Child sender([&](std::string&) {
        for (const char* name : {"video", "film"}) {
            auto channel = ipcfs::Channel::open(at(name));
            if (!channel) return channel.error().code;
            auto sent = channel->loan(2 * kMiB);
            auto unsent = channel->loan(2 * kMiB);
            if (!sent || !unsent || sent->pooled() != (name[0] == 'v')) return 1;
            std::ranges::fill(sent->bytes(), static_cast<std::byte>(name[0]));
            if (auto done = channel->send(std::move(*sent)); !done) return done.error().code;
        }
        ::raise(SIGKILL);
        return 0;
    });
    ASSERT_EQ(sender.wait(), 1000 + SIGKILL);
    for (const char* name : {"video", "film"}) {
        auto channel = open(name);
        auto message = channel.receive(20s);
        ASSERT_TRUE(message) << message.error().message();
        ASSERT_TRUE(message->map()) << message->map().error().message();
        EXPECT_EQ(message->size(), 2 * kMiB);
        EXPECT_TRUE(std::ranges::all_of(
            message->body(), [&](auto b) { return b == static_cast<std::byte>(name[0]); }));
        EXPECT_FAILS(EAGAIN, channel.try_receive());
        EXPECT_OK(channel.send("lets go of the last"));
        EXPECT_OK(channel.receive(20s));
    }
    // What it had not sent, and the pool itself, are nobody's any more.
    EXPECT_TRUE(wait_until([&] { return bytes_of("pool") == 0 && bytes_of("payload") == 0; }))
        << slurp(at("kern/ipc/stats/mappings"));
}

TEST_F(Client, AReceiverThatWantsNoPoolsGetsSealedCopies) {
    make_channel("video", "payloads pooled");
    auto sender = open("video");
    ChannelOptions careful;
    careful.accept_pooled = false;
    auto receiver = open("video", careful);
    auto loan = sender.loan(200000);
    ASSERT_TRUE(loan && loan->pooled());
    std::byte* const chunk = loan->data();
    std::ranges::fill(loan->bytes(), std::byte{1});
    EXPECT_OK(sender.send(std::move(*loan)));
    auto message = receiver.receive();
    ASSERT_TRUE(message);
    EXPECT_EQ(message->payload().kind(), PayloadKind::kSealed);
    ASSERT_EQ(message->body().size(), 200000U);
    std::memset(chunk, 2, 200000);  // what a hostile sender would do
    EXPECT_EQ(message->body()[0], std::byte{1});
    EXPECT_EQ(count_of("chunk", "lent"), 0U);
}

TEST_F(Client, ALoanOfAPoolIsSentSealedWhenPoolsAreSwitchedOffMeanwhile) {
    make_channel("video", "payloads pooled");
    auto channel = open("video");
    auto loan = channel.loan(100000);
    ASSERT_TRUE(loan && loan->pooled());
    std::ranges::fill(loan->bytes(), std::byte{3});
    ASSERT_EQ(ctl("video", "payloads sealed"), 0);
    EXPECT_OK(channel.send(std::move(*loan)));
    auto message = channel.receive();
    ASSERT_TRUE(message);
    EXPECT_EQ(message->payload().kind(), PayloadKind::kSealed);
    EXPECT_EQ(message->body()[99999], std::byte{3});
    auto next = channel.loan(100000);
    ASSERT_TRUE(next);
    EXPECT_FALSE(next->pooled());
}

TEST_F(Client, MessagesOutliveTheirChannelAndTheDaemon) {
    make_channel("jobs", "payloads pooled");
    Message pooled;
    Message sealed;
    {
        auto channel = open("jobs");
        auto loan = channel.loan(100000);
        ASSERT_TRUE(loan && loan->pooled());
        std::ranges::fill(loan->bytes(), std::byte{5});
        EXPECT_OK(channel.send(std::move(*loan)));
        LoanOptions alone;
        alone.pooled = false;
        auto other = channel.loan(100000, alone);
        ASSERT_TRUE(other && !other->pooled());
        std::ranges::fill(other->bytes(), std::byte{6});
        EXPECT_OK(channel.send(std::move(*other)));
        pooled = *channel.receive();
        sealed = *channel.receive();
        ASSERT_TRUE(sealed.map());
    }
    kill_daemon();
    EXPECT_TRUE(std::ranges::all_of(pooled.body(), [](auto b) { return b == std::byte{5}; }));
    EXPECT_TRUE(std::ranges::all_of(sealed.body(), [](auto b) { return b == std::byte{6}; }));
}

class ClientWithoutPassthrough : public Client {
protected:
    Daemon::Options options() const override {
        return {{"--set", "fuse.passthrough=off"}, "", false};
    }
};

TEST_F(ClientWithoutPassthrough, WhatWasReceivedNeedsNoDaemonAnyMore) {
    ASSERT_NE(slurp(at("kern/ipc/version")).find("passthrough off"), std::string::npos);
    make_channel("jobs", "payloads pooled");
    Message sealed;
    Message copied;
    {
        ChannelOptions careful;
        careful.accept_pooled = false;
        auto channel = open("jobs", careful);
        for (const bool pooled : {false, true}) {
            LoanOptions how;
            how.pooled = pooled;
            auto loan = channel.loan(3 * kMiB, how);
            ASSERT_TRUE(loan && loan->pooled() == pooled);
            std::ranges::fill(loan->bytes(), std::byte{6});
            EXPECT_OK(channel.send(std::move(*loan)));
        }
        sealed = *channel.receive();
        copied = *channel.receive();
        ASSERT_TRUE(sealed.map() && copied.map());
    }
    kill_daemon();
    // Touched now for the first time: it is not the daemon who fills these pages.
    for (const Message* each : {&sealed, &copied}) {
        EXPECT_EQ(each->size(), 3 * kMiB);
        EXPECT_TRUE(std::ranges::all_of(each->body(), [](auto b) { return b == std::byte{6}; }));
    }
}

TEST_F(Client, ManyHandOversLeaveNothingBehind) {
    make_channel("jobs");
    auto channel = open("jobs");
    const auto descriptors = [] {
        int count = 0;
        for (int fd = 0; fd < 1024; ++fd) count += ::fcntl(fd, F_GETFD) >= 0 ? 1 : 0;
        return count;
    };
    EXPECT_OK(channel.send(std::string(2 * kMiB, 'x')));
    EXPECT_OK(channel.receive());
    const int before = descriptors();
    for (int i = 0; i < 300; ++i) {
        auto loan = channel.loan(kMiB / 4);
        ASSERT_TRUE(loan);
        loan->data()[0] = std::byte{1};
        ASSERT_TRUE(channel.send(std::move(*loan)));
        auto message = channel.receive(20s);
        ASSERT_TRUE(message);
        ASSERT_EQ(message->body()[0], std::byte{1});
    }
    EXPECT_EQ(descriptors(), before);
    // The open file keeps the last one.
    EXPECT_OK(channel.send("small"));
    EXPECT_OK(channel.receive());
    EXPECT_TRUE(wait_until([&] { return bytes_of("payload") == 0; }))
        << slurp(at("kern/ipc/stats/mappings"));
}

TEST_F(Client, TimeoutsAreKept) {
    make_channel("jobs", "capacity 10");
    auto channel = open("jobs");
    const auto start = std::chrono::steady_clock::now();
    EXPECT_FAILS(ETIMEDOUT, channel.receive(30ms));
    EXPECT_GE(std::chrono::steady_clock::now() - start, 30ms);
    EXPECT_FAILS(EAGAIN, channel.try_receive());
    for (int i = 0; i < 8; ++i) EXPECT_OK(channel.send("x"));
    SendOptions soon;
    soon.timeout = 30ms;
    const auto full = std::chrono::steady_clock::now();
    EXPECT_FAILS(ETIMEDOUT, channel.send("y", soon));
    EXPECT_GE(std::chrono::steady_clock::now() - full, 30ms);
    EXPECT_FAILS(EAGAIN, channel.try_send("y"));
    // A payload waits for room in the same way, and its loan survives that.
    auto loan = channel.loan(300000);
    ASSERT_TRUE(loan);
    EXPECT_FAILS(ETIMEDOUT, channel.send(std::move(*loan), soon));
    std::thread drains([&] {
        for (int i = 0; i < 8; ++i) EXPECT_OK(channel.receive(20s));
    });
    EXPECT_OK(channel.send(std::move(*loan)));  // NOLINT(bugprone-use-after-move): it was not sent
    drains.join();
    EXPECT_EQ(channel.receive()->size(), 300000U);
}

TEST_F(Client, ATimeToLiveIsKept) {
    make_channel("jobs");
    auto channel = open("jobs");
    SendOptions brief;
    brief.ttl = 1ms;
    EXPECT_OK(channel.send("late", brief));
    EXPECT_OK(channel.send(std::string(2 * kMiB, 'l'), brief));
    SendOptions lasting;
    lasting.ttl = 1h;
    EXPECT_OK(channel.send("in time", lasting));
    ASSERT_TRUE(wait_until([&] { return depth("jobs") == 1; }));
    auto message = channel.receive();
    ASSERT_TRUE(message);
    EXPECT_EQ(message->text(), "in time");
    EXPECT_NE(message->header().deadline, 0U);
}

TEST_F(Client, ARemovedChannelIsAnErrorForAllWhoUseIt) {
    make_channel("jobs");
    auto channel = open("jobs");
    EXPECT_OK(channel.send("x"));
    EXPECT_OK(channel.receive());
    std::thread waiting([&] { EXPECT_FAILS(EPIPE, channel.receive(20s)); });
    ASSERT_TRUE(wait_until([&] { return ::rmdir(at("jobs").c_str()) == 0; }));
    waiting.join();
    EXPECT_FAILS(EPIPE, channel.try_receive());
    EXPECT_FAILS(EPIPE, channel.send("y"));
}

TEST_F(Client, RightsAreThoseOfTheTree) {
    make_channel("jobs", "", 0755);
    auto owner = open("jobs");
    Child other(Child::As{1234, -1}, [&](std::string& text) {
        auto channel = ipcfs::Channel::open(at("jobs"));
        if (!channel) return channel.error().code;
        auto sent = channel->send("x");
        auto large = channel->send(std::string(2 * kMiB, 'x'));
        auto loan = channel->loan(100);
        auto lent = channel->send(std::move(*loan));
        text = std::to_string(sent ? 0 : sent.error().code) + " " +
               std::to_string(large ? 0 : large.error().code) + " " +
               std::to_string(lent ? 0 : lent.error().code);
        auto got = channel->receive(20s);
        return got && got->body().size() == 2 * kMiB ? 0 : 1;
    });
    EXPECT_OK(owner.send(std::string(2 * kMiB, 'x')));
    EXPECT_EQ(other.wait(), 0);
    const std::string denied = std::to_string(EACCES);
    EXPECT_EQ(other.text(), denied + " " + denied + " " + denied);
}

TEST_F(Client, ThreadsShareAChannel) {
    make_channel("jobs", "payloads pooled");
    auto channel = open("jobs");
    constexpr unsigned kEach = 60;
    std::vector<std::thread> threads;
    std::atomic<unsigned> received{0};
    std::array<std::atomic<unsigned>, 4 * kEach> seen{};
    for (unsigned t = 0; t < 4; ++t) {
        threads.emplace_back([&, t] {
            for (unsigned i = 0; i < kEach; ++i) {
                const unsigned number = t * kEach + i;
                // Small, chunk of a pool, sealed: all mixed.
                LoanOptions how;
                how.pooled = i % 3 == 1;
                how.sealed_when_busy = true;
                if (i % 3 == 0) {
                    EXPECT_OK(channel.send(std::to_string(number)));
                    continue;
                }
                auto loan = channel.loan(70000, how);
                ASSERT_TRUE(loan) << loan.error().message();
                std::snprintf(reinterpret_cast<char*>(loan->data()), 20, "%u", number);
                EXPECT_OK(channel.send(std::move(*loan)));
            }
        });
        threads.emplace_back([&] {
            while (received < 4 * kEach) {
                auto message = channel.receive(20ms);
                if (!message) {
                    EXPECT_EQ(message.error().code, ETIMEDOUT) << message.error().message();
                    continue;
                }
                ASSERT_TRUE(message->map());
                EXPECT_EQ(message->sender_pid(), static_cast<std::uint32_t>(::getpid()));
                ++seen[std::stoul(std::string(message->text().substr(0, 20)))];
                ++received;
            }
        });
    }
    for (std::thread& each : threads) each.join();
    for (const auto& each : seen) EXPECT_EQ(each, 1U);
}

TEST_F(Client, AForkedChildUsesItsParentsChannel) {
    make_channel("jobs", "payloads pooled");
    make_channel("back");
    auto jobs = open("jobs");
    auto back = open("back");
    EXPECT_OK(jobs.send("warm"));
    EXPECT_OK(jobs.receive());
    auto lent = jobs.loan(100000);
    ASSERT_TRUE(lent && lent->pooled());
    EXPECT_OK(jobs.send("for the child"));
    const pid_t child = ::fork();
    if (child == 0) {
        auto first = jobs.receive(20s);
        auto second = jobs.receive(20s);
        bool good = first && first->text() == "for the child" && second &&
                    second->body().size() == 100000 && second->body()[9] == std::byte{9};
        // A loan of the parent's is nothing to the child; one of its own is.
        auto inherited = jobs.send(std::move(*lent));
        good = good && !inherited;
        auto own = jobs.loan(100000);
        good = good && own && own->pooled();
        ::_exit(back.send(good ? "good" : "bad") ? 0 : 1);
    }
    lent->data()[9] = std::byte{9};
    EXPECT_OK(jobs.send(std::move(*lent)));
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
    auto answer = back.receive(20s);
    ASSERT_TRUE(answer);
    EXPECT_EQ(answer->text(), "good");
    EXPECT_EQ(answer->sender_pid(), static_cast<std::uint32_t>(child));
    // The parent's own are as they were.
    EXPECT_OK(jobs.send("still"));
    EXPECT_EQ(jobs.receive()->text(), "still");
}

TEST_F(Client, ASyncSendWaitsForItsReceiver) {
    make_channel("meet", "type sync\ntimeout 1s");
    auto channel = open("meet");
    EXPECT_FAILS(EAGAIN, channel.try_send("x"));
    SendOptions brief;
    brief.timeout = 10ms;
    EXPECT_FAILS(ETIMEDOUT, channel.send("x", brief));
    std::thread sender([&] { EXPECT_OK(channel.send("hello")); });
    auto message = channel.receive(20s);
    ASSERT_TRUE(message) << message.error().message();
    EXPECT_EQ(message->text(), "hello");
    sender.join();
}

TEST_F(Client, PollSaysWhenAMessageWaits) {
    make_channel("jobs");
    auto channel = open("jobs");
    auto fd = channel.receive_fd();
    ASSERT_TRUE(fd);
    EXPECT_EQ(poll_one(*fd, POLLIN, 0), 0);
    EXPECT_OK(channel.send("x"));
    EXPECT_EQ(poll_one(*fd, POLLIN, 20000) & POLLIN, POLLIN);
    EXPECT_OK(channel.try_receive());
    EXPECT_EQ(poll_one(*fd, POLLIN, 0), 0);
}

TEST_F(Client, NotifiersSeeEventsAndCountersCountThem) {
    make_channel("jobs");
    auto channel = open("jobs");
    auto all = Notifier::open(channel);
    auto urgent = Notifier::open(channel, "events=arrival min-priority=high");
    auto counter = EventCounter::open(channel, "events=arrival");
    ASSERT_TRUE(all && urgent);
    ASSERT_TRUE(counter) << counter.error().message();
    EXPECT_FAILS(EINVAL, Notifier::open(channel, "events=nonsense"));
    SendOptions critical;
    critical.priority = 255;
    EXPECT_OK(channel.send("one"));
    EXPECT_OK(channel.send("three", critical));
    auto first = all->next(20s);
    auto second = all->next(20s);
    ASSERT_TRUE(first && second);
    EXPECT_EQ(first->kind, "arrival");
    EXPECT_EQ(first->detail, "size=3");
    EXPECT_EQ(second->depth, 2U);
    auto only = urgent->next(20s);
    ASSERT_TRUE(only);
    EXPECT_EQ(only->priority, 255);
    EXPECT_FAILS(EAGAIN, urgent->try_next());
    EXPECT_NE(poll_one(counter->fd(), POLLIN, 20000), 0);
    std::uint64_t counted = 0;
    EXPECT_TRUE(wait_until([&] { return (counted += counter->take()) == 2; })) << counted;
}

TEST_F(Client, CallbacksRunOnTheCallersExecutor) {
    make_channel("jobs");
    auto channel = std::make_shared<ipcfs::Channel>(open("jobs"));
    std::mutex mutex;
    std::condition_variable changed;
    std::deque<std::function<void()>> tasks;
    std::vector<std::string> got;
    int ended = 0;
    auto executor = [&](std::function<void()> task) {
        const std::scoped_lock hold(mutex);
        tasks.push_back(std::move(task));
        changed.notify_all();
    };
    auto subscription = on_message(channel, executor, [&](Expected<Message> message) {
        if (!message) {
            EXPECT_EQ(message.error().code, EPIPE);
            ++ended;
            return;
        }
        got.emplace_back(message->text());
    });
    ASSERT_TRUE(subscription) << subscription.error().message();
    const auto run = [&](const std::function<bool()>& done) {
        while (!done()) {
            std::unique_lock hold(mutex);
            if (!changed.wait_for(hold, kPatience, [&] { return !tasks.empty(); })) return false;
            auto task = std::move(tasks.front());
            tasks.pop_front();
            hold.unlock();
            task();
        }
        return true;
    };
    for (int i = 0; i < 20; ++i) EXPECT_OK(channel->send(std::to_string(i)));
    ASSERT_TRUE(run([&] { return got.size() == 20; }));
    EXPECT_EQ(got[19], "19");
    EXPECT_OK(channel->send("another"));
    ASSERT_TRUE(run([&] { return got.size() == 21; }));
    ASSERT_TRUE(wait_until([&] { return ::rmdir(at("jobs").c_str()) == 0; }));
    ASSERT_TRUE(run([&] { return ended == 1; }));
    subscription->end();
}

struct Position {
    double x, y, z;
    std::uint32_t id;
    std::uint32_t flags;
};

TEST_F(Client, TypedChannelsTakeTheirTypeOnly) {
    make_channel("where");
    auto typed = Typed<Position>::open(at("where"));
    ASSERT_TRUE(typed);
    EXPECT_OK(typed->send(Position{1, 2, 3, 4, 5}));
    auto received = typed->receive_with_message(20s);
    ASSERT_TRUE(received) << received.error().message();
    EXPECT_EQ(received->value.y, 2);
    EXPECT_EQ(received->value.flags, 5U);
    EXPECT_OK(typed->channel().send(std::string(sizeof(Position), '\0')));
    EXPECT_FAILS(EBADMSG, typed->receive(20s));
    using Large = std::array<std::uint64_t, 300000>;
    auto large = Typed<Large>::open(at("where"));
    ASSERT_TRUE(large);
    auto value = std::make_unique<Large>();
    std::iota(value->begin(), value->end(), 1);
    EXPECT_OK(large->send(*value));
    auto message = large->channel().receive(20s);
    ASSERT_TRUE(message);
    EXPECT_TRUE(message->has_payload());
    EXPECT_EQ(std::memcmp(message->body().data(), value->data(), sizeof(Large)), 0);
}

}  // namespace
}  // namespace ipcfs::test
