// Durable channels over the death of the daemon: what was acknowledged is there again, once, in order,
// and what somebody may have seen before says so.
#include <array>
#include <atomic>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <set>
#include <signal.h>
#include <sstream>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <thread>
#include <unistd.h>

#include "child.hpp"
#include "daemon_fixture.hpp"
#include "frames.hpp"

namespace ipcfs::test {
namespace {

class Durable : public MountedTest {
protected:
    void SetUp() override {
        MountedTest::SetUp();
        const char* given = std::getenv("IPCFS_TEST_SEED");
        seed_ = given ? std::strtoull(given, nullptr, 0) : std::random_device{}();
        random_.seed(seed_);
    }
    void TearDown() override {
        if (HasFailure()) std::cerr << "seed " << seed_ << "\n";
        MountedTest::TearDown();
    }
    std::uint64_t any(std::uint64_t below) { return random_() % below; }

    void kill_and_start() {
        daemon().kill();
        daemon().start();
        ASSERT_TRUE(daemon().running()) << daemon().log();
    }
    // All that framed/queue has, one after the other.
    std::vector<Received> take_all(std::string_view channel) {
        std::vector<Received> all;
        const Fd in = open_file(at(std::string(channel) + "/framed/queue"), O_RDONLY | O_NONBLOCK);
        for (;;) {
            auto got = read_patiently(in.get());
            if (got.result <= 0) return all;
            all.push_back(parse_frame(got.data));
        }
    }
    static std::vector<std::string> bodies(const std::vector<Received>& frames) {
        std::vector<std::string> all;
        for (const Received& frame : frames) all.push_back(frame.body);
        return all;
    }

    std::uint64_t seed_ = 0;
    std::mt19937_64 random_;
};

TEST_F(Durable, FilesAreMadeWithTheFirstDurableChannelAndWhatFailsIsTheWritersError) {
    const std::string kept = daemon().directory() + "/state/store";
    make_channel("jobs");
    ASSERT_EQ(send("jobs", "before"), 0);
    EXPECT_FALSE(std::filesystem::exists(kept));
    std::ofstream(kept) << "in the way";
    EXPECT_EQ(ctl("jobs", "durable sync\n"), ENOTDIR);
    EXPECT_NE(slurp(at("jobs/ctl")).find("durable off"), std::string::npos)
        << slurp(at("jobs/ctl"));
    EXPECT_NE(status("jobs", "last-error").find(kept), std::string::npos);
    ASSERT_EQ(send("jobs", "goes on"), 0);
    std::filesystem::remove(kept);
    ASSERT_EQ(ctl("jobs", "durable sync\n"), 0);
    EXPECT_TRUE(std::filesystem::exists(kept));
    kill_and_start();
    EXPECT_EQ(drain("jobs"), (std::vector<std::string>{"before", "goes on"}));
}

TEST_F(Durable, ChannelsComeBackWithAllThatBelongsToThem) {
    make_channel("a", {}, 0751);
    make_channel("a/b", "capacity 77\nttl 1h\ndurable sync\n", 0740);
    make_channel("a/gone");
    ASSERT_EQ(chown(at("a/b").c_str(), kAlice, kAlice), 0);
    ASSERT_EQ(chmod(at("a/b/queue").c_str(), 0620), 0);
    ASSERT_EQ(setxattr(at("a/b").c_str(), "user.colour", "blue", 4, 0), 0);
    std::string output;
    ASSERT_EQ(shell("setfacl -m u:1002:rw " + at("a/b/ctl"), &output), 0) << output;
    ASSERT_EQ(shell("getfacl -cp " + at("a/b/ctl"), &output), 0);
    struct stat before {
    }, after{};
    ASSERT_EQ(stat(at("a/b").c_str(), &before), 0);
    kill_and_start();
    ASSERT_EQ(stat(at("a/b").c_str(), &after), 0) << strerror(errno);
    EXPECT_EQ(after.st_mode, before.st_mode);
    EXPECT_EQ(after.st_uid, kAlice);
    EXPECT_EQ(after.st_ino, before.st_ino);
    ASSERT_EQ(stat(at("a/b/queue").c_str(), &after), 0);
    EXPECT_EQ(after.st_mode & 0777, 0620u);
    ASSERT_EQ(stat(at("a").c_str(), &after), 0);
    EXPECT_EQ(after.st_mode & 0777, 0751u) << "what is above a durable channel comes back too";
    EXPECT_EQ(open_error(at("a/gone/ctl"), O_RDONLY), ENOENT) << "it is not durable";
    char colour[8] = {};
    EXPECT_EQ(getxattr(at("a/b").c_str(), "user.colour", colour, sizeof colour), 4);
    EXPECT_STREQ(colour, "blue");
    std::string acl;
    ASSERT_EQ(shell("getfacl -cp " + at("a/b/ctl"), &acl), 0);
    EXPECT_EQ(acl, output);
    const std::string settings = slurp(at("a/b/ctl"));
    EXPECT_EQ(value_of(settings, "capacity"), "77");
    EXPECT_EQ(value_of(settings, "ttl"), "1h");
    EXPECT_EQ(value_of(settings, "durable"), "sync");
    // And what is removed stays so.
    ASSERT_EQ(rmdir(at("a/b").c_str()), 0);
    ASSERT_EQ(mkdir(at("a/c").c_str(), 0777), 0);
    kill_and_start();
    EXPECT_EQ(open_error(at("a/b/ctl"), O_RDONLY), ENOENT);
}

TEST_F(Durable, MessagesComeBackInOrderWithTheirEnvelope) {
    for (const char* mode : {"async", "sync"}) {
        make_channel(mode, std::string("durable ") + mode + "\n");
        ASSERT_EQ(send(mode, "low", "priority/low"), 0);
        for (int i = 0; i < 100; ++i) ASSERT_EQ(send(mode, std::to_string(i)), 0);
        ASSERT_EQ(send(mode, "high", "priority/high"), 0);
        FrameHeader header;
        header.type = FrameType::kEvent;
        header.correlation_id = 4711;
        ASSERT_EQ(send(mode, frame(header, std::string(300'000, 'x')), "framed/queue"), 0);
    }
    kill_and_start();
    for (const char* mode : {"async", "sync"}) {
        EXPECT_EQ(depth(mode), 103) << mode;
        auto all = take_all(mode);
        ASSERT_EQ(all.size(), 103u) << mode;
        EXPECT_EQ(all[0].body, "high");
        for (int i = 0; i < 100; ++i) EXPECT_EQ(all[size_t(i) + 1].body, std::to_string(i));
        EXPECT_EQ(all[101].body.size(), 300'000u);
        EXPECT_EQ(all[101].header.type, FrameType::kEvent);
        EXPECT_EQ(all[101].header.correlation_id, 4711u);
        EXPECT_EQ(all[102].body, "low");
        for (const auto& each : all) {
            EXPECT_EQ(each.header.flags & kFrameRedelivered, 0) << "nobody had seen it";
            EXPECT_EQ(each.header.sender_uid, 0u);
        }
    }
    ASSERT_TRUE(wait_for_kept(0));
    kill_and_start();
    for (const char* mode : {"async", "sync"}) {
        EXPECT_EQ(depth(mode), 0) << mode << ": what was delivered is gone";
        ASSERT_EQ(send(mode, "again"), 0);
        auto all = take_all(mode);
        ASSERT_EQ(all.size(), 1u);
        EXPECT_GT(all[0].header.sequence, 103u) << "sequences go on";
    }
}

TEST_F(Durable, WhatWasLeasedComesBackFlaggedAndDeadLettersStayDead) {
    make_channel("jobs", "durable sync\nmax-deliveries 2\n");
    for (const char* each : {"one", "two", "three"}) ASSERT_EQ(send("jobs", each), 0);
    const auto lease = [&] { return open_file(at("jobs/lease"), O_RDWR); };
    {
        const Fd dead = lease();
        ASSERT_EQ(read_from(dead.get()).data, "one");
        ASSERT_EQ(write_to(dead.get(), "dead\n"), 5);
        const Fd done = lease();
        ASSERT_EQ(read_from(done.get()).data, "two");
        ASSERT_EQ(write_to(done.get(), "ack\n"), 4);
    }
    const Fd held = lease();
    ASSERT_EQ(read_from(held.get()).data, "three");
    kill_and_start();
    EXPECT_EQ(status("jobs", "dead"), "1");
    auto all = take_all("jobs");
    ASSERT_EQ(all.size(), 1u);
    EXPECT_EQ(all[0].body, "three");
    EXPECT_NE(all[0].header.flags & kFrameRedelivered, 0);
    EXPECT_EQ(slurp(at("jobs/dead/queue")), "one");
}

TEST_F(Durable, LargePayloadsComeBack) {
    make_channel("films", "durable sync\n");
    std::string film(5'000'000, '\0');
    for (auto& each : film) each = static_cast<char>(any(256));
    {
        const Fd put = open_file(at("films/put"), O_WRONLY);
        ASSERT_TRUE(put);
        for (std::size_t done = 0; done < film.size();) {
            const long wrote = write_to(put.get(), std::string_view(film).substr(done, 1 << 20));
            ASSERT_GT(wrote, 0);
            done += static_cast<std::size_t>(wrote);
        }
        Fd closing(dup(put.get()));
        ASSERT_TRUE(closing);
    }
    ASSERT_TRUE(wait_until([&] { return depth("films") == 1; }));
    kill_and_start();
    ASSERT_EQ(depth("films"), 1);
    const Fd next = open_file(at("films/next"), O_RDONLY);
    std::string got;
    for (;;) {
        auto part = read_patiently(next.get());
        if (part.result <= 0) break;
        got += part.data;
    }
    EXPECT_TRUE(got == film);
    ASSERT_TRUE(wait_until([&] {
        std::string left;
        shell("find " + daemon().directory() + "/state -path '*payload*' -type f | wc -l", &left);
        return left == "0\n";
    })) << "its file goes with it";
}

TEST_F(Durable, SubscriptionsComeBackWithWhatTheyHold) {
    make_channel("news", "type topic\ndurable sync\n");
    ASSERT_EQ(mkdir(at("news/subs/alice").c_str(), 0755), 0) << strerror(errno);
    ASSERT_EQ(mkdir(at("news/subs/bob").c_str(), 0755), 0);
    {
        const Fd filter = open_file(at("news/subs/bob/filter"), O_WRONLY);
        ASSERT_EQ(write_to(filter.get(), "prefix b\n"), 9);
    }
    for (const char* each : {"a1", "b1", "a2", "b2"}) ASSERT_EQ(send("news", each), 0);
    kill_and_start();
    EXPECT_EQ(drain("news/subs/alice"), (std::vector<std::string>{"a1", "b1", "a2", "b2"}));
    EXPECT_EQ(drain("news/subs/bob"), (std::vector<std::string>{"b1", "b2"}));
    ASSERT_TRUE(wait_for_kept(0));
    ASSERT_EQ(send("news", "b3"), 0);
    kill_and_start();
    EXPECT_EQ(drain("news/subs/alice"), std::vector<std::string>{"b3"});
    EXPECT_EQ(drain("news/subs/bob"), std::vector<std::string>{"b3"});
}

// ---- fifty kills ----------------------------------------------------------------------------------

struct Seen {
    std::uint64_t sequence;
    bool redelivered;
    int writer;
    long number;
};

TEST_F(Durable, KeepsWhatItAcknowledgedOverFiftyKills) {
    constexpr int kWriters = 4, kReaders = 4;
    const int kills = is_instrumented() ? 12 : 50;
    const std::array<std::string, 2> channels{"async", "sync"};
    for (const auto& channel : channels) {
        make_channel(channel, "durable " + channel + "\ncapacity 100000\n");
    }
    const std::string mount = daemon().mount();
    // Shared with the children: when to end.
    const Fd end(memfd_create("end", 0));
    const auto over = [&end] {
        char byte = 0;
        return pread(end.get(), &byte, 1, 0) == 1;
    };
    std::vector<Child> writers, readers;
    for (int w = 0; w < kWriters; ++w) {
        writers.emplace_back([=](std::string& acknowledged) {
            const std::string path = mount + "/" + channels[size_t(w) % 2] + "/queue";
            Fd out;
            for (long n = 0; !over(); ++n) {
                if (!out) out = open_file(path, O_WRONLY);
                if (!out) {
                    usleep(1000);
                    continue;
                }
                const std::string text = std::to_string(w) + " " + std::to_string(n);
                const long done = write_to(out.get(), text);
                if (done == static_cast<long>(text.size())) {
                    acknowledged += std::to_string(n) + "\n";
                } else {
                    out.reset();
                }
            }
            return 0;
        });
    }
    for (int r = 0; r < kReaders; ++r) {
        readers.emplace_back([=](std::string& seen) {
            const std::string path = mount + "/" + channels[size_t(r) % 2] + "/framed/queue";
            Fd in;
            while (!over()) {
                if (!in) in = open_file(path, O_RDONLY | O_NONBLOCK);
                const auto got = in ? read_from(in.get()) : Read{-1, {}};
                if (got.result > 0) {
                    const Received frame = parse_frame(got.data);
                    if (!frame.whole) return 1;
                    seen += std::to_string(frame.header.sequence) + " " +
                            std::to_string(frame.header.flags & kFrameRedelivered) + " " +
                            frame.body + "\n";
                    continue;
                }
                if (got.result < 0 && got.result != -EAGAIN) in.reset();
                usleep(500);
            }
            return 0;
        });
    }
    for (int i = 0; i < kills; ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(20 + any(120)));
        kill_and_start();
        if (HasFatalFailure()) break;
        if (any(4) == 0) {  // and while it recovers
            daemon().kill();
            daemon().launch();
            std::this_thread::sleep_for(std::chrono::microseconds(any(60'000)));
        }
    }
    ASSERT_TRUE(wait_until([&] {
        if (!daemon().running()) daemon().start();
        return !slurp(mount + "/sync/status").empty();
    })) << daemon().log();
    ASSERT_EQ(pwrite(end.get(), "x", 1, 0), 1);
    std::array<std::vector<Seen>, 2> seen;
    const auto add = [&](std::size_t channel, std::uint64_t sequence, bool redelivered,
                         const std::string& body) {
        Seen one{sequence, redelivered, 0, 0};
        std::istringstream(body) >> one.writer >> one.number;
        seen[channel].push_back(one);
    };
    for (int r = 0; r < kReaders; ++r) {
        ASSERT_EQ(readers[size_t(r)].wait(), 0);
        std::istringstream lines(readers[size_t(r)].text());
        std::uint64_t sequence = 0;
        unsigned flag = 0;
        std::string writer, number;
        while (lines >> sequence >> flag >> writer >> number) {
            add(size_t(r) % 2, sequence, flag != 0, writer + " " + number);
        }
    }
    for (std::size_t c = 0; c < 2; ++c) {
        for (const Received& frame : take_all(channels[c])) {
            add(c, frame.header.sequence, (frame.header.flags & kFrameRedelivered) != 0,
                frame.body);
        }
    }
    for (int w = 0; w < kWriters; ++w) {
        ASSERT_EQ(writers[size_t(w)].wait(), 0);
        std::map<long, std::vector<Seen>> got;
        std::map<std::uint64_t, long> by_sequence;
        for (const Seen& one : seen[size_t(w) % 2]) {
            if (one.writer != w) continue;
            got[one.number].push_back(one);
            by_sequence[one.sequence] = one.number;
        }
        long acknowledged = 0;
        std::istringstream lines(writers[size_t(w)].text());
        for (long n = 0; lines >> n; ++acknowledged) {
            EXPECT_TRUE(got.contains(n)) << "writer " << w << ": lost " << n;
        }
        EXPECT_GE(acknowledged, kills) << "writer " << w << ": too few to show anything";
        for (const auto& [n, times] : got) {
            int unflagged = 0;
            for (const Seen& one : times) {
                unflagged += !one.redelivered;
                EXPECT_EQ(one.sequence, times[0].sequence) << "enqueued twice: " << n;
            }
            EXPECT_LE(unflagged, 1) << "writer " << w << ": " << n << " twice without a flag";
        }
        long last = -1;
        for (const auto& [sequence, n] : by_sequence) {
            EXPECT_GT(n, last) << "writer " << w << " at " << sequence;
            last = n;
        }
    }
}

// The mount survives the daemon: who has a file open, reads or writes, notices nothing but the time.
TEST_F(Durable, OpenFilesGoOnOverKillsAndNoWriteIsDoneTwice) {
    const int kills = is_instrumented() ? 5 : 15;
    const std::array<std::string, 2> channels{"async", "sync"};
    for (const auto& channel : channels) {
        make_channel(channel, "durable " + channel + "\ncapacity 100000\n");
    }
    if (version("survives") != "yes") GTEST_SKIP() << version("why-not-survives");
    const bool is_uring = version("transport") == "uring";
    const Fd end(memfd_create("end", 0));
    const auto over = [&end] {
        char byte = 0;
        return pread(end.get(), &byte, 1, 0) == 1;
    };
    std::vector<Child> writers, readers;
    for (const auto& channel : channels) {
        for (int w = 0; w < 2; ++w) {
            writers.emplace_back([&, w, path = at(channel + "/queue")](std::string& said) {
                const Fd out = open_file(path, O_WRONLY);
                long n = 0;
                // On a busy machine few writes end between the kills: it goes on until there are enough.
                for (; !over() || n <= 20; ++n) {
                    const std::string text = std::to_string(w) + " " + std::to_string(n);
                    const long done = write_to(out.get(), text);
                    if (done == static_cast<long>(text.size())) continue;
                    // The kernel's word for what the dying daemon was never given.
                    if (is_uring && is_undone(done)) {
                        --n;
                        continue;
                    }
                    said = "write " + std::to_string(n) + ": " + strerror(static_cast<int>(-done));
                    return 1;
                }
                said = std::to_string(n);
                return 0;
            });
        }
        readers.emplace_back([is_uring, path = at(channel + "/framed/stream")](std::string& seen) {
            const Fd in = open_file(path, O_RDONLY);
            for (;;) {
                const auto got = read_patiently(in.get());
                if (is_uring && is_undone(got.result)) continue;
                if (got.result <= 0) {
                    seen = "read: " + std::to_string(got.result);
                    return 1;
                }
                const Received frame = parse_frame(got.data);
                if (frame.body == "end") return 0;
                seen += std::to_string(frame.header.sequence) + " " + frame.body + "\n";
            }
        });
    }
    for (int i = 0; i < kills; ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(30 + any(100)));
        ASSERT_NO_FATAL_FAILURE(replace_server());
    }
    ASSERT_EQ(pwrite(end.get(), "x", 1, 0), 1);
    for (auto& writer : writers) ASSERT_EQ(writer.wait(), 0) << writer.text();
    for (std::size_t c = 0; c < 2; ++c) {
        ASSERT_EQ(send(channels[c], "end", "priority/low"), 0);
        ASSERT_EQ(readers[c].wait(), 0) << readers[c].text();
        std::map<std::uint64_t, std::string> by_sequence;
        std::istringstream lines(readers[c].text());
        std::uint64_t sequence = 0;
        std::string w, n;
        while (lines >> sequence >> w >> n) by_sequence[sequence] = w + " " + n;
        for (int writer = 0; writer < 2; ++writer) {
            const long sent = number(writers[c * 2 + std::size_t(writer)].text());
            long next = 0;
            for (const auto& [at_sequence, body] : by_sequence) {
                if (body[0] != '0' + writer) continue;
                ASSERT_EQ(body, std::to_string(writer) + " " + std::to_string(next))
                    << channels[c] << " at " << at_sequence << ": lost, doubled or out of order";
                ++next;
            }
            EXPECT_EQ(next, sent) << channels[c];
        }
    }
}

}  // namespace
}  // namespace ipcfs::test
