// Which process a thread belongs to.
#include <chrono>
#include <semaphore>
#include <thread>
#include <unistd.h>

#include <gtest/gtest.h>

#include <base/process.hpp>

namespace ipcfs {
namespace {

TEST(ThreadGroup, IsTheProcessOfAThread) {
    EXPECT_EQ(thread_group(getpid()), getpid());
    EXPECT_EQ(recent_thread_group(getpid()), getpid());
    std::thread([] {
        ASSERT_NE(gettid(), getpid());
        EXPECT_EQ(thread_group(gettid()), getpid());
        EXPECT_EQ(recent_thread_group(gettid()), getpid());
        EXPECT_EQ(recent_thread_group(gettid()), getpid());
    }).join();
}

TEST(ThreadGroup, OfNobodyIsNone) {
    for (const pid_t tid : {0, -1}) {
        EXPECT_EQ(thread_group(tid), 0);
        EXPECT_EQ(recent_thread_group(tid), 0);
    }
    pid_t gone = 0;
    std::thread([&gone] { gone = gettid(); }).join();
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (thread_group(gone) != 0 && std::chrono::steady_clock::now() < end) usleep(1000);
    EXPECT_EQ(thread_group(gone), 0);
    EXPECT_EQ(recent_thread_group(gone), 0);
}

TEST(ThreadGroup, OfAThreadThatIsGoneIsForgotten) {
    std::binary_semaphore known(0), asked(0);
    pid_t tid = 0;
    std::thread other([&] {
        tid = gettid();
        known.release();
        asked.acquire();
    });
    known.acquire();
    EXPECT_EQ(recent_thread_group(tid), getpid());
    asked.release();
    other.join();
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (recent_thread_group(tid) != 0 && std::chrono::steady_clock::now() < end) usleep(1000);
    EXPECT_EQ(recent_thread_group(tid), 0);
}

}  // namespace
}  // namespace ipcfs
