// Type sync: a write returns once its message was taken.
#include <fcntl.h>
#include <signal.h>

#include "child.hpp"
#include "daemon_fixture.hpp"

namespace ipcfs::test {
namespace {

class Sync : public MountedTest {
protected:
    void SetUp() override {
        MountedTest::SetUp();
        if (HasFatalFailure()) return;
        make_channel("meet", "type sync\n");
        ASSERT_EQ(ctl("meet", "timeout 1h\n"), 0);
    }
    Child writing(const std::string& message) {
        const std::string path = at("meet/queue");
        return Child([=](std::string&) {
            const Fd out = open_file(path, O_WRONLY);
            if (!out) return errno;
            const long done = write_to(out.get(), message);
            return done < 0 ? static_cast<int>(-done) : 0;
        });
    }
};

TEST_F(Sync, AWriteReturnsWhenItsMessageIsTaken) {
    auto writer = writing("hello");
    ASSERT_TRUE(wait_until([&] { return depth("meet") == 1; }));
    EXPECT_FALSE(writer.wait(kGlance).has_value()) << "returned before anybody read";
    EXPECT_EQ(drain("meet"), std::vector<std::string>{"hello"});
    EXPECT_EQ(writer.wait(), 0);
}

TEST_F(Sync, AWaitingReaderLetsAWriteThroughAtOnce) {
    const std::string path = at("meet/next");
    Child reader([path](std::string& text) {
        const Fd in = open_file(path, O_RDONLY);
        text = read_from(in.get()).data;
        return 0;
    });
    ASSERT_TRUE(wait_for_waiting("meet", 1));
    const Fd out = open_file(at("meet/queue"), O_WRONLY | O_NONBLOCK);
    ASSERT_TRUE(out) << strerror(errno);
    EXPECT_EQ(write_to(out.get(), "direct"), 6);
    EXPECT_EQ(reader.wait(), 0);
    EXPECT_EQ(reader.text(), "direct");
}

TEST_F(Sync, ATimedOutWriteIsWithdrawn) {
    ASSERT_EQ(ctl("meet", "timeout 100ms\n"), 0);
    EXPECT_EQ(send("meet", "nobody"), ETIMEDOUT);
    EXPECT_EQ(depth("meet"), 0);
    EXPECT_TRUE(drain("meet").empty());
}

TEST_F(Sync, ANonblockingWriteWithoutAReaderQueuesNothing) {
    const Fd out = open_file(at("meet/queue"), O_WRONLY | O_NONBLOCK);
    EXPECT_EQ(write_to(out.get(), "nobody"), -EAGAIN);
    EXPECT_EQ(depth("meet"), 0);
}

TEST_F(Sync, AnInterruptedOrKilledWriteIsWithdrawn) {
    for (const int number : {SIGUSR1, SIGKILL}) {
        auto writer = writing("never");
        ASSERT_TRUE(wait_until([&] { return depth("meet") == 1; }));
        writer.signal(number);
        EXPECT_EQ(writer.wait(), number == SIGKILL ? 1000 + SIGKILL : EINTR);
        EXPECT_TRUE(wait_until([&] { return depth("meet") == 0; }));
    }
    EXPECT_TRUE(drain("meet").empty());
}

TEST_F(Sync, WritersAreLetInOneByOneInTheirOrder) {
    std::vector<Child> writers;
    std::vector<std::string> expected;
    for (int i = 0; i < 10; ++i) {
        const long before = waiting("meet");
        expected.push_back("m" + std::to_string(i));
        writers.push_back(writing(expected.back()));
        // The first waits in its write; the others wait at open, in this order.
        ASSERT_TRUE(wait_until([&] { return depth("meet") == 1 && waiting("meet") == before + 1; }))
            << i << ": " << waiting("meet");
    }
    std::vector<std::string> received;
    ASSERT_TRUE(wait_until([&] {
        EXPECT_LE(depth("meet"), 1) << "two are in";
        for (auto& message : drain("meet")) received.push_back(std::move(message));
        return received.size() == expected.size();
    })) << received.size();
    EXPECT_EQ(received, expected);
    for (auto& writer : writers) EXPECT_EQ(writer.wait(), 0);
}

TEST_F(Sync, AKilledWriterAtTheDoorDoesNotBlockTheNext) {
    auto first = writing("one");
    ASSERT_TRUE(wait_until([&] { return depth("meet") == 1; }));
    const long before = waiting("meet");
    auto second = writing("two");
    ASSERT_TRUE(wait_for_waiting("meet", before + 1));
    auto third = writing("three");
    ASSERT_TRUE(wait_for_waiting("meet", before + 2));
    second.signal(SIGKILL);
    EXPECT_EQ(second.wait(), 1000 + SIGKILL);
    first.signal(SIGKILL);
    EXPECT_EQ(first.wait(), 1000 + SIGKILL);
    ASSERT_TRUE(wait_until([&] { return !drain("meet").empty(); }));
    EXPECT_EQ(third.wait(), 0);
}

TEST_F(Sync, TheTypeIsKeptWhileTheChannelIsInUse) {
    auto writer = writing("x");
    ASSERT_TRUE(wait_until([&] { return depth("meet") == 1; }));
    EXPECT_EQ(ctl("meet", "type queue\n"), EBUSY);
    ASSERT_EQ(drain("meet").size(), 1U);
    EXPECT_EQ(writer.wait(), 0);
    EXPECT_TRUE(wait_until([&] { return ctl("meet", "type queue\n") == 0; }));
    EXPECT_EQ(send("meet", "now queued"), 0);
    EXPECT_EQ(drain("meet"), std::vector<std::string>{"now queued"});
}

}  // namespace
}  // namespace ipcfs::test
