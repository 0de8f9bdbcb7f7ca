// The event loop and the timer pump on a real io_context; the log's file target.
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include <gtest/gtest.h>

#include <base/timer_queue.hpp>
#include <daemon/log.hpp>
#include <daemon/loop.hpp>

namespace ipcfs::daemon {
namespace {

struct OnTime final : Timed {
    explicit OnTime(std::function<void()> work) : work_(std::move(work)) {}
    void on_time(Nanos) noexcept override { work_(); }
    std::function<void()> work_;
};

// A wait that should end but does not is the test runner's time-out, or this.
void give_up_after(Loop& loop, Nanos limit) {
    loop.after(limit, [&loop] {
        ADD_FAILURE() << "nothing happened";
        loop.stop();
    });
}

TEST(TimerPump, RunsWhatAnyThreadArms) {
    SystemClock clock;
    Loop loop;
    TimerQueue queue;
    TimerPump pump(loop, clock);
    queue.set_kick(pump.kick());
    pump.attach(queue);
    give_up_after(loop, 20 * kSecond);
    const auto loop_thread = std::this_thread::get_id();
    auto timed = std::make_shared<OnTime>([&] {
        EXPECT_EQ(std::this_thread::get_id(), loop_thread);
        loop.stop();
    });
    std::thread other([&] { queue.arm(timed, clock.monotonic() + kMillisecond); });
    loop.run();
    other.join();
}

TEST(TimerPump, LetsAnEarlierDeadlineOvertakeTheOneItWaitsFor) {
    SystemClock clock;
    Loop loop;
    TimerQueue queue;
    TimerPump pump(loop, clock);
    queue.set_kick(pump.kick());
    pump.attach(queue);
    give_up_after(loop, 20 * kSecond);
    auto late = std::make_shared<OnTime>([] { ADD_FAILURE() << "an hour too early"; });
    auto soon = std::make_shared<OnTime>([&] { loop.stop(); });
    queue.arm(late, clock.monotonic() + 3600 * kSecond);
    loop.post([&] { queue.arm(soon, clock.monotonic() + kMillisecond); });
    loop.run();
}

TEST(TimerPump, CoalescesKicks) {
    SystemClock clock;
    Loop loop;
    TimerPump pump(loop, clock);
    int looks = 0;
    pump.attach(
        [&]() -> std::optional<Nanos> {
            ++looks;
            return std::nullopt;
        },
        [](Nanos) {});
    auto kick = pump.kick();
    for (int i = 0; i < 1000; ++i) kick();
    loop.post([&] { loop.stop(); });
    loop.run();
    EXPECT_EQ(looks, 1);
}

TEST(TimerPump, LooksAgainAfterAKickThatComesWhileItLooks) {
    SystemClock clock;
    Loop loop;
    TimerPump pump(loop, clock);
    give_up_after(loop, 20 * kSecond);
    int looks = 0;
    auto kick = pump.kick();
    pump.attach(
        [&]() -> std::optional<Nanos> {
            if (++looks == 1) {
                kick();
            } else {
                loop.stop();
            }
            return std::nullopt;
        },
        [](Nanos) {});
    loop.run();
    EXPECT_EQ(looks, 2);
}

TEST(TimerPump, KickedAfterItsEndDoesNothing) {
    SystemClock clock;
    Loop loop;
    std::function<void()> kick;
    {
        TimerPump pump(loop, clock);
        kick = pump.kick();
        pump.attach(
            []() -> std::optional<Nanos> {
                ADD_FAILURE() << "the queue is gone";
                return std::nullopt;
            },
            [](Nanos) {});
    }
    kick();
    loop.post([&] { loop.stop(); });
    loop.run();
}

TEST(Loop, TellsSignalsOnTheLoopOneAfterAnother) {
    Loop loop;
    std::vector<int> seen;
    give_up_after(loop, 20 * kSecond);
    loop.on_signal([&](int signal) {
        seen.push_back(signal);
        if (signal == SIGHUP) {
            raise(SIGTERM);
        } else {
            loop.stop();
        }
    });
    loop.post([] { raise(SIGHUP); });
    loop.run();
    EXPECT_EQ(seen, (std::vector<int>{SIGHUP, SIGTERM}));
}

class Log : public testing::Test {
protected:
    Log() {
        char name[] = "/tmp/ipcfs-test-XXXXXX";
        directory_ = mkdtemp(name);
        config_.target = LogTarget::kFile;
        config_.file = directory_ + "/log";
    }
    ~Log() override { std::filesystem::remove_all(directory_); }

    static std::string read(const std::string& path) {
        std::ifstream file(path);
        std::ostringstream text;
        text << file.rdbuf();
        return text.str();
    }

    std::string directory_;
    LogConfig config_;
};

TEST_F(Log, KeepsALineFromAClientOnOneLine) {
    auto log = DaemonLogger::open(config_, {});
    ASSERT_TRUE(log);
    (*log)->info("name ", std::string("a\nb\t\x1b"), ' ', 42, ' ', -1, ' ', true);
    const std::string text = read(config_.file);
    EXPECT_TRUE(text.ends_with(" info: name a\\nb\\t\\x1b 42 -1 yes\n")) << text;
}

TEST_F(Log, ChangesLevelAndTargetWhileItRuns) {
    auto log = DaemonLogger::open(config_, {});
    ASSERT_TRUE(log);
    (*log)->debug("one");
    LogConfig next = config_;
    next.level = Level::kDebug;
    ASSERT_TRUE((*log)->reconfigure(next, {}));
    (*log)->debug("two");
    next.file = directory_ + "/other";
    ASSERT_TRUE((*log)->reconfigure(next, {}));
    (*log)->debug("three");
    const std::string first = read(config_.file);
    EXPECT_EQ(first.find("one"), std::string::npos);
    EXPECT_NE(first.find("two"), std::string::npos);
    EXPECT_EQ(first.find("three"), std::string::npos);
    EXPECT_NE(read(next.file).find("three"), std::string::npos);
}

TEST_F(Log, KeepsItsTargetWhenTheNewOneCannotBeOpened) {
    auto log = DaemonLogger::open(config_, {});
    ASSERT_TRUE(log);
    LogConfig bad = config_;
    bad.level = Level::kTrace;
    bad.file = config_.file + "/not-a-directory";
    EXPECT_FALSE((*log)->reconfigure(bad, {}));
    EXPECT_EQ((*log)->level(), Level::kInfo);
    (*log)->info("still here");
    EXPECT_NE(read(config_.file).find("still here"), std::string::npos);
}

TEST_F(Log, RotatesAndKeepsSoManyOldFiles) {
    config_.max_size = 4096;
    config_.max_files = 2;
    auto log = DaemonLogger::open(config_, {});
    ASSERT_TRUE(log);
    for (int i = 0; i < 400; ++i) (*log)->info(std::string(100, 'x'));
    int files = 0;
    for (const auto& entry : std::filesystem::directory_iterator(directory_)) {
        EXPECT_LE(entry.file_size(), 4096u) << entry.path();
        ++files;
    }
    EXPECT_EQ(files, 3);
}

TEST_F(Log, GoesToTheStateDirectoryOrTheJournalFromTheBackground) {
    LogConfig automatic;
    LogConfig resolved = resolve_log(automatic, {.background = true, .state = "/s"});
    if (journal_available()) {
        EXPECT_EQ(resolved.target, LogTarget::kJournald);
    } else {
        EXPECT_EQ(resolved.target, LogTarget::kFile);
        EXPECT_EQ(resolved.file, "/s/ipcfsd.log");
    }
    automatic.file = "/named";
    EXPECT_EQ(resolve_log(automatic, {}).target, LogTarget::kFile);
}

}  // namespace
}  // namespace ipcfs::daemon
