// Waiting, and what ends it: signals, death, a stopped process, a turn in the line.
#include <algorithm>
#include <fcntl.h>
#include <set>
#include <signal.h>

#include "child.hpp"
#include "daemon_fixture.hpp"

namespace ipcfs::test {
namespace {

class Interrupts : public MountedTest {
protected:
    void SetUp() override {
        MountedTest::SetUp();
        if (HasFatalFailure()) return;
        make_channel("jobs");
    }
    // Reads one message from `file`; the errno is its exit code.
    Child reading(const std::string& file) {
        const std::string path = at("jobs/" + file);
        return Child([path](std::string& text) {
            const Fd in = open_file(path, O_RDONLY);
            if (!in) return errno;
            const auto got = read_from(in.get());
            text = got.data;
            return got.result < 0 ? static_cast<int>(-got.result) : 0;
        });
    }
    // Opens `file` for writing, which may wait, and writes `message`.
    Child writing(const std::string& file, const std::string& message) {
        const std::string path = at("jobs/" + file);
        return Child([path, message](std::string&) {
            const Fd out = open_file(path, O_WRONLY);
            if (!out) return errno;
            const long done = write_to(out.get(), message);
            return done < 0 ? static_cast<int>(-done) : 0;
        });
    }
};

TEST_F(Interrupts, EndAWaitingReadAtOnceAndTakeNothing) {
    for (const char* file : {"next", "stream", "framed/next", "framed/stream"}) {
        auto reader = reading(file);
        ASSERT_TRUE(wait_for_waiting("jobs", 1)) << file;
        reader.signal(SIGUSR1);
        EXPECT_EQ(reader.wait(), EINTR) << file;
        ASSERT_TRUE(wait_for_waiting("jobs", 0)) << file;
        ASSERT_EQ(send("jobs", "kept"), 0);
        EXPECT_EQ(drain("jobs"), std::vector<std::string>{"kept"}) << file;
    }
}

TEST_F(Interrupts, EndAWaitForNotificationsAtOnce) {
    const std::string path = at("jobs/notify");
    int ready[2];
    ASSERT_EQ(pipe2(ready, O_CLOEXEC), 0);
    const Fd listen(ready[0]);
    const Fd tell(ready[1]);
    Child reader([&](std::string&) {
        const Fd in = open_file(path, O_RDONLY);
        if (!in) return errno;
        write_to(tell.get(), "r");
        return static_cast<int>(-read_from(in.get()).result);
    });
    ASSERT_EQ(read_from(listen.get(), 1).result, 1);
    // It may not be inside read yet, so the signal is repeated until it has met the read.
    EXPECT_TRUE(wait_until([&] {
        reader.signal(SIGUSR1);
        return reader.wait(5ms).has_value();
    }));
    EXPECT_EQ(reader.wait(), EINTR);
}

TEST_F(Interrupts, EndAnOpenWaitingBehindAPauseAtOnce) {
    ASSERT_EQ(ctl("jobs", "pause\n"), 0);
    for (const char* file : {"queue", "priority/normal", "framed/queue"}) {
        auto writer = writing(file, "never");
        ASSERT_TRUE(wait_for_waiting("jobs", 1)) << file;
        writer.signal(SIGUSR1);
        EXPECT_EQ(writer.wait(), EINTR) << file;
        EXPECT_TRUE(wait_for_waiting("jobs", 0)) << file;
    }
    ASSERT_EQ(ctl("jobs", "resume\n"), 0);
    EXPECT_EQ(depth("jobs"), 0);
}

TEST_F(Interrupts, EndAWriteWaitingForRoomAtOnceAndQueueNothing) {
    ASSERT_EQ(ctl("jobs", "capacity 10\ntimeout 1h\n"), 0);
    const Fd out = open_file(at("jobs/queue"), O_WRONLY);
    for (int i = 0; i < 8; ++i) ASSERT_EQ(write_to(out.get(), "fill"), 4);
    Child writer([&](std::string&) {
        const long done = write_to(out.get(), "never");
        return done < 0 ? static_cast<int>(-done) : 0;
    });
    ASSERT_TRUE(wait_for_waiting("jobs", 1));
    writer.signal(SIGUSR1);
    EXPECT_EQ(writer.wait(), EINTR);
    EXPECT_EQ(drain("jobs"), std::vector<std::string>(8, "fill"));
}

TEST_F(Interrupts, ThatKillHundredsOfReadersCostNobodyAMessage) {
    std::vector<Child> readers;
    for (int i = 0; i < 300; ++i) readers.push_back(reading(i % 2 == 0 ? "next" : "stream"));
    ASSERT_TRUE(wait_for_waiting("jobs", 300)) << waiting("jobs");
    auto survivor = reading("next");
    ASSERT_TRUE(wait_for_waiting("jobs", 301));
    for (const auto& reader : readers) reader.signal(SIGKILL);
    for (auto& reader : readers)
        ASSERT_EQ(reader.wait(5s), 1000 + SIGKILL) << "hangs in the kernel";
    ASSERT_TRUE(wait_for_waiting("jobs", 1)) << waiting("jobs");

    std::vector<std::string> expected;
    for (int i = 0; i < 400; ++i) {
        expected.push_back(std::to_string(i));
        ASSERT_EQ(send("jobs", expected.back()), 0);
    }
    ASSERT_EQ(survivor.wait(), 0);
    auto received = drain("jobs");
    received.insert(received.begin(), survivor.text());
    EXPECT_EQ(received, expected);
}

// The kill races with the delivery: a message whose reader dies goes to another, or died with one
// that had already read it. Readers say what they got by the exit code, in the pipe, or not at all.
TEST_F(Interrupts, ThatKillReadersWhileMessagesArriveLoseNoneUnread) {
    std::vector<Child> doomed;
    for (int i = 0; i < 100; ++i) doomed.push_back(reading("next"));
    ASSERT_TRUE(wait_for_waiting("jobs", 100));
    const Fd out = open_file(at("jobs/queue"), O_WRONLY);
    for (int i = 0; i < 100; ++i) {
        doomed[static_cast<std::size_t>(99 - i)].signal(SIGKILL);
        ASSERT_GT(write_to(out.get(), std::to_string(i)), 0);
    }
    std::multiset<std::string> seen;
    int killed = 0;
    for (auto& reader : doomed) {
        const auto code = reader.wait(5s);
        ASSERT_TRUE(code.has_value());
        if (*code == 0) seen.insert(reader.text());
        if (*code == 1000 + SIGKILL) ++killed;
    }
    for (auto& message : drain("jobs")) seen.insert(message);
    for (int i = 0; i < 100; ++i) EXPECT_LE(seen.count(std::to_string(i)), 1U) << "twice: " << i;
    EXPECT_GE(static_cast<int>(seen.size()) + killed, 100) << "lost more than the killed can hold";
}

TEST_F(Interrupts, ThatKillHundredsOfWaitingWritersLeaveNothingBehind) {
    ASSERT_EQ(ctl("jobs", "pause\n"), 0);
    std::vector<Child> writers;
    for (int i = 0; i < 300; ++i) {
        writers.push_back(writing(i % 2 == 0 ? "queue" : "priority/low", "never"));
    }
    ASSERT_TRUE(wait_for_waiting("jobs", 300)) << waiting("jobs");
    for (const auto& writer : writers) writer.signal(SIGKILL);
    for (auto& writer : writers) ASSERT_EQ(writer.wait(5s), 1000 + SIGKILL);
    ASSERT_TRUE(wait_for_waiting("jobs", 0)) << waiting("jobs");
    ASSERT_EQ(ctl("jobs", "resume\n"), 0);
    ASSERT_EQ(send("jobs", "alive"), 0);
    EXPECT_EQ(drain("jobs"), std::vector<std::string>{"alive"});
}

// Behind one parked WRITE the kernel holds all other writers of the file uninterruptibly, for at
// most `timeout`. Killed, they end when the first has; none of them leaves a message.
TEST_F(Interrupts, ThatKillWritersOnOpenFilesOfAFullChannelEndThemSoon) {
    ASSERT_EQ(ctl("jobs", "capacity 10\ntimeout 300ms\n"), 0);
    const Fd out = open_file(at("jobs/queue"), O_WRONLY);
    for (int i = 0; i < 8; ++i) ASSERT_EQ(write_to(out.get(), "fill"), 4);
    std::vector<Child> writers;
    for (int i = 0; i < 50; ++i) {
        writers.emplace_back(
            [&](std::string&) { return static_cast<int>(-write_to(out.get(), "never")); });
    }
    for (const auto& writer : writers) writer.signal(SIGKILL);
    for (auto& writer : writers) {
        const auto code = writer.wait(5s);
        ASSERT_TRUE(code == 1000 + SIGKILL || code == EAGAIN) << code.value_or(-1);
    }
    EXPECT_EQ(drain("jobs"), std::vector<std::string>(8, "fill"));
}

// Stopping is a signal like others: the read ends with EINTR, is issued again when the process goes
// on, and has lost its place, but no message.
TEST_F(Interrupts, ThatStopAReaderKeepNobodyElseWaiting) {
    const auto patient = [this] {
        const std::string path = at("jobs/next");
        return Child([path](std::string& text) {
            const Fd in = open_file(path, O_RDONLY);
            text = read_patiently(in.get()).data;
            return 0;
        });
    };
    auto stopped = patient();
    ASSERT_TRUE(wait_for_waiting("jobs", 1));
    stopped.signal(SIGSTOP);
    auto second = patient();
    ASSERT_EQ(send("jobs", "one"), 0);
    ASSERT_EQ(send("jobs", "two"), 0);
    EXPECT_EQ(second.wait(), 0) << "it waits for a process that does not run";
    stopped.signal(SIGCONT);
    EXPECT_EQ(stopped.wait(), 0);
    const std::set<std::string> both = {stopped.text(), second.text()};
    EXPECT_EQ(both, (std::set<std::string>{"one", "two"}));
}

TEST_F(Interrupts, AsideReadersAreServedFirstComeFirstServed) {
    std::vector<Child> readers;
    for (int i = 0; i < 20; ++i) {
        readers.push_back(reading(i % 3 == 0 ? "stream" : "next"));
        ASSERT_TRUE(wait_for_waiting("jobs", i + 1));
    }
    for (int i = 0; i < 20; ++i) ASSERT_EQ(send("jobs", std::to_string(i)), 0);
    for (int i = 0; i < 20; ++i) {
        auto& reader = readers[static_cast<std::size_t>(i)];
        EXPECT_EQ(reader.wait(), 0);
        EXPECT_EQ(reader.text(), std::to_string(i));
    }
}

}  // namespace
}  // namespace ipcfs::test
