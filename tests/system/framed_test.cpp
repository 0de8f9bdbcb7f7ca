// framed/: every message with its header, who sent it by the kernel's word, batches all or nothing.
#include <fcntl.h>
#include <sys/syscall.h>
#include <thread>
#include <time.h>
#include <unistd.h>

#include "child.hpp"
#include "daemon_fixture.hpp"
#include "frames.hpp"

namespace ipcfs::test {
namespace {

class Framed : public MountedTest {
protected:
    void SetUp() override {
        MountedTest::SetUp();
        if (HasFatalFailure()) return;
        make_channel("jobs");
        in_ = open_file(at("jobs/framed/queue"), O_RDONLY);
        out_ = open_file(at("jobs/framed/queue"), O_WRONLY);
        ASSERT_TRUE(in_ && out_) << strerror(errno);
    }
    // The next message, which must be one good frame.
    Received take() {
        const auto got = read_from(in_.get());
        EXPECT_GT(got.result, 0);
        auto received = parse_frame(got.data);
        EXPECT_EQ(received.error, FrameError::kNone) << to_string(received.error);
        EXPECT_TRUE(received.whole);
        return received;
    }
    Fd in_;
    Fd out_;
};

std::uint64_t now() {
    timespec time{};
    clock_gettime(CLOCK_REALTIME, &time);
    return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000 +
           static_cast<std::uint64_t>(time.tv_nsec);
}

TEST_F(Framed, ReadersSeeTheHeaderOfAPlainMessage) {
    const auto before = now();
    ASSERT_EQ(send("jobs", "plain", "priority/high"), 0);
    const auto got = take();
    EXPECT_EQ(got.body, "plain");
    EXPECT_EQ(got.header.type, FrameType::kData);
    EXPECT_EQ(got.header.priority, 192);
    EXPECT_GT(got.header.sequence, 0U);
    EXPECT_GE(got.header.time, before);
    EXPECT_LE(got.header.time, now());
    EXPECT_EQ(got.header.sender_pid, static_cast<std::uint32_t>(getpid()));
    EXPECT_EQ(got.header.sender_uid, 0U);
}

TEST_F(Framed, AFrameComesBackWithWhatItsSenderChose) {
    std::vector<std::byte> extensions;
    ASSERT_TRUE(append_extension(extensions, ExtensionType::kTraceId, bytes("trace-0815")));
    FrameHeader header;
    header.priority = 200;
    header.message_id = 42;
    header.correlation_id = 4711;
    header.type = FrameType::kRequest;
    ASSERT_GT(write_to(out_.get(), frame(header, "body", extensions)), 0);
    const auto got = take();
    EXPECT_EQ(got.body, "body");
    EXPECT_EQ(got.header.priority, 200);
    EXPECT_EQ(got.header.message_id, 42U);
    EXPECT_EQ(got.header.correlation_id, 4711U);
    EXPECT_EQ(got.header.type, FrameType::kRequest);
    EXPECT_EQ(got.extensions.size(), extensions.size());
    EXPECT_NE(got.extensions.find("trace-0815"), std::string::npos);
}

TEST_F(Framed, APlainReaderGetsTheBodyAlone) {
    ASSERT_GT(write_to(out_.get(), frame("just this")), 0);
    EXPECT_EQ(drain("jobs"), std::vector<std::string>{"just this"});
}

TEST_F(Framed, SequencesCountUp) {
    for (int i = 0; i < 5; ++i) ASSERT_EQ(send("jobs", "x"), 0);
    const auto first = take().header.sequence;
    for (std::uint64_t i = 1; i < 5; ++i) EXPECT_EQ(take().header.sequence, first + i);
}

TEST_F(Framed, TheSenderIsWhoTheKernelSaysItIs) {
    for (const uid_t uid : {1000U, 1001U, 65534U}) {
        const std::string path = at("jobs/framed/queue");
        Child sender(Child::As{uid, -1}, [path, uid](std::string&) {
            FrameHeader forged;
            forged.sender_uid = 0;
            forged.sender_gid = 0;
            forged.sender_pid = 1;
            forged.sender_tid = 1;
            forged.sequence = 999999;
            forged.time = 1;
            const Fd out = open_file(path, O_WRONLY);
            if (!out) return errno;
            return write_to(out.get(), frame(forged, "I am " + std::to_string(uid))) > 0 ? 0 : 1;
        });
        ASSERT_EQ(sender.wait(), 0);
        const auto got = take();
        EXPECT_EQ(got.body, "I am " + std::to_string(uid));
        EXPECT_EQ(got.header.sender_uid, uid);
        EXPECT_EQ(got.header.sender_gid, uid);
        EXPECT_EQ(got.header.sender_pid, static_cast<std::uint32_t>(sender.pid()));
        EXPECT_EQ(got.header.sender_tid, static_cast<std::uint32_t>(sender.pid()));
        EXPECT_LT(got.header.sequence, 100U);
        EXPECT_GT(got.header.time, 1U);
    }
}

// The user counts who writes, not who opened: a descriptor may be inherited.
TEST_F(Framed, AnInheritedDescriptorIsTheWritersMessage) {
    Child sender(Child::As{1001, -1}, [this](std::string&) {
        return write_to(out_.get(), frame("inherited")) > 0 ? 0 : 1;
    });
    ASSERT_EQ(sender.wait(), 0);
    const auto got = take();
    EXPECT_EQ(got.header.sender_uid, 1001U);
    EXPECT_EQ(got.header.sender_pid, static_cast<std::uint32_t>(sender.pid()));
}

class FramedFromElsewhere : public Framed {
protected:
    Daemon::Options options() const override { return {{}, {}, true}; }
};

// For the daemon's pid namespace the sender has no number; who it is, is known all the same.
TEST_F(FramedFromElsewhere, ASenderWhosePidIsNotVisibleKeepsItsUser) {
    const std::string path = at("jobs/framed/queue");
    Child sender(Child::As{1001, -1}, [path](std::string&) {
        FrameHeader forged;
        forged.sender_pid = 1;
        const Fd out = open_file(path, O_WRONLY);
        return out && write_to(out.get(), frame(forged, "far away")) > 0 ? 0 : 1;
    });
    ASSERT_EQ(sender.wait(), 0);
    const auto got = take();
    EXPECT_EQ(got.body, "far away");
    EXPECT_EQ(got.header.sender_pid, 0U);
    EXPECT_EQ(got.header.sender_tid, 0U);
    EXPECT_EQ(got.header.sender_uid, 1001U);
    EXPECT_EQ(got.header.sender_gid, 1001U);
}

TEST_F(Framed, AThreadOfTheSenderIsNamed) {
    std::uint32_t thread_id = 0;
    std::thread writer([&] {
        thread_id = static_cast<std::uint32_t>(syscall(SYS_gettid));
        write_to(out_.get(), frame("from a thread"));
    });
    writer.join();
    const auto got = take();
    EXPECT_EQ(got.header.sender_tid, thread_id);
    EXPECT_NE(thread_id, static_cast<std::uint32_t>(getpid()));
}

TEST_F(Framed, SeveralFramesInOneWriteAreOneBatch) {
    ASSERT_GT(write_to(out_.get(), frame("one") + frame("two") + frame("three")), 0);
    EXPECT_EQ(depth("jobs"), 3);
    const std::vector<std::string> expected = {"one", "two", "three"};
    EXPECT_EQ(drain("jobs"), expected);
}

TEST_F(Framed, ABatchWithOneBadFrameQueuesNothing) {
    auto bad = frame("bad");
    bad[bad.size() - 1] ^= 1;  // its checksum does not hold
    for (const auto& batch : {frame("good") + bad, bad + frame("good"), frame("good") + "tail",
                              frame("good") + frame("cut").substr(0, 50)}) {
        EXPECT_EQ(write_to(out_.get(), batch), -EINVAL);
        EXPECT_EQ(depth("jobs"), 0);
    }
}

TEST_F(Framed, ABatchForWhichThereIsNoRoomQueuesNothing) {
    ASSERT_EQ(ctl("jobs", "capacity 10\noverflow reject\n"), 0);
    ASSERT_EQ(send("jobs", "first"), 0);
    std::string batch;
    for (int i = 0; i < 9; ++i) batch += frame("x");
    EXPECT_EQ(write_to(out_.get(), batch), -ENOBUFS);
    EXPECT_EQ(depth("jobs"), 1);
}

TEST_F(Framed, WhatIsNoFrameIsRefused) {
    auto other_version = frame("x");
    other_version[4] = 9;
    for (const std::string& text : {std::string("hello"), std::string(96, '\0'), other_version}) {
        EXPECT_EQ(write_to(out_.get(), text), -EINVAL);
    }
    EXPECT_EQ(depth("jobs"), 0);
}

TEST_F(Framed, ABodyAboveTheLimitIsRefused) {
    ASSERT_EQ(ctl("jobs", "max-message 1000\n"), 0);
    EXPECT_EQ(write_to(out_.get(), frame(std::string(1001, 'x'))), -EMSGSIZE);
    EXPECT_EQ(write_to(out_.get(), frame(std::string(1000, 'x'))), 1096);
    EXPECT_EQ(depth("jobs"), 1);
}

TEST_F(Framed, AShortBufferGetsTheRestOfTheFrameNext) {
    ASSERT_GT(write_to(out_.get(), frame("0123456789")), 0);
    std::string all;
    for (;;) {
        const auto got = read_from(in_.get(), 7);
        ASSERT_GE(got.result, 0);
        if (got.result == 0) break;
        all += got.data;
    }
    EXPECT_EQ(parse_frame(all).body, "0123456789");
}

TEST_F(Framed, ADeadlineInThePastIsNotDelivered) {
    FrameHeader late;
    late.flags = kFrameExpires;
    late.deadline = 1;
    ASSERT_GT(write_to(out_.get(), frame(late, "late")), 0);
    ASSERT_GT(write_to(out_.get(), frame("in time")), 0);
    EXPECT_EQ(take().body, "in time");
}

}  // namespace
}  // namespace ipcfs::test
