// Disks that are full or fail, consumers that stop, subscribers that never read.
#include <cstdlib>
#include <fcntl.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "child.hpp"
#include "daemon_fixture.hpp"
#include "frames.hpp"

namespace ipcfs::test {
namespace {

class Faults : public MountedTest {
protected:
    // All that the channel has, without waiting.
    std::vector<std::string> read_all(const std::string& path) {
        std::vector<std::string> all;
        const Fd in = open_file(path, O_RDONLY | O_NONBLOCK);
        for (;;) {
            auto got = read_patiently(in.get());
            if (got.result <= 0) return all;
            all.push_back(std::move(got.data));
        }
    }
};

TEST_F(Faults, AFullDiskIsTheWritersErrorAndReadingMakesRoom) {
    if (geteuid() != 0) GTEST_SKIP() << "needs root, for a small file system";
    daemon().stop();
    const std::string state = daemon().directory() + "/state";
    ASSERT_EQ(mount("tmpfs", state.c_str(), "tmpfs", 0, "size=1M"), 0) << strerror(errno);
    daemon().start();
    ASSERT_TRUE(daemon().running()) << daemon().log();
    make_channel("jobs", "durable sync\ncapacity 100000\n");
    const auto text = [](int n) {
        std::string one = std::to_string(n);
        return one + std::string(2000 - one.size(), '.');
    };
    int written = 0, error = 0;
    {
        const Fd out = open_file(at("jobs/queue"), O_WRONLY);
        for (; written < 2000 && error == 0; ++written) {
            const long done = write_to(out.get(), text(written));
            if (done < 0) error = static_cast<int>(-done);
        }
        --written;
    }
    EXPECT_EQ(error, ENOSPC);
    ASSERT_GT(written, 20) << "of 1 MiB";
    EXPECT_EQ(depth("jobs"), written) << "nothing was dropped, nothing half queued";
    // Half of it goes; from then on a quarter goes and fits again, over and over.
    int next_read = 0, next_write = written;
    for (int round = 0; round < 5; ++round) {
        const Fd in = open_file(at("jobs/queue"), O_RDONLY | O_NONBLOCK);
        for (int i = 0; i < (round == 0 ? written / 2 : written / 4); ++i) {
            ASSERT_EQ(read_patiently(in.get()).data, text(next_read)) << "round " << round;
            ++next_read;
        }
        int again = 0;
        const Fd out = open_file(at("jobs/queue"), O_WRONLY);
        // The cleaner may have to make the room first.
        ASSERT_TRUE(wait_until([&] {
            while (again < written / 4 && write_to(out.get(), text(next_write)) > 0) {
                ++again;
                ++next_write;
            }
            return again == written / 4;
        })) << "round "
            << round << ": " << again << " of " << written / 4;
    }
    ASSERT_TRUE(wait_for_kept(next_write - next_read));
    daemon().kill();
    daemon().start();
    ASSERT_TRUE(daemon().running()) << daemon().log();
    const auto all = read_all(at("jobs/queue"));
    ASSERT_EQ(all.size(), static_cast<std::size_t>(next_write - next_read));
    for (const std::string& each : all) EXPECT_EQ(each, text(next_read++));
    daemon().stop();
    umount2(state.c_str(), MNT_DETACH);
    daemon().start();
}

TEST_F(Faults, AFailedFlushLatchesTheChannelAndTheOthersGoOn) {
    if (geteuid() != 0) GTEST_SKIP() << "needs root, to trace the daemon";
    make_channel("bad", "durable sync\n");
    make_channel("good", "durable sync\n");
    make_channel("plain");
    ASSERT_EQ(send("bad", "before"), 0);
    const std::string said = daemon().directory() + "/strace";
    Child tracer([&](std::string&) {
        const Fd out(open(said.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
        dup2(out.get(), STDERR_FILENO);
        const std::string pid = value_of(slurp(at("kern/ipc/version")), "pid");
        execlp("strace", "strace", "-f", "-e", "trace=fdatasync,msync", "-e",
               "inject=fdatasync,msync:error=EIO:when=1", "-p", pid.c_str(), nullptr);
        return 127;
    });
    ASSERT_TRUE(wait_until([&] { return slurp(said).find("attached") != std::string::npos; }))
        << slurp(said);
    EXPECT_EQ(send("bad", "lost"), EIO) << slurp(said);
    EXPECT_EQ(status("bad", "state"), "degraded");
    EXPECT_EQ(send("bad", "refused"), EIO) << "latched";
    EXPECT_EQ(send("good", "fine"), 0);
    EXPECT_EQ(send("plain", "fine"), 0);
    tracer.signal(SIGTERM);
    tracer.wait();
    EXPECT_EQ(drain("bad"), std::vector<std::string>{"before"}) << "reading goes on";
    ASSERT_EQ(ctl("bad", "resume\n"), 0);
    EXPECT_EQ(send("bad", "after"), 0);
    ASSERT_TRUE(wait_for_kept(2));
    daemon().kill();
    daemon().start();
    EXPECT_EQ(drain("bad"), std::vector<std::string>{"after"});
    EXPECT_EQ(drain("good"), std::vector<std::string>{"fine"});
}

TEST_F(Faults, AStoppedConsumersLeaseGoesToAnother) {
    make_channel("jobs", "lease 1500ms\n");  // what is done within it is, on a slow machine too
    for (const char* each : {"one", "two"}) ASSERT_EQ(send("jobs", each), 0);
    Child stopped([this](std::string& text) {
        const Fd lease = open_file(at("jobs/lease"), O_RDWR);
        text = read_patiently(lease.get()).data;
        raise(SIGSTOP);
        // Much later: it is told that it does not have it any more.
        return write_to(lease.get(), "ack") == -ESTALE ? 0 : 1;
    });
    ASSERT_TRUE(wait_until([&] { return status("jobs", "leased") == "1"; }));
    const Fd other = open_file(at("jobs/lease"), O_RDWR);
    EXPECT_EQ(read_patiently(other.get()).data, "two");
    ASSERT_EQ(write_to(other.get(), "ack"), 3);
    EXPECT_EQ(read_patiently(other.get()).data, "one") << "as soon as its time is over";
    ASSERT_EQ(write_to(other.get(), "ack"), 3);
    stopped.signal(SIGCONT);
    EXPECT_EQ(stopped.wait(), 0);
    EXPECT_EQ(stopped.text(), "one");
    EXPECT_EQ(status("jobs", "dead"), "0");
}

TEST_F(Faults, OfAThousandSubscribersOneNeverReadsAndCostsNobodyElse) {
    constexpr int kSubscribers = 1000, kMessages = 300;
    const rlimit files{4096, 4096};
    setrlimit(RLIMIT_NOFILE, &files);
    make_channel("news", "type topic\ncapacity 100\n");
    ASSERT_EQ(mkdir(at("news/subs/asleep").c_str(), 0777), 0);
    std::vector<Fd> streams;
    for (int i = 1; i < kSubscribers; ++i) {
        streams.push_back(open_file(at("news/stream"), O_RDONLY | O_NONBLOCK));
        ASSERT_TRUE(streams.back()) << i << ": " << strerror(errno);
    }
    const Fd out = open_file(at("news/queue"), O_WRONLY);
    for (int sent = 0; sent < kMessages;) {
        for (int i = 0; i < 50; ++i, ++sent) {
            ASSERT_GT(write_to(out.get(), std::to_string(sent)), 0)
                << "the publisher waits for nobody";
        }
        for (std::size_t s = 0; s < streams.size(); ++s) {
            for (int i = sent - 50; i < sent; ++i) {
                ASSERT_EQ(read_from(streams[s].get(), 64).data, std::to_string(i)) << s;
            }
        }
    }
    // What it missed is counted, not passed over in silence.
    const long kept = depth("news/subs/asleep");
    EXPECT_GT(kept, 0);
    EXPECT_LE(kept, 100);
    const auto rows = parse_table(slurp(at("news/subs/asleep/stats")));
    ASSERT_FALSE(rows.empty());
    EXPECT_EQ(strtol(rows[0].at("dropped_oldest").c_str(), nullptr, 10), kMessages - kept);
}

}  // namespace
}  // namespace ipcfs::test
