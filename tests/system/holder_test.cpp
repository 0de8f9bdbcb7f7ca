// The daemon is killed and another goes on with the mount: durable channels as if nothing had been, all
// else with a clear error, and nobody hangs.
#include <fcntl.h>
#include <fstream>
#include <poll.h>
#include <signal.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "child.hpp"
#include "daemon_fixture.hpp"

namespace ipcfs::test {
namespace {

class Holder : public MountedTest {
protected:
    void SetUp() override {
        MountedTest::SetUp();
        if (version("survives") != "yes") GTEST_SKIP() << version("why-not-survives");
    }
    pid_t ward() { return daemon().server(); }
    void make_durable(std::string_view name, std::string_view more = {}) {
        make_channel(name, "durable async\n" + std::string(more));
    }
};

Fd open_again(const std::string& path, int flags) {
    for (;;) {
        Fd file = open_file(path, flags);
        if (file || !is_undone(-errno)) return file;
    }
}

// One blocking read; its text, or the errno as the exit code.
Child reading(const std::string& path, int flags = O_RDONLY) {
    return Child([=](std::string& text) {
        const Fd in = open_file(path, flags);
        if (!in) return errno;
        const auto got = read_patiently(in.get());
        if (got.result < 0) return static_cast<int>(-got.result);
        text = got.data;
        return 0;
    });
}

TEST_F(Holder, LetsAReaderOfADurableChannelWaitAcrossADaemonsDeath) {
    make_durable("jobs");
    Child reader = reading(at("jobs/next"));
    ASSERT_TRUE(wait_for_waiting("jobs", 1));
    replace_server();
    ASSERT_TRUE(wait_for_waiting("jobs", 1)) << daemon().log();
    ASSERT_EQ(send("jobs", "after"), 0);
    ASSERT_EQ(reader.wait(), 0) << daemon().log();
    EXPECT_EQ(reader.text(), "after");
}

TEST_F(Holder, KeepsTheOrderOfWaitingReaders) {
    make_durable("jobs");
    std::vector<Child> readers;
    for (int i = 0; i < 12; ++i) {
        readers.push_back(Child(Child::As{.cpu = 0}, [path = at("jobs/next")](std::string& text) {
            const Fd in = open_file(path, O_RDONLY);
            const auto got = read_patiently(in.get());
            text = got.data;
            return got.result < 0 ? static_cast<int>(-got.result) : 0;
        }));
        ASSERT_TRUE(wait_for_waiting("jobs", i + 1));
    }
    replace_server();
    ASSERT_TRUE(wait_for_waiting("jobs", 12)) << daemon().log();
    for (int i = 0; i < 12; ++i) {
        ASSERT_EQ(send("jobs", std::to_string(i)), 0);
        ASSERT_EQ(readers[static_cast<std::size_t>(i)].wait(), 0) << i;
        EXPECT_EQ(readers[static_cast<std::size_t>(i)].text(), std::to_string(i));
    }
}

TEST_F(Holder, EndsAReaderThatIsInterruptedWhileNoDaemonIsThere) {
    make_durable("jobs");
    Child reader([path = at("jobs/next")](std::string&) {
        const Fd in = open_file(path, O_RDONLY);
        return static_cast<int>(-read_from(in.get()).result);
    });
    Child killed = reading(at("jobs/next"));
    ASSERT_TRUE(wait_for_waiting("jobs", 2));
    const pid_t pid = ward();
    kill(pid, SIGKILL);
    reader.signal(SIGUSR1);
    killed.signal(SIGKILL);
    EXPECT_EQ(reader.wait(), EINTR) << daemon().log();
    EXPECT_EQ(killed.wait(), 1000 + SIGKILL);
    ASSERT_TRUE(wait_for_waiting("jobs", 0));
    ASSERT_EQ(send("jobs", "x"), 0);
    EXPECT_EQ(drain("jobs"), std::vector<std::string>{"x"}) << "the dead reader took it";
}

TEST_F(Holder, LetsAWriterWaitForRoomAcrossADaemonsDeath) {
    make_durable("jobs", "capacity 5\nhigh-watermark 80\ntimeout 1h");
    for (int i = 0; i < 4; ++i) ASSERT_EQ(send("jobs", std::to_string(i)), 0);
    Child writer([path = at("jobs/queue")](std::string&) {
        const Fd out = open_file(path, O_RDWR);  // no gate
        return out ? static_cast<int>(std::min(0L, write_to(out.get(), "late"))) : errno;
    });
    ASSERT_TRUE(wait_for_waiting("jobs", 1));
    replace_server();
    ASSERT_TRUE(wait_for_waiting("jobs", 1)) << daemon().log();
    EXPECT_EQ(depth("jobs"), 4);
    std::vector<std::string> all;
    ASSERT_TRUE(wait_until([&] {
        for (auto& each : drain("jobs")) all.push_back(each);
        return all.size() == 5;
    })) << all.size();
    EXPECT_EQ(all, (std::vector<std::string>{"0", "1", "2", "3", "late"}));
    EXPECT_EQ(writer.wait(), 0);
}

TEST_F(Holder, WakesWhoPollsAndGoesOnWithTheOpenFile) {
    make_durable("jobs");
    const Fd in = open_file(at("jobs/stream"), O_RDONLY | O_NONBLOCK);
    ASSERT_TRUE(in);
    Child poller([fd = in.get()](std::string&) {
        for (;;) {
            const short ready = poll_one(fd, POLLIN, 20'000);
            if (ready == 0) return ETIMEDOUT;
            if (ready & (POLLERR | POLLHUP)) return EIO;
            if (ready & POLLIN) return 0;
        }
    });
    ASSERT_EQ(poll_one(in.get(), POLLIN, 50), 0);
    replace_server();
    ASSERT_EQ(send("jobs", "x"), 0);
    EXPECT_EQ(poller.wait(), 0);
    EXPECT_EQ(read_from(in.get()).data, "x");
    EXPECT_EQ(read_from(in.get()).result, -EAGAIN);
}

TEST_F(Holder, AnswersFilesOfVanishedChannelsWithEstale) {
    make_channel("gone");
    make_durable("jobs");
    Child reader = reading(at("gone/next"));
    ASSERT_TRUE(wait_for_waiting("gone", 1));
    const Fd out = open_file(at("gone/queue"), O_WRONLY);
    const Fd in = open_file(at("gone/queue"), O_RDONLY);
    const Fd ctl_file = open_file(at("gone/ctl"), O_RDWR);
    struct stat about {};
    ASSERT_EQ(stat(at("gone").c_str(), &about), 0);
    replace_server();
    EXPECT_EQ(reader.wait(), ESTALE) << daemon().log();
    EXPECT_EQ(write_to(out.get(), "y"), -ESTALE);
    EXPECT_EQ(read_from(in.get()).result, -ESTALE);
    EXPECT_EQ(write_to(ctl_file.get(), "capacity 5"), -ESTALE);
    EXPECT_NE(poll_one(in.get(), POLLIN, 1000) & (POLLERR | POLLHUP), 0);
    // The tree shows what there is, and names mean new things.
    EXPECT_EQ(stat(at("gone").c_str(), &about), -1) << "the kernel still keeps the name";
    EXPECT_EQ(errno, ENOENT);
    std::string listed;
    EXPECT_EQ(shell("ls " + at(""), &listed), 0);
    EXPECT_EQ(listed, "jobs\nkern\n");
    make_channel("gone");
    make_channel("new");
    EXPECT_EQ(send("gone", "again"), 0);
    EXPECT_EQ(drain("gone"), std::vector<std::string>{"again"});
    EXPECT_EQ(write_to(out.get(), "y"), -ESTALE) << "an old file is not the new channel's";
    EXPECT_EQ(depth("gone"), 0);
}

TEST_F(Holder, SaysThatTheRestOfAMessageIsLostOnce) {
    make_durable("jobs");
    const Fd in = open_file(at("jobs/stream"), O_RDONLY | O_NONBLOCK);
    ASSERT_EQ(send("jobs", "0123456789"), 0);
    ASSERT_EQ(read_from(in.get(), 4).data, "0123");
    replace_server();
    EXPECT_EQ(read_from(in.get(), 4).result, -EIO);
    drain("jobs");  // it may come again, flagged
    ASSERT_EQ(send("jobs", "next"), 0);
    EXPECT_EQ(read_from(in.get()).data, "next");
}

TEST_F(Holder, DoesNotGiveASecondMessageToAnOpenNext) {
    make_durable("jobs");
    const Fd in = open_file(at("jobs/next"), O_RDONLY);
    ASSERT_EQ(send("jobs", "one"), 0);
    ASSERT_EQ(read_from(in.get()).data, "one");
    replace_server();
    ASSERT_EQ(send("jobs", "two"), 0);
    EXPECT_EQ(read_from(in.get()).result, 0);
}

TEST_F(Holder, FailsThePutWhoseContentIsLost) {
    make_durable("jobs");
    Events half, go;
    Child writer([&](std::string&) {
        Fd out = open_file(at("jobs/put"), O_WRONLY);
        if (!out) return errno;
        if (write_to(out.get(), "first half") < 0 || !half.tell() || !go.await()) return 1000;
        (void)write_to(out.get(), "second half");
        return close(out.release()) == 0 ? 0 : errno;
    });
    ASSERT_TRUE(half.await());
    replace_server();
    ASSERT_TRUE(go.tell());
    EXPECT_EQ(writer.wait(), ESTALE);
    EXPECT_EQ(depth("jobs"), 0);
}

TEST_F(Holder, KeepsInotifyWatches) {
    make_durable("jobs");
    const Fd notify(inotify_init1(IN_NONBLOCK));
    ASSERT_GE(inotify_add_watch(notify.get(), at("jobs/queue").c_str(), IN_MODIFY), 0);
    replace_server();
    ASSERT_EQ(send("jobs", "x", "priority/high"), 0);
    EXPECT_EQ(poll_one(notify.get(), POLLIN, 20'000), POLLIN);
}

TEST_F(Holder, GoesOnAfterTwentyKillsUnderTraffic) {
    make_durable("jobs");
    std::vector<Child> clients;
    for (int i = 0; i < 4; ++i) {
        clients.push_back(Child(Child::As{.cpu = i % 2}, [path = at("jobs/")](std::string& text) {
            text = "write";
            const Fd out = open_again(path + "queue", O_RDWR);
            if (!out) return errno;
            for (;;) {
                const long done = write_to(out.get(), "x");
                if (done == -EPIPE) return 0;  // the channel was removed: the end
                if (done < 0 && !is_undone(done)) return static_cast<int>(-done);
            }
        }));
        clients.push_back(Child(Child::As{.cpu = i % 2}, [path = at("jobs/")](std::string& text) {
            text = "read";
            const Fd in = open_again(path + "stream", O_RDONLY);
            if (!in) return errno;
            for (;;) {
                const auto got = read_from(in.get());
                if (got.result == 0) return 0;
                if (got.result < 0 && !is_undone(got.result)) return static_cast<int>(-got.result);
            }
        }));
    }
    for (int round = 0; round < 20; ++round) {
        replace_server();
        if (HasFatalFailure()) return;
        ASSERT_TRUE(wait_until([&] {
            const auto rows = parse_table(slurp(at("jobs/stats")));
            return !rows.empty() && std::stol(rows[0].at("delivered")) > 20;
        })) << "round "
            << round << '\n'
            << daemon().log();
    }
    ASSERT_TRUE(wait_until([&] {
        ctl("jobs", "purge");
        return rmdir(at("jobs").c_str()) == 0;
    }));
    for (auto& client : clients) EXPECT_EQ(client.wait(), 0) << client.text();
}

TEST_F(Holder, SurvivesAKillDuringStartUp) {
    make_durable("jobs");
    Child reader = reading(at("jobs/next"));
    ASSERT_TRUE(wait_for_waiting("jobs", 1));
    const pid_t holder = daemon().pid();
    const std::string children =
        "/proc/" + std::to_string(holder) + "/task/" + std::to_string(holder) + "/children";
    for (int round = 0; round < 4; ++round) {
        const pid_t before = ward();
        kill(before, SIGKILL);
        // The next one, as early as it is seen.
        ASSERT_TRUE(wait_until([&] {
            const long next = number(slurp(children));
            if (next <= 0 || next == before) return false;
            kill(static_cast<pid_t>(next), SIGKILL);
            return true;
        }));
        ASSERT_TRUE(wait_until([&] { return !version("life").empty(); })) << daemon().log();
    }
    ASSERT_EQ(send("jobs", "x"), 0);
    EXPECT_EQ(reader.wait(), 0);
}

TEST_F(Holder, EndsWithEverythingOnSigterm) {
    make_durable("jobs");
    replace_server();
    const pid_t pid = ward();
    const std::string lock = slurp("/proc/" + std::to_string(pid) + "/status");
    ASSERT_FALSE(lock.empty());
    const int status = daemon().stop();
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status << daemon().log();
    EXPECT_NE(kill(pid, 0), 0) << "the daemon is still there";
    EXPECT_EQ(slurp("/proc/self/mountinfo").find(daemon().mount()), std::string::npos);
    daemon().start();
    ASSERT_TRUE(daemon().running());
}

TEST_F(Holder, EndsWhenTheTreeIsUnmounted) {
    const pid_t pid = ward();
    ASSERT_EQ(umount2(daemon().mount().c_str(), 0), 0) << strerror(errno);
    EXPECT_TRUE(wait_until([&] { return !daemon().running(); }, 10s));
    EXPECT_NE(kill(pid, 0), 0);
    daemon().start();
    ASSERT_TRUE(daemon().running());
}

TEST_F(Holder, TakesTheDaemonAlong) {
    const pid_t pid = ward();
    daemon().kill();
    EXPECT_TRUE(wait_until([&] { return kill(pid, 0) != 0; }, 10s));
    daemon().start();  // clears the dead mount
    ASSERT_TRUE(daemon().running());
}

TEST_F(Holder, GivesUpWhenNoDaemonGetsThere) {
    make_durable("jobs");
    Child reader = reading(at("jobs/next"));
    ASSERT_TRUE(wait_for_waiting("jobs", 1));
    // The control socket cannot be made: no start succeeds.
    const std::string control = slurp("/proc/self/mountinfo").empty() ? "" : at("kern/ipc/control");
    char target[4096];
    const ssize_t size = readlink(control.c_str(), target, sizeof target);
    ASSERT_GT(size, 0);
    const std::string socket(target, static_cast<std::size_t>(size));
    const pid_t pid = ward();
    ASSERT_EQ(kill(pid, SIGSTOP), 0);
    unlink(socket.c_str());
    ASSERT_EQ(mkdir(socket.c_str(), 0700), 0) << socket;
    std::ofstream(socket + "/in-the-way") << "";
    kill(pid, SIGKILL);
    EXPECT_TRUE(wait_until([&] { return !daemon().running(); })) << daemon().log();
    EXPECT_NE(daemon().log().find("giving up"), std::string::npos) << daemon().log();
    EXPECT_EQ(reader.wait(), ECONNABORTED);
    EXPECT_EQ(slurp("/proc/self/mountinfo").find(daemon().mount()), std::string::npos);
    unlink((socket + "/in-the-way").c_str());
    rmdir(socket.c_str());
    daemon().start();
    ASSERT_TRUE(daemon().running());
}

TEST(HolderOff, DiesWithTheDaemonWithoutIt) {
    Daemon::Options options;
    options.arguments = {"--set", "fuse.survive=false"};
    Daemon daemon(options);
    ASSERT_TRUE(daemon.running()) << daemon.log();
    const auto version = slurp(daemon.mount() + "/kern/ipc/version");
    EXPECT_EQ(value_of(version, "survives"), "no");
    EXPECT_EQ(value_of(version, "pid"), std::to_string(daemon.pid()));
}

}  // namespace
}  // namespace ipcfs::test
