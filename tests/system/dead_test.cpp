// Dead letters: what was given out too often, or was called dead.
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include "child.hpp"
#include "daemon_fixture.hpp"

namespace ipcfs::test {
namespace {

class DeadLetters : public MountedTest {
protected:
    void SetUp() override {
        MountedTest::SetUp();
        if (HasFatalFailure()) return;
        make_channel("jobs", "max-deliveries 2\ncapacity 10\n");
    }
    void bury(const std::string& message) {
        ASSERT_EQ(send("jobs", message), 0);
        const Fd file = open_file(at("jobs/lease"), O_RDWR);
        ASSERT_EQ(read_from(file.get()).data, message);
        ASSERT_EQ(write_to(file.get(), "dead"), 4);
    }
    long dead() { return number(status("jobs", "dead")); }
};

TEST_F(DeadLetters, AreWhatWasGivenOutTooOften) {
    ASSERT_EQ(send("jobs", "bad"), 0);
    ASSERT_EQ(send("jobs", "good"), 0);
    for (int i = 0; i < 2; ++i) {
        const Fd file = open_file(at("jobs/lease"), O_RDWR);
        EXPECT_EQ(read_from(file.get()).data, "bad");
        if (i == 0) {
            EXPECT_EQ(write_to(file.get(), "nack"), 4);
        }
    }
    ASSERT_TRUE(wait_until([&] { return dead() == 1; }));
    EXPECT_EQ(drain("jobs"), std::vector<std::string>{"good"});
    EXPECT_EQ(parse_table(slurp(at("jobs/dead/peek"))).front().at("deliveries"), "2");
}

TEST_F(DeadLetters, DoNotFillTheChannel) {
    for (int i = 0; i < 20; ++i) bury(std::to_string(i));
    EXPECT_EQ(dead(), 20);
    EXPECT_EQ(status("jobs", "state"), "ok");
    EXPECT_EQ(depth("jobs"), 0);
}

TEST_F(DeadLetters, GoBackInTheirOrderBehindWhatIsQueued) {
    for (const char* each : {"a", "b", "c"}) bury(each);
    ASSERT_EQ(send("jobs", "first"), 0);
    ASSERT_EQ(ctl("jobs", "redrive\n"), 0);
    EXPECT_EQ(dead(), 0);
    EXPECT_EQ(drain("jobs"), (std::vector<std::string>{"first", "a", "b", "c"}));
}

TEST_F(DeadLetters, ARedriveServesWhoeverWaits) {
    bury("again");
    const std::string path = at("jobs/next");
    Child reader([path](std::string& text) {
        const Fd file = open_file(path, O_RDONLY);
        text = read_patiently(file.get()).data;
        return 0;
    });
    ASSERT_TRUE(wait_for_waiting("jobs", 1));
    ASSERT_EQ(ctl("jobs", "redrive\n"), 0);
    EXPECT_EQ(reader.wait(), 0);
    EXPECT_EQ(reader.text(), "again");
}

TEST_F(DeadLetters, AreWaitedForAndPolled) {
    const Fd next = open_file(at("jobs/dead/next"), O_RDONLY | O_NONBLOCK);
    const Fd queue = open_file(at("jobs/dead/queue"), O_RDONLY);
    EXPECT_EQ(read_from(next.get()).result, -EAGAIN);
    EXPECT_EQ(read_from(queue.get()).result, 0);
    ASSERT_EQ(send("jobs", "alive"), 0);
    EXPECT_EQ(poll_one(next.get(), POLLIN, 0), 0) << "it is no dead letter";
    ASSERT_EQ(drain("jobs").size(), 1U);
    const std::string path = at("jobs/dead/next");
    Child waiting([path](std::string& text) {
        const Fd file = open_file(path, O_RDONLY);
        struct pollfd asked {
            file.get(), POLLIN, 0
        };
        if (poll(&asked, 1, static_cast<int>(kPatience.count())) != 1) return 1;
        text = read_patiently(file.get()).data;
        return 0;
    });
    bury("one");
    bury("two");
    EXPECT_EQ(waiting.wait(), 0);
    EXPECT_EQ(waiting.text(), "one");
    EXPECT_EQ(read_from(queue.get()).data, "two");
}

TEST_F(DeadLetters, AreNotThereOnOtherTypes) {
    ASSERT_EQ(ctl("jobs", "type sync\n"), 0);
    EXPECT_EQ(open_error(at("jobs/dead/queue"), O_RDONLY), ENOENT);
    EXPECT_EQ(open_error(at("jobs/lease"), O_RDWR), ENOENT);
    ASSERT_EQ(ctl("jobs", "type batch\nbatch off\n"), 0);
    bury("here");
    EXPECT_EQ(ctl("jobs", "type queue\n"), EBUSY);
    EXPECT_EQ(slurp(at("jobs/dead/queue")), "here");
    // The kernel tells of a close when close(2) has returned.
    EXPECT_TRUE(wait_until([&] { return ctl("jobs", "type queue\n") == 0; }));
}

}  // namespace
}  // namespace ipcfs::test
