// poll and epoll on every message file: POLLIN a message waits, POLLOUT a write would not block,
// POLLHUP the channel is gone.
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "child.hpp"
#include "daemon_fixture.hpp"

namespace ipcfs::test {
namespace {

constexpr int kSoon = 10000;  // ms
const char* const kReadable[] = {"queue",        "next",        "stream",
                                 "framed/queue", "framed/next", "framed/stream"};
const char* const kWritable[] = {"queue",           "priority/critical", "priority/high",
                                 "priority/normal", "priority/low",      "framed/queue"};

class Poll : public MountedTest {
protected:
    void SetUp() override {
        MountedTest::SetUp();
        if (HasFatalFailure()) return;
        make_channel("jobs", "capacity 10\n");
    }
    std::string file(const char* name) { return at(std::string("jobs/") + name); }
    bool becomes(int fd, short events, short wanted) {
        return wait_until([&] { return (poll_one(fd, events, 0) & events) == wanted; });
    }
    void fill(int count = 8) {
        for (int i = 0; i < count; ++i) ASSERT_EQ(send("jobs", "fill"), 0);
    }
};

TEST_F(Poll, SaysReadableExactlyWhileAMessageWaits) {
    for (const char* name : kReadable) {
        const Fd in = open_file(file(name), O_RDONLY | O_NONBLOCK);
        EXPECT_EQ(poll_one(in.get(), POLLIN, 0), 0) << name;
        ASSERT_EQ(send("jobs", "x"), 0);
        EXPECT_EQ(poll_one(in.get(), POLLIN, kSoon) & POLLIN, POLLIN) << name;
        ASSERT_GT(read_from(in.get()).result, 0) << name;
        if (std::string_view(name).ends_with("next")) continue;  // now at its end of file
        EXPECT_EQ(poll_one(in.get(), POLLIN, 0), 0) << name;
    }
}

TEST_F(Poll, WakesWhoWaitsForAMessage) {
    for (const char* name : kReadable) {
        const std::string path = file(name);
        Child waiter([path](std::string& text) {
            const Fd in = open_file(path, O_RDONLY | O_NONBLOCK);
            for (;;) {
                if ((poll_one(in.get(), POLLIN, kSoon) & POLLIN) == 0) return 1;
                const auto got = read_from(in.get());
                if (got.result > 0) {
                    text = got.data;
                    return 0;
                }
            }
        });
        ASSERT_FALSE(waiter.wait(20ms).has_value()) << name;
        ASSERT_EQ(send("jobs", "wake"), 0);
        EXPECT_EQ(waiter.wait(), 0) << name;
        EXPECT_TRUE(waiter.text().ends_with("wake")) << name;
    }
}

TEST_F(Poll, WakesEveryWaitingProcessOverAndOver) {
    std::vector<Child> waiters;
    for (int i = 0; i < 20; ++i) {
        const std::string path = file(kReadable[i % 3]);
        waiters.emplace_back([path](std::string&) {
            for (int taken = 0; taken < 10;) {
                const Fd in = open_file(path, O_RDONLY | O_NONBLOCK);
                if ((poll_one(in.get(), POLLIN, kSoon) & POLLIN) == 0) return 1;
                if (read_from(in.get()).result > 0) ++taken;
            }
            return 0;
        });
    }
    const Fd out = open_file(file("queue"), O_WRONLY | O_NONBLOCK);
    for (int sent = 0; sent < 200;) {
        ASSERT_NE(poll_one(out.get(), POLLOUT, kSoon) & POLLOUT, 0) << sent;
        if (write_to(out.get(), "m") == 1) ++sent;
    }
    for (auto& waiter : waiters) EXPECT_EQ(waiter.wait(), 0);
}

TEST_F(Poll, SaysWritableExactlyWhileAWriteWouldNotBlock) {
    for (const char* name : kWritable) {
        const Fd out = open_file(file(name), O_WRONLY | O_NONBLOCK);
        EXPECT_EQ(poll_one(out.get(), POLLOUT, 0) & POLLOUT, POLLOUT) << name;
        fill();
        const bool reserve = std::string_view(name) == "priority/critical";
        EXPECT_EQ(poll_one(out.get(), POLLOUT, 0) & POLLOUT, reserve ? POLLOUT : 0) << name;
        EXPECT_EQ(drain("jobs").size(), 8U);
        EXPECT_EQ(poll_one(out.get(), POLLOUT, kSoon) & POLLOUT, POLLOUT) << name;
    }
}

TEST_F(Poll, WakesAWriterWhenThereIsRoomAgain) {
    fill();
    const std::string path = file("queue");
    Child writer([path](std::string&) {
        const Fd out = open_file(path, O_WRONLY | O_NONBLOCK);
        if ((poll_one(out.get(), POLLOUT, kSoon) & POLLOUT) == 0) return 1;
        return write_to(out.get(), "room") == 4 ? 0 : 2;
    });
    ASSERT_FALSE(writer.wait(50ms).has_value());
    ASSERT_GE(drain("jobs").size(), 8U);  // at the low mark the writer goes on
    EXPECT_EQ(writer.wait(), 0);
}

TEST_F(Poll, SaysHungUpOnceTheChannelIsGone) {
    std::vector<std::pair<std::string, Fd>> files;
    for (const char* name : kReadable) {
        files.emplace_back(name, open_file(file(name), O_RDONLY | O_NONBLOCK));
    }
    for (const char* name : kWritable) {
        files.emplace_back(name, open_file(file(name), O_WRONLY | O_NONBLOCK));
    }
    files.emplace_back("notify", open_file(file("notify"), O_RDONLY | O_NONBLOCK));
    for (auto& [name, fd] : files) ASSERT_TRUE(fd) << name;
    for (auto& [name, fd] : files) EXPECT_EQ(poll_one(fd.get(), POLLIN, 0) & POLLHUP, 0) << name;
    ASSERT_EQ(rmdir(at("jobs").c_str()), 0);
    for (auto& [name, fd] : files) {
        EXPECT_TRUE(wait_until([&] { return (poll_one(fd.get(), POLLIN, 0) & POLLHUP) != 0; }))
            << name;
    }
}

TEST_F(Poll, WakesAWaiterWhenTheChannelGoes) {
    const std::string path = file("stream");
    Child waiter([path](std::string&) {
        const Fd in = open_file(path, O_RDONLY);
        const short events = poll_one(in.get(), POLLIN, kSoon);
        return (events & POLLHUP) != 0 && read_from(in.get()).result == 0 ? 0 : 1;
    });
    ASSERT_FALSE(waiter.wait(50ms).has_value());
    ASSERT_EQ(rmdir(at("jobs").c_str()), 0);
    EXPECT_EQ(waiter.wait(), 0);
}

TEST_F(Poll, EpollReportsSeveralFilesAndFiresAgain) {
    make_channel("other");
    const Fd epoll(epoll_create1(EPOLL_CLOEXEC));
    const Fd jobs = open_file(file("queue"), O_RDONLY | O_NONBLOCK);
    const Fd other = open_file(at("other/stream"), O_RDONLY | O_NONBLOCK);
    for (const int fd : {jobs.get(), other.get()}) {
        epoll_event wanted{};
        wanted.events = EPOLLIN;
        wanted.data.fd = fd;
        ASSERT_EQ(epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd, &wanted), 0) << strerror(errno);
    }
    for (int round = 0; round < 20; ++round) {
        const int ready = round % 2 == 0 ? jobs.get() : other.get();
        epoll_event seen[4];
        ASSERT_EQ(epoll_wait(epoll.get(), seen, 4, 0), 0) << round;
        ASSERT_EQ(send(round % 2 == 0 ? "jobs" : "other", "m"), 0);
        ASSERT_EQ(epoll_wait(epoll.get(), seen, 4, kSoon), 1) << round;
        ASSERT_EQ(seen[0].data.fd, ready);
        ASSERT_EQ(read_from(ready).data, "m");
    }
}

TEST_F(Poll, EdgeTriggeredEpollSeesEveryBurst) {
    const Fd epoll(epoll_create1(EPOLL_CLOEXEC));
    const Fd in = open_file(file("queue"), O_RDONLY | O_NONBLOCK);
    epoll_event wanted{};
    wanted.events = EPOLLIN | EPOLLET;
    ASSERT_EQ(epoll_ctl(epoll.get(), EPOLL_CTL_ADD, in.get(), &wanted), 0);
    for (int round = 0; round < 20; ++round) {
        for (int i = 0; i <= round % 4; ++i) ASSERT_EQ(send("jobs", "m"), 0);
        epoll_event seen{};
        ASSERT_EQ(epoll_wait(epoll.get(), &seen, 1, kSoon), 1) << round;
        int taken = 0;
        while (read_from(in.get()).result > 0) ++taken;
        // The edge may have been seen before the burst ended; what is left comes with the next.
        ASSERT_EQ(taken, round % 4 + 1);
    }
}

TEST_F(Poll, SaysReadableWhenAnEventWaitsInNotify) {
    const Fd in = open_file(file("notify"), O_RDONLY | O_NONBLOCK);
    EXPECT_EQ(poll_one(in.get(), POLLIN, 0), 0);
    ASSERT_EQ(send("jobs", "x"), 0);
    EXPECT_EQ(poll_one(in.get(), POLLIN, kSoon) & POLLIN, POLLIN);
    EXPECT_GT(read_from(in.get()).result, 0);
    EXPECT_TRUE(becomes(in.get(), POLLIN, 0));
}

}  // namespace
}  // namespace ipcfs::test
