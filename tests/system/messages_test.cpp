// One write is one message, and what reads make of it: sizes, buffers, seeks, ends of file, order.
#include <cstdlib>
#include <fcntl.h>
#include <memory>
#include <sys/stat.h>
#include <unistd.h>

#include "child.hpp"
#include "daemon_fixture.hpp"

namespace ipcfs::test {
namespace {

// `size` bytes at `offset` from a page boundary, so that the kernel's page count varies.
class Buffer {
public:
    Buffer(std::size_t size, std::size_t offset)
        : pages_(static_cast<char*>(aligned_alloc(4096, (size + offset + 8191) / 4096 * 4096)),
                 &free),
          text_(pages_.get() + offset, size) {
        for (std::size_t i = 0; i < size; ++i) {
            pages_.get()[offset + i] = static_cast<char>('a' + (i + size) % 23);
        }
    }
    std::string_view text() const { return text_; }

private:
    std::unique_ptr<char, decltype(&free)> pages_;
    std::string_view text_;
};

class Messages : public MountedTest {
protected:
    void SetUp() override {
        MountedTest::SetUp();
        if (HasFatalFailure()) return;
        make_channel("jobs");
    }
    Fd reader(const char* file = "queue", int flags = O_RDONLY) {
        return open_file(at(std::string("jobs/") + file), flags);
    }
};

TEST_F(Messages, ArriveWholeAtAnySizeAndAlignment) {
    const Fd out = open_file(at("jobs/queue"), O_WRONLY);
    const Fd in = reader();
    for (const std::size_t size :
         {1UL, 2UL, 4095UL, 4096UL, 4097UL, 65536UL, kLargestMessage - 1, kLargestMessage}) {
        for (const std::size_t offset : {0UL, 1UL, 7UL, 4095UL}) {
            const Buffer message(size, offset);
            ASSERT_EQ(write_to(out.get(), message.text()), static_cast<long>(size)) << offset;
            const auto got = read_from(in.get());
            ASSERT_EQ(got.result, static_cast<long>(size)) << offset;
            ASSERT_TRUE(got.data == message.text()) << size << " at " << offset;
        }
    }
    EXPECT_EQ(read_from(in.get()).result, 0);
}

TEST_F(Messages, AboveTheLimitAreRefusedAndQueueNothing) {
    const Fd out = open_file(at("jobs/queue"), O_WRONLY);
    for (const std::size_t size :
         {kLargestMessage + 1, 1UL << 20, (1UL << 20) + 1, (2UL << 20) + 5}) {
        for (const std::size_t offset : {0UL, 1UL, 4095UL}) {
            const Buffer message(size, offset);
            EXPECT_EQ(write_to(out.get(), message.text()), -EMSGSIZE) << size << " at " << offset;
            EXPECT_EQ(depth("jobs"), 0);
        }
    }
    EXPECT_EQ(write_to(out.get(), "still works"), 11);
    EXPECT_EQ(drain("jobs"), std::vector<std::string>{"still works"});
}

TEST_F(Messages, ObeyTheChannelsOwnLimit) {
    ASSERT_EQ(ctl("jobs", "max-message 100\n"), 0);
    EXPECT_EQ(send("jobs", std::string(101, 'x')), EMSGSIZE);
    EXPECT_EQ(send("jobs", std::string(100, 'x')), 0);
    EXPECT_EQ(depth("jobs"), 1);
}

TEST_F(Messages, OfLengthZeroQueueNothing) {
    const Fd out = open_file(at("jobs/queue"), O_WRONLY);
    EXPECT_EQ(write_to(out.get(), ""), 0);
    EXPECT_EQ(depth("jobs"), 0);
}

TEST_F(Messages, LongerThanTheBufferGoOnInTheNextRead) {
    ASSERT_EQ(send("jobs", "abcdefghij"), 0);
    ASSERT_EQ(send("jobs", "second"), 0);
    const Fd first = reader();
    const Fd other = reader();
    EXPECT_EQ(read_from(first.get(), 4).data, "abcd");
    EXPECT_EQ(read_from(other.get(), 3).data, "sec") << "the rest belongs to the first open file";
    EXPECT_EQ(read_from(first.get(), 4).data, "efgh");
    EXPECT_EQ(read_from(other.get(), 100).data, "ond");
    EXPECT_EQ(read_from(first.get(), 4).data, "ij");
    EXPECT_EQ(read_from(first.get(), 4).result, 0);
    EXPECT_EQ(read_from(other.get(), 4).result, 0);
}

TEST_F(Messages, AreReadAgainAfterSeekingBack) {
    ASSERT_EQ(send("jobs", "hello\nworld\n"), 0);
    ASSERT_EQ(send("jobs", "next"), 0);
    const Fd in = reader();
    ASSERT_EQ(read_from(in.get(), 100).data, "hello\nworld\n");
    ASSERT_NE(lseek(in.get(), -6, SEEK_CUR), -1) << strerror(errno);
    EXPECT_EQ(read_from(in.get(), 100).data, "world\n");
    ASSERT_NE(lseek(in.get(), -12, SEEK_CUR), -1);
    EXPECT_EQ(read_from(in.get(), 2).data, "he");
    EXPECT_EQ(read_from(in.get(), 100).data, "llo\nworld\n");
    EXPECT_EQ(read_from(in.get(), 100).data, "next");
    EXPECT_EQ(read_from(in.get(), 100).result, 0);
}

TEST_F(Messages, EndTheFileWhenNothingIsQueuedAndComeAgainLater) {
    const Fd in = reader();
    EXPECT_EQ(read_from(in.get()).result, 0);
    ASSERT_EQ(send("jobs", "one"), 0);
    EXPECT_EQ(read_from(in.get()).data, "one");
    EXPECT_EQ(read_from(in.get()).result, 0);
    ASSERT_EQ(send("jobs", "two"), 0);
    EXPECT_EQ(read_from(in.get()).data, "two");
}

TEST_F(Messages, ThroughNextComeOneAnOpen) {
    ASSERT_EQ(send("jobs", "one"), 0);
    ASSERT_EQ(send("jobs", "two"), 0);
    const Fd in = reader("next");
    EXPECT_EQ(read_from(in.get(), 2).data, "on");
    EXPECT_EQ(read_from(in.get()).data, "e");
    EXPECT_EQ(read_from(in.get()).result, 0);
    EXPECT_EQ(read_from(in.get()).result, 0);
    EXPECT_EQ(depth("jobs"), 1);
}

TEST_F(Messages, AreNotWaitedForByANonblockingReader) {
    EXPECT_EQ(read_from(reader("next", O_RDONLY | O_NONBLOCK).get()).result, -EAGAIN);
    EXPECT_EQ(read_from(reader("stream", O_RDONLY | O_NONBLOCK).get()).result, -EAGAIN);
    EXPECT_EQ(read_from(reader("queue", O_RDONLY | O_NONBLOCK).get()).result, 0);
    ASSERT_EQ(send("jobs", "here"), 0);
    EXPECT_EQ(read_from(reader("next", O_RDONLY | O_NONBLOCK).get()).data, "here");
}

TEST_F(Messages, GoBothWaysThroughOneReadWriteDescriptor) {
    const Fd both = open_file(at("jobs/queue"), O_RDWR);
    ASSERT_TRUE(both) << strerror(errno);
    EXPECT_EQ(write_to(both.get(), "to myself"), 9);
    EXPECT_EQ(read_from(both.get()).data, "to myself");
    EXPECT_EQ(read_from(both.get()).result, 0);
}

TEST_F(Messages, ComeByPriorityThenByAge) {
    for (const char* file : {"low", "normal", "high", "critical"}) {
        const std::string path = std::string("priority/") + file;
        ASSERT_EQ(send("jobs", std::string(file) + "1", path), 0);
        ASSERT_EQ(send("jobs", std::string(file) + "2", path), 0);
    }
    ASSERT_EQ(send("jobs", "plain"), 0);
    const std::vector<std::string> expected = {
        "critical1", "critical2", "high1", "high2", "normal1", "normal2", "plain", "low1", "low2"};
    EXPECT_EQ(drain("jobs"), expected);
}

TEST_F(Messages, OfLowPriorityAreNotStarvedOnAFairSchedule) {
    ASSERT_EQ(ctl("jobs", "schedule fair\n"), 0);
    ASSERT_EQ(send("jobs", "patient", "priority/low"), 0);
    const Fd out = open_file(at("jobs/priority/high"), O_WRONLY);
    for (int i = 0; i < 700; ++i) ASSERT_EQ(write_to(out.get(), "urgent"), 6);
    const auto all = drain("jobs");
    ASSERT_EQ(all.size(), 701U);
    EXPECT_NE(all.back(), "patient");
}

TEST_F(Messages, LeaveSizeZeroAndTheTimesOfArrivalAndDelivery) {
    struct stat before {};
    struct stat now {};
    ASSERT_EQ(stat(at("jobs/queue").c_str(), &before), 0);
    const auto later = [](const timespec& a, const timespec& b) {
        return a.tv_sec != b.tv_sec ? a.tv_sec > b.tv_sec : a.tv_nsec > b.tv_nsec;
    };
    ASSERT_EQ(send("jobs", "x"), 0);
    EXPECT_TRUE(wait_until([&] {
        stat(at("jobs/queue").c_str(), &now);
        return later(now.st_mtim, before.st_mtim);
    })) << "mtime is the last arrival";
    EXPECT_EQ(now.st_size, 0);
    ASSERT_EQ(drain("jobs").size(), 1U);
    EXPECT_TRUE(wait_until([&] {
        stat(at("jobs/queue").c_str(), &now);
        return later(now.st_atim, before.st_atim);
    })) << "atime is the last delivery";
    EXPECT_EQ(now.st_size, 0);
}

TEST_F(Messages, ListedByPeekStayQueued) {
    ASSERT_EQ(send("jobs", "first"), 0);
    ASSERT_EQ(send("jobs", "second", "priority/high"), 0);
    for (int look = 0; look < 2; ++look) EXPECT_EQ(parse_table(slurp(at("jobs/peek"))).size(), 2U);
    EXPECT_EQ(depth("jobs"), 2);
    EXPECT_EQ(drain("jobs").size(), 2U);
    EXPECT_TRUE(parse_table(slurp(at("jobs/peek"))).empty());
}

TEST_F(Messages, OpenedTheWrongWayAreRefused) {
    EXPECT_EQ(open_error(at("jobs/next"), O_WRONLY), EACCES);
    EXPECT_EQ(open_error(at("jobs/stream"), O_WRONLY), EACCES);
    EXPECT_EQ(open_error(at("jobs/priority/high"), O_RDONLY), EACCES);
    EXPECT_EQ(open_error(at("jobs/peek"), O_WRONLY), EACCES);
    EXPECT_EQ(open_error(at("jobs/put"), O_RDONLY), EACCES);
    EXPECT_EQ(open_error(at("jobs/put"), O_RDWR), EACCES);
    EXPECT_EQ(open_error(at("jobs/call"), O_RDWR), ENOENT) << "shown before it exists";
}

}  // namespace
}  // namespace ipcfs::test
