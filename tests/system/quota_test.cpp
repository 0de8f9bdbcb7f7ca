// One user at its limit gets EDQUOT and costs nobody else anything; what is freed can be used
// again.
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "child.hpp"
#include "daemon_fixture.hpp"

namespace ipcfs::test {
namespace {

class Quota : public MountedTest {
protected:
    Daemon::Options options() const override {
        return {{"--set", "limits.messages=50", "--set", "limits.bytes=100K", "--set",
                 "limits.channels=5", "--set", "limits.open-files=20", "--set", "limits.waiters=4"},
                {},
                false};
    }
    void SetUp() override {
        MountedTest::SetUp();
        if (HasFatalFailure()) return;
        make_channel("jobs");
    }
    // Writes until it is refused. Leaves how many went in; its code is the errno of the refusal.
    Child exhaust(uid_t uid, std::size_t size, int attempts) {
        const std::string path = at("jobs/queue");
        return Child(Child::As{uid, -1}, [=](std::string& text) {
            const Fd out = open_file(path, O_WRONLY | O_NONBLOCK);
            if (!out) return errno;
            for (int i = 0; i < attempts; ++i) {
                const long done = write_to(out.get(), std::string(size, 'x'));
                text = std::to_string(done < 0 ? i : i + 1);
                if (done < 0) return static_cast<int>(-done);
            }
            return 0;
        });
    }
    long used(uid_t uid, const std::string& resource) {
        for (auto& row : parse_table(slurp(at("kern/ipc/stats/resources")))) {
            if (row["scope"] == "user" && row["id"] == std::to_string(uid) &&
                row["resource"] == resource) {
                return number(row["used"]);
            }
        }
        return 0;
    }
};

TEST_F(Quota, OfMessagesStopsOneUserOnly) {
    auto greedy = exhaust(kAlice, 10, 1000);
    EXPECT_EQ(greedy.wait(), EDQUOT);
    EXPECT_EQ(greedy.text(), "50");
    EXPECT_EQ(used(kAlice, "messages"), 50);
    auto modest = exhaust(kBob, 10, 20);
    EXPECT_EQ(modest.wait(), 0);
    EXPECT_EQ(send("jobs", "root has no limit"), 0);
    EXPECT_EQ(drain("jobs").size(), 71U);
    EXPECT_TRUE(wait_until([&] { return used(kAlice, "messages") == 0; }));
    auto again = exhaust(kAlice, 10, 30);
    EXPECT_EQ(again.wait(), 0) << "what was read is free again";
}

TEST_F(Quota, OfBytesStopsOneUserOnly) {
    auto greedy = exhaust(kAlice, 10 << 10, 40);
    EXPECT_EQ(greedy.wait(), EDQUOT);
    EXPECT_LE(MountedTest::number(greedy.text()), 10);
    EXPECT_GE(MountedTest::number(greedy.text()), 9) << "a message may be charged a little more";
    auto modest = exhaust(kBob, 10 << 10, 5);
    EXPECT_EQ(modest.wait(), 0);
}

TEST_F(Quota, OfChannelsIsGivenBackByRmdir) {
    const std::string root = daemon().mount();
    Child user(Child::As{kAlice, -1}, [root](std::string& text) {
        int made = 0;
        while (mkdir((root + "/mine" + std::to_string(made)).c_str(), 0755) == 0) ++made;
        if (errno != EDQUOT) return errno;
        text = std::to_string(made);
        if (rmdir((root + "/mine0").c_str()) != 0) return 1;
        return mkdir((root + "/again").c_str(), 0755) == 0 ? 0 : 2;
    });
    EXPECT_EQ(user.wait(), 0);
    EXPECT_EQ(user.text(), "5");
}

TEST_F(Quota, OfOpenFilesIsGivenBackByClose) {
    const std::string path = at("jobs/queue");
    Child user(Child::As{kAlice, -1}, [path](std::string& text) {
        std::vector<Fd> files;
        for (;;) {
            Fd one = open_file(path, O_RDONLY);
            if (!one) break;
            files.push_back(std::move(one));
            if (files.size() > 100) return 1;
        }
        if (errno != EDQUOT) return errno;
        text = std::to_string(files.size());
        files.clear();
        // A close is told to the daemon when the kernel likes.
        return wait_until([&] { return open_error(path, O_RDONLY) == 0; }) ? 0 : 2;
    });
    EXPECT_EQ(user.wait(), 0);
    EXPECT_EQ(user.text(), "20");
}

TEST_F(Quota, OfWaitersStopsOneUserOnly) {
    const std::string path = at("jobs/next");
    const auto wait_there = [&](uid_t uid) {
        return Child(Child::As{uid, -1}, [path](std::string&) {
            const Fd in = open_file(path, O_RDONLY);
            if (!in) return errno;
            const long result = read_from(in.get()).result;
            return result < 0 ? static_cast<int>(-result) : 0;
        });
    };
    std::vector<Child> greedy;
    for (int i = 0; i < 4; ++i) greedy.push_back(wait_there(kAlice));
    ASSERT_TRUE(wait_for_waiting("jobs", 4));
    auto one_too_many = wait_there(kAlice);
    EXPECT_EQ(one_too_many.wait(), EDQUOT);
    auto modest = wait_there(kBob);
    ASSERT_TRUE(wait_for_waiting("jobs", 5));
    greedy[0].signal(SIGKILL);
    EXPECT_EQ(greedy[0].wait(), 1000 + SIGKILL);
    ASSERT_TRUE(wait_for_waiting("jobs", 4));
    auto replacement = wait_there(kAlice);
    ASSERT_TRUE(wait_for_waiting("jobs", 5)) << "a waiter that died still counts";
}

TEST_F(Quota, IsRefundedByEveryWayAMessageGoes) {
    for (const char* way : {"purge\n", "ttl 1ms\n"}) {
        auto greedy = exhaust(kAlice, 10, 1000);
        ASSERT_EQ(greedy.wait(), EDQUOT);
        ASSERT_EQ(ctl("jobs", way), 0);
        if (std::string(way).starts_with("ttl")) {
            ASSERT_EQ(ctl("jobs", "purge\n"), 0);
            ASSERT_EQ(ctl("jobs", "ttl 0\n"), 0);
        }
        EXPECT_TRUE(wait_until([&] { return used(kAlice, "messages") == 0; })) << way;
        EXPECT_TRUE(wait_until([&] { return used(kAlice, "bytes") == 0; })) << way;
    }
}

}  // namespace
}  // namespace ipcfs::test
