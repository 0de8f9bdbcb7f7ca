// Messages on trial: `lease` and framed/lease, settled by a word, by time, by the end of their holder.
#include <algorithm>
#include <fcntl.h>
#include <poll.h>
#include <set>
#include <signal.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "child.hpp"
#include "daemon_fixture.hpp"
#include "frames.hpp"
#include <ipcfs/ipcfs.hpp>

namespace ipcfs::test {
namespace {

class Leases : public MountedTest {
protected:
    void SetUp() override {
        MountedTest::SetUp();
        if (HasFatalFailure()) return;
        make_channel("jobs", "lease 1h\nmax-deliveries 1000\n");
    }
    Fd lease(int flags = O_RDWR) { return open_file(at("jobs/lease"), flags); }
    long leased() { return number(status("jobs", "leased")); }
    bool wait_for_depth(long count) {
        return wait_until([&] { return depth("jobs") == count; });
    }
    std::string peeked(const std::string& column, const std::string& file = "jobs/peek") {
        const auto rows = parse_table(slurp(at(file)));
        return rows.empty() ? "" : rows.front().at(column);
    }
};

TEST_F(Leases, OfOneProcessAreSettledEachByItself) {
    for (const char* job : {"a", "b", "c"}) ASSERT_EQ(send("jobs", job), 0);
    const Fd one = lease(), two = lease(), three = lease();
    EXPECT_EQ(read_from(one.get()).data, "a");
    EXPECT_EQ(read_from(two.get()).data, "b");
    EXPECT_EQ(read_from(three.get()).data, "c");
    EXPECT_EQ(leased(), 3);
    EXPECT_EQ(write_to(two.get(), "ack"), 3);
    EXPECT_EQ(write_to(three.get(), "nack\n"), 5);
    EXPECT_EQ(write_to(one.get(), "dead"), 4);
    EXPECT_EQ(drain("jobs"), std::vector<std::string>{"c"});
    EXPECT_EQ(slurp(at("jobs/dead/queue")), "a");
}

TEST_F(Leases, AMessageThatIsLongerThanTheBufferComesInPieces) {
    ASSERT_EQ(send("jobs", "abcdefgh"), 0);
    ASSERT_EQ(send("jobs", "next"), 0);
    const Fd file = lease();
    EXPECT_EQ(read_from(file.get(), 3).data, "abc");
    EXPECT_EQ(write_to(file.get(), "extend 10s"), 10);
    EXPECT_EQ(read_from(file.get(), 3).data, "def");
    ASSERT_NE(lseek(file.get(), -2, SEEK_CUR), -1);
    EXPECT_EQ(read_from(file.get()).data, "efgh");
    ASSERT_EQ(lseek(file.get(), 0, SEEK_SET), 0);
    EXPECT_EQ(read_from(file.get()).data, "abcdefgh");
    EXPECT_EQ(read_from(file.get()).result, 0);
    EXPECT_EQ(read_from(file.get()).result, 0);
    EXPECT_EQ(write_to(file.get(), "ack"), 3);
    EXPECT_EQ(read_from(file.get()).data, "next");
}

TEST_F(Leases, NothingIsMixedWithAMessageWhoseLeaseRanOut) {
    ASSERT_EQ(ctl("jobs", "lease 20ms\n"), 0);
    ASSERT_EQ(send("jobs", "first"), 0);
    const Fd file = lease();
    EXPECT_EQ(read_from(file.get(), 2).data, "fi");
    ASSERT_TRUE(wait_for_depth(1));
    ASSERT_EQ(drain("jobs"), std::vector<std::string>{"first"});
    ASSERT_EQ(send("jobs", "second"), 0);
    EXPECT_EQ(read_from(file.get()).data, "rst");
    EXPECT_EQ(read_from(file.get()).result, 0);
    EXPECT_EQ(write_to(file.get(), "ack"), -ESTALE);
    EXPECT_EQ(read_from(file.get()).data, "second");
}

TEST_F(Leases, AReaderThatIsInterruptedOrKilledTookNothing) {
    for (const int number : {SIGUSR1, SIGKILL}) {
        const std::string path = at("jobs/lease");
        Child reader([path](std::string&) {
            const Fd file = open_file(path, O_RDWR);
            return static_cast<int>(-read_from(file.get()).result);
        });
        ASSERT_TRUE(wait_for_waiting("jobs", 1));
        reader.signal(number);
        EXPECT_EQ(reader.wait(), number == SIGKILL ? 1000 + SIGKILL : EINTR);
    }
    ASSERT_TRUE(wait_for_waiting("jobs", 0));
    ASSERT_EQ(send("jobs", "kept"), 0);
    EXPECT_EQ(peeked("deliveries"), "0");
    EXPECT_EQ(peeked("redelivered"), "0");
}

TEST_F(Leases, WaitingOnesAreServedInTheirOrderWithOtherReaders) {
    const std::string next = at("jobs/next"), path = at("jobs/lease");
    std::vector<Child> readers;
    for (int i = 0; i < 4; ++i) {
        readers.emplace_back([next, path, i](std::string& text) {
            const Fd file = i % 2 ? open_file(next, O_RDONLY) : open_file(path, O_RDWR);
            text = read_patiently(file.get()).data;
            if (i % 2 == 0) (void)write_to(file.get(), "ack");
            return 0;
        });
        ASSERT_TRUE(wait_for_waiting("jobs", i + 1));
    }
    for (int i = 0; i < 4; ++i) ASSERT_EQ(send("jobs", std::to_string(i)), 0);
    for (int i = 0; i < 4; ++i) {
        EXPECT_EQ(readers[static_cast<std::size_t>(i)].wait(), 0);
        EXPECT_EQ(readers[static_cast<std::size_t>(i)].text(), std::to_string(i));
    }
    EXPECT_EQ(leased(), 0);
}

// For a child's child, which must not hold what its parent's end is known by.
void close_all_but(const std::vector<int>& kept) {
    for (int fd = 3; fd < 256; ++fd) {
        if (std::find(kept.begin(), kept.end(), fd) == kept.end()) close(fd);
    }
}

struct Pipe {
    Fd from, to;
    Pipe() {
        int ends[2];
        if (pipe2(ends, O_CLOEXEC) == 0) from.reset(ends[0]), to.reset(ends[1]);
    }
    bool tell() const { return write(to.get(), "x", 1) == 1; }
    bool await() const {
        char byte = 0;
        return read(from.get(), &byte, 1) == 1;
    }
};

TEST_F(Leases, EndWithTheProcessThatOpenedThemThoughAChildHasThemOpen) {
    ASSERT_EQ(send("jobs", "job"), 0);
    const std::string path = at("jobs/lease");
    const Pipe over;
    Child holder([path, &over](std::string&) {
        const Fd file = open_file(path, O_RDWR);
        if (read_from(file.get()).data != "job") return 1;
        if (fork() == 0) {
            close_all_but({file.get(), over.from.get()});
            (void)over.await();
            _exit(0);
        }
        return 0;
    });
    EXPECT_EQ(holder.wait(), 0);
    EXPECT_TRUE(wait_for_depth(1));
    EXPECT_EQ(leased(), 0);
    EXPECT_TRUE(over.tell());
}

TEST_F(Leases, OfAFileWhoseOpenerIsGoneLastUntilTheirTime) {
    // As a daemon does it: open, fork, and the parent goes.
    const std::string path = at("jobs/lease");
    const Pipe there, back;
    Child opener([path, &there, &back](std::string&) {
        const Fd file = open_file(path, O_RDWR);
        if (fork() != 0) return 0;
        close_all_but({file.get(), there.from.get(), back.to.get()});
        if (!there.await()) _exit(1);
        const bool got = read_from(file.get()).data == "job";
        if (!got || !back.tell() || !there.await()) _exit(1);
        _exit(write_to(file.get(), "ack") == 3 && back.tell() ? 0 : 1);
    });
    EXPECT_EQ(opener.wait(), 0);
    ASSERT_EQ(send("jobs", "job"), 0);
    ASSERT_TRUE(there.tell());
    ASSERT_TRUE(back.await());
    EXPECT_FALSE(wait_until([&] { return leased() == 0; }, 300ms)) << "swept";
    ASSERT_TRUE(there.tell());
    ASSERT_TRUE(back.await());
    EXPECT_EQ(leased(), 0);
    EXPECT_EQ(depth("jobs"), 0);
}

TEST_F(Leases, PollTellsWhetherAMessageCanBeRead) {
    const Fd file = lease(O_RDWR | O_NONBLOCK);
    EXPECT_EQ(read_from(file.get()).result, -EAGAIN);
    EXPECT_EQ(poll_one(file.get(), POLLIN, 0), 0);
    const Fd epoll(epoll_create1(EPOLL_CLOEXEC));
    epoll_event event{};
    event.events = EPOLLIN;
    ASSERT_EQ(epoll_ctl(epoll.get(), EPOLL_CTL_ADD, file.get(), &event), 0);
    ASSERT_EQ(send("jobs", "one"), 0);
    ASSERT_EQ(send("jobs", "two"), 0);
    const int patience = static_cast<int>(kPatience.count());
    ASSERT_EQ(epoll_wait(epoll.get(), &event, 1, patience), 1);
    EXPECT_EQ(read_from(file.get(), 2).data, "on");
    EXPECT_EQ(poll_one(file.get(), POLLIN, 0), POLLIN) << "the rest of it";
    EXPECT_EQ(read_from(file.get()).data, "e");
    EXPECT_EQ(poll_one(file.get(), POLLIN | POLLOUT, 0), POLLOUT) << "held, and read to its end";
    EXPECT_EQ(epoll_wait(epoll.get(), &event, 1, 0), 0);
    // The word makes the next one readable, and wakes who waits for that.
    EXPECT_EQ(write_to(file.get(), "ack"), 3);
    ASSERT_EQ(epoll_wait(epoll.get(), &event, 1, patience), 1);
    EXPECT_EQ(read_from(file.get()).data, "two");
}

TEST_F(Leases, FramesTellWhatCameBack) {
    ASSERT_EQ(send("jobs", "job"), 0);
    const auto take = [&] {
        const Fd file = open_file(at("jobs/framed/lease"), O_RDWR);
        return parse_frame(read_from(file.get()).data);
    };
    const Received first = take();
    ASSERT_EQ(first.error, FrameError::kNone);
    EXPECT_EQ(first.body, "job");
    EXPECT_FALSE(first.header.flags & kFrameRedelivered);
    ASSERT_TRUE(wait_for_depth(1));
    const Received again = take();
    EXPECT_TRUE(again.header.flags & kFrameRedelivered);
    EXPECT_EQ(again.header.sequence, first.header.sequence);
    ASSERT_TRUE(wait_for_depth(1));
    EXPECT_EQ(peeked("deliveries"), "2");
}

TEST_F(Leases, ALargePayloadStaysUntilItIsAcknowledged) {
    const std::string film(1 << 20, 'x');
    {
        const Fd put = open_file(at("jobs/put"), O_WRONLY);
        ASSERT_EQ(write_to(put.get(), film), static_cast<long>(film.size()));
    }
    Fd file = lease();
    std::string got;
    while (true) {
        const Read part = read_from(file.get(), 300000);
        ASSERT_GE(part.result, 0);
        if (part.result == 0) break;
        got += part.data;
    }
    EXPECT_EQ(got, film);
    const auto payloads = [&] {
        std::string names;
        shell("ls " + at("jobs/payload"), &names);
        return std::count(names.begin(), names.end(), '\n');
    };
    EXPECT_EQ(payloads(), 1);
    file.reset();
    ASSERT_TRUE(wait_for_depth(1));
    EXPECT_EQ(payloads(), 1);
    file = lease();
    EXPECT_GT(read_from(file.get()).result, 0);
    EXPECT_EQ(write_to(file.get(), "ack"), 3);
    EXPECT_EQ(payloads(), 0);
}

TEST_F(Leases, ARegionThatIsHandedOffIsNotLeased) {
    auto channel = Channel::open(at("jobs"));
    ASSERT_TRUE(channel);
    auto region = Region::create(*channel, "frames", 4096);
    ASSERT_TRUE(region);
    ASSERT_TRUE(std::move(*region).hand_off(*channel));
    for (const char* path : {"jobs/lease", "jobs/framed/lease"}) {
        const Fd file = open_file(at(path), O_RDWR);
        EXPECT_EQ(read_from(file.get()).result, -EOPNOTSUPP);
    }
    EXPECT_EQ(depth("jobs"), 1);
    EXPECT_EQ(peeked("deliveries"), "0");
    EXPECT_NE(status("jobs", "last-error").find("hand-off"), std::string::npos);
    ASSERT_EQ(ctl("jobs", "purge\n"), 0);
}

TEST_F(Leases, PurgeEndsThemAndRmdirWaitsForThem) {
    ASSERT_EQ(send("jobs", "job"), 0);
    const Fd file = lease();
    EXPECT_EQ(read_from(file.get()).data, "job");
    EXPECT_EQ(rmdir(at("jobs").c_str()), -1);
    EXPECT_EQ(errno, ENOTEMPTY);
    ASSERT_EQ(ctl("jobs", "purge\n"), 0);
    EXPECT_EQ(write_to(file.get(), "ack"), -ESTALE);
    EXPECT_EQ(rmdir(at("jobs").c_str()), 0);
    EXPECT_EQ(read_from(file.get()).result, 0);
    EXPECT_EQ(write_to(file.get(), "ack"), -ESTALE);
}

// At every moment each message is somewhere: whatever becomes of the holders, all are acknowledged once
// the last one has done its work.
TEST_F(Leases, EveryMessageIsDoneThoughHoldersAreKilled) {
    constexpr int kMessages = 300, kWorkers = 4;
    // No worker is so fast that a message becomes a dead letter.
    ASSERT_EQ(ctl("jobs", "max-deliveries 1000000\n"), 0);
    for (int i = 0; i < kMessages; ++i) ASSERT_EQ(send("jobs", std::to_string(i)), 0);
    const std::string path = at("jobs/lease");
    const auto work = [path](std::string& text) {
        const Fd file = open_file(path, O_RDWR | O_NONBLOCK);
        while (true) {
            const Read job = read_from(file.get());
            if (job.result <= 0) return 0;
            if (write_to(file.get(), "ack") != 3) return 1;
            text += job.data + "\n";
        }
    };
    for (int round = 0; round < 20; ++round) {
        std::vector<Child> workers;
        for (int i = 0; i < kWorkers; ++i) {
            workers.emplace_back([path](std::string&) {
                const Fd file = open_file(path, O_RDWR);
                for (;;) {
                    if (read_from(file.get()).result <= 0) return 1;
                    (void)write_to(file.get(), "nack");
                }
            });
        }
        ASSERT_TRUE(wait_until([&] { return leased() > 0; }));
        for (Child& worker : workers) worker.signal(SIGKILL);
        for (Child& worker : workers) EXPECT_EQ(worker.wait(), 1000 + SIGKILL);
        ASSERT_TRUE(wait_until([&] { return leased() == 0; }));
        ASSERT_EQ(depth("jobs"), kMessages);
    }
    std::vector<Child> workers;
    for (int i = 0; i < kWorkers; ++i) workers.emplace_back(work);
    std::multiset<std::string> done;
    for (Child& worker : workers) {
        EXPECT_EQ(worker.wait(), 0);
        for (std::size_t from = 0; from < worker.text().size();) {
            const std::size_t end = worker.text().find('\n', from);
            done.insert(worker.text().substr(from, end - from));
            from = end + 1;
        }
    }
    EXPECT_EQ(done.size(), static_cast<std::size_t>(kMessages));
    for (int i = 0; i < kMessages; ++i) EXPECT_EQ(done.count(std::to_string(i)), 1U) << i;
}

}  // namespace
}  // namespace ipcfs::test
