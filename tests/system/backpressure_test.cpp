// Writers and a full channel: the gate at open, the bounded wait on open files, watermarks, the
// critical reserve, the overflow policies and messages that expire.
#include <algorithm>
#include <fcntl.h>
#include <signal.h>

#include "child.hpp"
#include "daemon_fixture.hpp"

namespace ipcfs::test {
namespace {

// Capacity 10: senders pause at 8 and resume at 2.
class Backpressure : public MountedTest {
protected:
    void SetUp() override {
        MountedTest::SetUp();
        if (HasFatalFailure()) return;
        make_channel("jobs", "capacity 10\n");
    }
    void fill(int count) {
        for (int i = 0; i < count; ++i) ASSERT_EQ(send("jobs", "fill" + std::to_string(i)), 0);
    }
    Child opening(const std::string& message, int flags = O_WRONLY) {
        const std::string path = at("jobs/queue");
        return Child([=](std::string&) {
            const Fd out = open_file(path, flags);
            if (!out) return errno;
            const long done = write_to(out.get(), message);
            return done < 0 ? static_cast<int>(-done) : 0;
        });
    }
};

TEST_F(Backpressure, HoldsAnOpeningWriterUntilTheLowMark) {
    fill(8);
    EXPECT_TRUE(status("jobs", "state").starts_with("paused")) << status("jobs", "state");
    auto writer = opening("late");
    ASSERT_TRUE(wait_for_waiting("jobs", 1));
    const Fd in = open_file(at("jobs/queue"), O_RDONLY);
    for (int left = 7; left >= 3; --left) ASSERT_GT(read_from(in.get()).result, 0);
    EXPECT_FALSE(writer.wait(kGlance).has_value()) << "let in above the low mark";
    ASSERT_GT(read_from(in.get()).result, 0);
    EXPECT_EQ(writer.wait(), 0);
    EXPECT_EQ(drain("jobs").back(), "late");
}

TEST_F(Backpressure, LetsANonblockingWriterOpenAndTellsItAtTheWrite) {
    fill(8);
    const Fd out = open_file(at("jobs/queue"), O_WRONLY | O_NONBLOCK);
    ASSERT_TRUE(out) << strerror(errno);
    EXPECT_EQ(write_to(out.get(), "no room"), -EAGAIN);
    ASSERT_EQ(drain("jobs").size(), 8U);
    EXPECT_EQ(write_to(out.get(), "room"), 4);
}

TEST_F(Backpressure, BoundsTheWaitOfAWriteOnAnOpenFile) {
    ASSERT_EQ(ctl("jobs", "timeout 100ms\n"), 0);
    const Fd out = open_file(at("jobs/queue"), O_WRONLY);
    fill(8);
    EXPECT_EQ(write_to(out.get(), "no room"), -EAGAIN);
    EXPECT_EQ(write_to(out.get(), "no room"), -EAGAIN);
    EXPECT_EQ(drain("jobs").size(), 8U);
    EXPECT_EQ(write_to(out.get(), "room"), 4);
}

TEST_F(Backpressure, LetsAWaitingWriteGoOnWhenThereIsRoom) {
    ASSERT_EQ(ctl("jobs", "timeout 1h\n"), 0);
    const Fd out = open_file(at("jobs/queue"), O_WRONLY);
    fill(8);
    Child writer([&](std::string&) { return static_cast<int>(write_to(out.get(), "later")); });
    ASSERT_TRUE(wait_for_waiting("jobs", 1));
    auto all = drain("jobs");  // at the low mark the write goes on: it may come with the others
    EXPECT_EQ(writer.wait(), 5);
    for (auto& message : drain("jobs")) all.push_back(std::move(message));
    ASSERT_EQ(all.size(), 9U);
    EXPECT_EQ(all.back(), "later");
}

TEST_F(Backpressure, KeepsAReserveForCriticalMessages) {
    fill(8);
    const Fd critical = open_file(at("jobs/priority/critical"), O_WRONLY | O_NONBLOCK);
    ASSERT_TRUE(critical) << strerror(errno);
    EXPECT_EQ(write_to(critical.get(), "alarm1"), 6);
    EXPECT_EQ(write_to(critical.get(), "alarm2"), 6);
    EXPECT_EQ(write_to(critical.get(), "alarm3"), -EAGAIN);
    const auto all = drain("jobs");
    ASSERT_EQ(all.size(), 10U);
    EXPECT_EQ(all[0], "alarm1");
    EXPECT_EQ(all[1], "alarm2");
    EXPECT_EQ(all[2], "fill0");
}

TEST_F(Backpressure, OfAPauseHoldsDeliveriesAndSendersUntilResumed) {
    ASSERT_EQ(send("jobs", "before"), 0);
    ASSERT_EQ(ctl("jobs", "pause\n"), 0);
    auto writer = opening("behind");
    ASSERT_TRUE(wait_for_waiting("jobs", 1));
    const std::string path = at("jobs/next");
    Child reader([path](std::string& text) {
        const Fd in = open_file(path, O_RDONLY);
        text = read_from(in.get()).data;
        return 0;
    });
    ASSERT_TRUE(wait_for_waiting("jobs", 2));
    EXPECT_FALSE(reader.wait(kGlance).has_value()) << "delivered while paused";
    EXPECT_EQ(depth("jobs"), 1);
    ASSERT_EQ(ctl("jobs", "resume\n"), 0);
    EXPECT_EQ(reader.wait(), 0);
    EXPECT_EQ(reader.text(), "before");
    EXPECT_EQ(writer.wait(), 0);
    EXPECT_EQ(drain("jobs"), std::vector<std::string>{"behind"});
}

TEST_F(Backpressure, OfAPauseWithATermEndsByItself) {
    ASSERT_EQ(ctl("jobs", "pause 150ms\n"), 0);
    auto writer = opening("after");
    EXPECT_EQ(writer.wait(), 0);
    EXPECT_EQ(drain("jobs"), std::vector<std::string>{"after"});
}

TEST_F(Backpressure, WakesHundredsOfHeldWritersAndLosesNoneOfTheirMessages) {
    fill(8);
    std::vector<Child> writers;
    for (int i = 0; i < 200; ++i) writers.push_back(opening("held" + std::to_string(i)));
    ASSERT_TRUE(wait_for_waiting("jobs", 200)) << waiting("jobs");
    std::vector<std::string> received;
    EXPECT_TRUE(wait_until([&] {
        for (auto& message : drain("jobs")) received.push_back(std::move(message));
        return received.size() == 208;
    })) << received.size();
    for (auto& writer : writers) EXPECT_EQ(writer.wait(), 0);
    std::sort(received.begin(), received.end());
    EXPECT_EQ(std::unique(received.begin(), received.end()), received.end());
}

TEST_F(Backpressure, CountsBytesToo) {
    ASSERT_EQ(ctl("jobs", "bytes 1000\n"), 0);
    ASSERT_EQ(send("jobs", std::string(400, 'a')), 0);
    ASSERT_EQ(send("jobs", std::string(400, 'b')), 0);
    const Fd out = open_file(at("jobs/queue"), O_WRONLY | O_NONBLOCK);
    EXPECT_EQ(write_to(out.get(), std::string(400, 'c')), -EAGAIN);
    EXPECT_EQ(status("jobs", "bytes"), "800");
}

TEST_F(Backpressure, OfReject) {
    ASSERT_EQ(ctl("jobs", "overflow reject\n"), 0);
    fill(8);
    EXPECT_EQ(send("jobs", "too many"), ENOBUFS);
    EXPECT_EQ(send("jobs", "alarm", "priority/critical"), 0);
    EXPECT_EQ(drain("jobs").size(), 9U);
}

TEST_F(Backpressure, OfDropOldestKeepsTheNewest) {
    ASSERT_EQ(ctl("jobs", "overflow drop-oldest\n"), 0);
    fill(12);
    const auto all = drain("jobs");
    ASSERT_EQ(all.size(), 8U);
    EXPECT_EQ(all.front(), "fill4");
    EXPECT_EQ(all.back(), "fill11");
}

TEST_F(Backpressure, OfDropNewestKeepsTheOldest) {
    ASSERT_EQ(ctl("jobs", "overflow drop-newest\n"), 0);
    fill(12);
    const auto all = drain("jobs");
    ASSERT_EQ(all.size(), 8U);
    EXPECT_EQ(all.front(), "fill0");
    EXPECT_EQ(all.back(), "fill7");
}

TEST_F(Backpressure, EndsForWhatExpires) {
    ASSERT_EQ(ctl("jobs", "ttl 100ms\n"), 0);
    fill(8);
    auto writer = opening("fresh");
    EXPECT_EQ(writer.wait(), 0) << "room that messages left by expiring";
    ASSERT_TRUE(wait_until([&] { return depth("jobs") == 0; })) << depth("jobs");
    EXPECT_TRUE(drain("jobs").empty());
}

}  // namespace
}  // namespace ipcfs::test
