// Type stream: bytes without boundaries, as through a FIFO.
#include <fcntl.h>
#include <numeric>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include "child.hpp"
#include "daemon_fixture.hpp"

namespace ipcfs::test {
namespace {

class Streams : public MountedTest {
protected:
    void SetUp() override {
        MountedTest::SetUp();
        if (HasFatalFailure()) return;
        make_channel("pipe", "type stream\n");
    }
    Fd open(int flags) { return open_file(at("pipe/stream"), flags); }
    Child reading() {
        const std::string path = at("pipe/stream");
        return Child([path](std::string& text) {
            const Fd in = open_file(path, O_RDONLY);
            while (true) {
                const Read part = read_patiently(in.get());
                if (part.result <= 0) return static_cast<int>(-part.result);
                text += part.data;
            }
        });
    }
};

TEST_F(Streams, HaveNoBoundaries) {
    const Fd out = open(O_WRONLY);
    for (const char* each : {"ab", "cde", "f"}) ASSERT_GT(write_to(out.get(), each), 0);
    const Fd in = open(O_RDONLY);
    EXPECT_EQ(read_from(in.get(), 4).data, "abcd");
    EXPECT_EQ(read_from(in.get(), 1).data, "e");
    ASSERT_EQ(write_to(out.get(), "ghi"), 3);
    EXPECT_EQ(read_from(in.get()).data, "fghi");
    EXPECT_EQ(lseek(in.get(), 0, SEEK_SET), -1);
    EXPECT_EQ(errno, ESPIPE);
}

TEST_F(Streams, EndWithTheirLastWriter) {
    auto reader = reading();  // which inherits no writer
    ASSERT_TRUE(wait_for_waiting("pipe", 1));
    Fd one = open(O_WRONLY), two = open(O_WRONLY);
    ASSERT_EQ(write_to(one.get(), "one "), 4);
    one.reset();
    ASSERT_EQ(write_to(two.get(), "two"), 3);
    ASSERT_TRUE(wait_for_waiting("pipe", 1));
    two.reset();
    EXPECT_EQ(reader.wait(), 0);
    EXPECT_EQ(reader.text(), "one two");
}

TEST_F(Streams, WaitForTheirFirstWriter) {
    auto reader = reading();
    ASSERT_TRUE(wait_for_waiting("pipe", 1));
    const Fd other = open(O_RDONLY | O_NONBLOCK);
    EXPECT_EQ(read_from(other.get()).result, -EAGAIN);
    EXPECT_EQ(poll_one(other.get(), POLLIN, 0), 0);
    Fd out = open(O_WRONLY);
    out.reset();
    EXPECT_EQ(reader.wait(), 0);
    EXPECT_EQ(reader.text(), "");
    EXPECT_TRUE(poll_one(other.get(), POLLIN, static_cast<int>(kPatience.count())) & POLLHUP);
    EXPECT_EQ(read_from(other.get()).result, 0);
}

TEST_F(Streams, WhatAReaderLeavesIsTheNextOnes) {
    const Fd out = open(O_WRONLY);
    ASSERT_EQ(write_to(out.get(), "abcdef"), 6);
    ASSERT_EQ(write_to(out.get(), "ghi"), 3);
    {
        const Fd in = open(O_RDONLY);
        EXPECT_EQ(read_from(in.get(), 2).data, "ab");
    }
    ASSERT_TRUE(wait_until([&] { return number(status("pipe", "bytes")) == 7; }));
    const std::string path = at("pipe/stream");
    Child killed([path](std::string&) {
        const Fd in = open_file(path, O_RDONLY);
        (void)read_from(in.get(), 1);
        return raise(SIGKILL);
    });
    EXPECT_EQ(killed.wait(), 1000 + SIGKILL);
    ASSERT_TRUE(wait_until([&] { return number(status("pipe", "bytes")) == 6; }));
    const Fd in = open(O_RDONLY);
    EXPECT_EQ(read_from(in.get()).data, "defghi");
}

TEST_F(Streams, AnInterruptedReaderTookNothing) {
    const Fd out = open(O_WRONLY);
    for (const int number : {SIGUSR1, SIGKILL}) {
        const std::string path = at("pipe/stream");
        Child reader([path](std::string&) {
            const Fd in = open_file(path, O_RDONLY);
            return static_cast<int>(-read_from(in.get()).result);
        });
        ASSERT_TRUE(wait_for_waiting("pipe", 1));
        reader.signal(number);
        EXPECT_EQ(reader.wait(), number == SIGKILL ? 1000 + SIGKILL : EINTR);
    }
    ASSERT_EQ(write_to(out.get(), "all"), 3);
    const Fd in = open(O_RDONLY);
    EXPECT_EQ(read_from(in.get()).data, "all");
}

TEST_F(Streams, OneOpenForBothWaysIsItsOwnWriter) {
    const Fd both = open(O_RDWR);
    ASSERT_EQ(write_to(both.get(), "echo"), 4);
    EXPECT_EQ(read_from(both.get()).data, "echo");
    EXPECT_EQ(poll_one(both.get(), POLLIN, 0), 0);
}

TEST_F(Streams, CarryALotUnchangedThroughASmallChannel) {
    ASSERT_EQ(ctl("pipe", "bytes 3M\ncapacity 20\ntimeout 1h\n"), 0);
    std::string sent(20 << 20, '\0');
    std::iota(sent.begin(), sent.end(), 'a');
    for (std::size_t i = 0; i < sent.size(); i += 4099) sent[i] = static_cast<char>(i / 4099);
    auto reader = reading();
    const std::string path = at("pipe/stream");
    Child writer([path, &sent](std::string&) {
        const Fd out = open_file(path, O_WRONLY);
        for (std::size_t at = 0, step = 1; at < sent.size(); step = step * 7 % 1000003 + 1) {
            const long done = write_to(out.get(), std::string_view(sent).substr(at, step));
            if (done <= 0) return static_cast<int>(-done);
            at += static_cast<std::size_t>(done);
        }
        return 0;
    });
    EXPECT_EQ(writer.wait(), 0);
    EXPECT_EQ(reader.wait(), 0);
    EXPECT_TRUE(reader.text() == sent);
}

TEST_F(Streams, HaveNoMessageFiles) {
    for (const char* file : {"queue", "next", "put", "lease", "peek", "framed", "priority", "dead"})
        EXPECT_EQ(open_error(at(std::string("pipe/") + file), O_RDONLY), ENOENT) << file;
    EXPECT_EQ(ctl("pipe", "durable async\n"), EINVAL);
}

}  // namespace
}  // namespace ipcfs::test
