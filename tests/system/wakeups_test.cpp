// No wake-up is lost: a consumer that waits for inotify and then drains `queue` ends with every
// message, whatever file they came by and however the bursts fell.
#include <algorithm>
#include <fcntl.h>
#include <poll.h>
#include <random>
#include <sys/inotify.h>
#include <unistd.h>

#include "child.hpp"
#include "daemon_fixture.hpp"
#include "frames.hpp"

namespace ipcfs::test {
namespace {

constexpr int kLost = 10000;  // ms without an event, with messages outstanding

class Wakeups : public MountedTest {
protected:
    void SetUp() override {
        MountedTest::SetUp();
        if (HasFatalFailure()) return;
        make_channel("jobs");
        seed_ = std::random_device{}();
        std::cout << "seed " << seed_ << "\n";
    }
    // Sends `count` messages "name:i" in random bursts through random files.
    Child producer(const std::string& name, int count, unsigned seed,
                   const std::vector<std::string>& files) {
        const std::string directory = at("jobs/");
        return Child([=](std::string&) {
            std::mt19937 random(seed);
            for (int i = 0; i < count;) {
                const auto& file = files[random() % files.size()];
                const Fd out = open_file(directory + file, O_WRONLY);
                if (!out) return errno;
                for (int burst = 1 + static_cast<int>(random() % 16); burst > 0 && i < count;) {
                    std::string message = name + ":" + std::to_string(i);
                    if (file.starts_with("framed")) message = frame(message);
                    const long done = write_to(out.get(), message);
                    if (done == -EAGAIN) {
                        poll_one(out.get(), POLLOUT, 1000);
                    } else if (done < 0) {
                        return static_cast<int>(-done);
                    } else {
                        --burst;
                        ++i;
                    }
                }
                // Sometimes long enough for the consumer to fall asleep.
                if (random() % 8 == 0) usleep(static_cast<useconds_t>(random() % 3000));
            }
            return 0;
        });
    }
    // Waits for inotify, drains, until it has `expected` messages. Leaves them, one a line.
    Child consumer(std::size_t expected, const std::string& watched) {
        const std::string queue = at("jobs/queue");
        const std::string watch = at(watched);
        return Child([=](std::string& text) {
            const Fd events(inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
            if (inotify_add_watch(events.get(), watch.c_str(), IN_MODIFY) < 0) return 2;
            const Fd in = open_file(queue, O_RDONLY);
            for (std::size_t count = 0;;) {
                for (;;) {
                    const auto got = read_patiently(in.get());
                    if (got.result < 0) return 3;
                    if (got.result == 0) break;
                    text += got.data + "\n";
                    ++count;
                }
                if (count >= expected) return 0;
                if (poll_one(events.get(), POLLIN, kLost) == 0) return 1;
                while (read_from(events.get(), 65536).result > 0) {
                }
            }
        });
    }
    void run(const std::vector<std::string>& files, const std::string& watched) {
        constexpr int kProducers = 3;
        constexpr int kEach = 1500;
        auto taking = consumer(kProducers * kEach, watched);
        std::vector<Child> sending;
        for (unsigned i = 0; i < kProducers; ++i) {
            sending.push_back(producer(std::to_string(i), kEach, seed_ + i, files));
        }
        for (auto& one : sending) ASSERT_EQ(one.wait(60s), 0) << "seed " << seed_;
        const auto code = taking.wait(30s);
        ASSERT_EQ(code, 0) << (code == 1 ? "a wake-up was lost, " : "failed, ") << "seed " << seed_
                           << ", still queued: " << depth("jobs");
        const auto lines = std::count(taking.text().begin(), taking.text().end(), '\n');
        EXPECT_EQ(lines, kProducers * kEach);
    }
    unsigned seed_ = 0;
};

TEST_F(Wakeups, AreNotLostForPlainWrites) {
    run({"queue"}, "jobs/queue");
}

TEST_F(Wakeups, AreNotLostForFilesThatRingTheDoorbell) {
    run({"framed/queue", "priority/critical", "priority/high", "priority/normal", "priority/low"},
        "jobs/queue");
}

TEST_F(Wakeups, AreNotLostForAnyMixtureWatchedFromTheDirectory) {
    run({"queue", "framed/queue", "priority/critical", "priority/low"}, "jobs");
}

TEST_F(Wakeups, AreNotLostAtALowRateOfNotifications) {
    ASSERT_EQ(ctl("jobs", "notify-rate 20/s\n"), 0);
    run({"framed/queue", "priority/low"}, "jobs/queue");
}

// One at a time, each only after the last was taken: nothing may hide behind a later arrival.
TEST_F(Wakeups, ComeForEverySingleMessage) {
    const Fd events(inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
    ASSERT_GE(inotify_add_watch(events.get(), at("jobs/queue").c_str(), IN_MODIFY), 0);
    const char* const files[] = {"queue", "priority/high", "framed/queue", "priority/low"};
    for (int i = 0; i < 200; ++i) {
        const std::string file = files[i % 4];
        const std::string text = std::to_string(i);
        ASSERT_EQ(send("jobs", file.starts_with("framed") ? frame(text) : text, file), 0);
        ASSERT_NE(poll_one(events.get(), POLLIN, kLost), 0) << i << " through " << file;
        ASSERT_TRUE(wait_until([&] {
            while (read_from(events.get(), 65536).result > 0) {
            }
            return drain("jobs") == std::vector<std::string>{text};
        }));
    }
}

TEST_F(Wakeups, ComeWhenAPauseEnds) {
    ASSERT_EQ(send("jobs", "held"), 0);
    for (const char* pause : {"pause\n", "pause 50ms\n"}) {
        const Fd events(inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
        ASSERT_GE(inotify_add_watch(events.get(), at("jobs/queue").c_str(), IN_MODIFY), 0);
        ASSERT_EQ(ctl("jobs", pause), 0);
        if (std::string(pause) == "pause\n") {
            ASSERT_EQ(ctl("jobs", "resume\n"), 0);
        }
        EXPECT_NE(poll_one(events.get(), POLLIN, kLost), 0) << pause;
    }
    EXPECT_EQ(drain("jobs"), std::vector<std::string>{"held"});
}

}  // namespace
}  // namespace ipcfs::test
