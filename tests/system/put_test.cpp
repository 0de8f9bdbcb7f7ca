// `put`: what is written between open and close is one message, whoever writes it and however it is
// closed. Runs on both transports, and with the content going past the daemon or through it.
#include <cerrno>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <thread>
#include <unistd.h>

#include "child.hpp"
#include "daemon_fixture.hpp"
#include "frames.hpp"

namespace ipcfs::test {
namespace {

const std::string kNothing = "(nothing)";

// 0 or the errno of close(2).
int closed(Fd& file) {
    return close(file.release()) == 0 ? 0 : errno;
}

// Writes all, as large as it goes; 0 or the errno.
int write_all(int file, std::string_view text) {
    while (!text.empty()) {
        const long done = write_to(file, text);
        if (done < 0) return static_cast<int>(-done);
        text.remove_prefix(static_cast<std::size_t>(done));
    }
    return 0;
}

class Put : public MountedTest {
protected:
    void SetUp() override {
        MountedTest::SetUp();
        if (HasFatalFailure()) return;
        make_channel("jobs");
        ASSERT_EQ(chmod(put().c_str(), 0666), 0);
    }
    std::string put() const { return at("jobs/put"); }
    Fd open_put(int flags = 0) const { return open_file(put(), O_WRONLY | flags); }
    // The next message, whole, of any size.
    std::string take() { return depth("jobs") == 0 ? kNothing : slurp(at("jobs/next")); }
    bool wait_for_depth(long count) {
        return wait_until([&] { return depth("jobs") == count; });
    }
    // All opens are closed, and what their ends had to do is done.
    bool wait_for_idle() {
        return wait_until([&] { return number(status("jobs", "writers")) == 0; });
    }
    std::string stored(const std::string& content) {
        std::string path = daemon().directory() + "/content";
        const Fd file(open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
        EXPECT_EQ(write_all(file.get(), content), 0);
        return path;
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

TEST_F(Put, MakesOneMessageOfWhatAShellWrites) {
    const std::vector<std::pair<std::string, std::string>> cases = {
        {"echo one > put", "one\n"},
        {"{ echo a; echo b; } > put", "a\nb\n"},
        {"exec 3>put; echo a >&3; echo b >&3; exec 3>&-", "a\nb\n"},
        {"exec 3>put 4>&3; echo a >&3; exec 3>&-; echo b >&4", "a\nb\n"},
        {"(echo a; (echo b); /bin/sh -c 'echo c') > put", "a\nb\nc\n"},
        {"echo a >> put", "a\n"},
        {"{ echo a; echo b; echo c; } >> put", "a\nb\nc\n"},
        {"seq 3 | tee put > /dev/null", "1\n2\n3\n"},
        {"seq 3 | dd of=put bs=1 status=none", "1\n2\n3\n"},
        {"seq 3 | cat > put", "1\n2\n3\n"},
        {"python3 -S -E -c 'f = open(\"put\", \"w\"); f.write(\"py\"); f.close()'", "py"},
        {"python3 -S -E -c 'import os; f = os.open(\"put\", os.O_WRONLY); os.write(f, b\"py\")'",
         "py"},
    };
    for (const auto& [command, expected] : cases) {
        EXPECT_EQ(shell("cd " + at("jobs") + " && " + command), 0) << command;
        // Whoever closed last may not have been the one who opened it: then nobody waited for it.
        EXPECT_TRUE(wait_for_depth(1)) << command;
        EXPECT_EQ(take(), expected) << command;
        EXPECT_EQ(depth("jobs"), 0) << command;
    }
}

TEST_F(Put, TakesAFileOfAnySizeFromTheUsualTools) {
    for (const std::size_t size :
         {std::size_t{1}, std::size_t{65536}, std::size_t{65537}, 3 * kMiB + 17, 20 * kMiB}) {
        const std::string content = text_of(size, static_cast<unsigned>(size));
        const std::string file = stored(content);
        for (const char* tool : {"cp %f %p", "cat %f > %p", "dd if=%f of=%p bs=100k status=none",
                                 "cp --reflink=never --sparse=never %f %p", "head -c 1G %f > %p"}) {
            std::string command = tool;
            command.replace(command.find("%f"), 2, file);
            command.replace(command.find("%p"), 2, put());
            ASSERT_EQ(shell(command), 0) << command;
            ASSERT_TRUE(wait_for_depth(1)) << command;
            EXPECT_TRUE(take() == content) << command << " of " << size;
        }
    }
    EXPECT_TRUE(wait_until([&] { return used(0, "payload_bytes") == 0; }));
}

TEST_F(Put, IsThereWhenCloseHasReturned) {
    for (int i = 0; i < 50; ++i) {
        Fd file = open_put();
        ASSERT_TRUE(file);
        ASSERT_EQ(write_all(file.get(), text_of(kMiB, 7)), 0);
        ASSERT_EQ(depth("jobs"), 0);
        ASSERT_EQ(closed(file), 0);
        ASSERT_EQ(depth("jobs"), 1);
        ASSERT_TRUE(take() == text_of(kMiB, 7));
    }
}

TEST_F(Put, KeepsWhatWasWrittenWhereItWasWritten) {
    Fd file = open_put();
    ASSERT_EQ(pwrite(file.get(), "world", 5, 6), 5);
    ASSERT_EQ(pwrite(file.get(), "hello ", 6, 0), 6);
    ASSERT_EQ(closed(file), 0);
    EXPECT_EQ(take(), "hello world");
}

TEST_F(Put, AppendsBehindItsOwnLastWriteWhateverOthersDo) {
    Fd first = open_put(O_APPEND);
    Fd second = open_put(O_APPEND);
    ASSERT_TRUE(first && second) << strerror(errno);
    std::string expected_first, expected_second;
    for (unsigned i = 0; i < 20; ++i) {
        struct stat about {};
        ASSERT_EQ(stat(put().c_str(), &about), 0);
        EXPECT_EQ(about.st_size, 0);
        expected_first += text_of(100 + i, i);
        ASSERT_EQ(write_all(first.get(), text_of(100 + i, i)), 0);
        expected_second += text_of(5000, i + 100);
        ASSERT_EQ(write_all(second.get(), text_of(5000, i + 100)), 0);
    }
    ASSERT_EQ(closed(second), 0);
    ASSERT_TRUE(wait_for_depth(1));
    EXPECT_EQ(take(), expected_second);
    ASSERT_EQ(closed(first), 0);
    ASSERT_TRUE(wait_for_depth(1));
    EXPECT_EQ(take(), expected_first);
}

TEST_F(Put, LeavesNothingWhenNothingWasWritten) {
    EXPECT_EQ(shell(": > " + put()), 0);
    Fd file = open_put();
    EXPECT_EQ(closed(file), 0);
    EXPECT_EQ(shell("cp /dev/null " + put()), 0);
    EXPECT_TRUE(wait_for_idle());
    EXPECT_EQ(depth("jobs"), 0);
}

TEST_F(Put, IsOnlyWritten) {
    EXPECT_EQ(open_error(put(), O_RDONLY), EACCES);
    EXPECT_EQ(open_error(put(), O_RDWR), EACCES);
    EXPECT_EQ(open_error(at("jobs/framed/put"), O_RDWR), EACCES);
    const Fd busy = open_put();
    ASSERT_TRUE(busy);
    EXPECT_EQ(open_error(put(), O_RDONLY), EACCES);
    EXPECT_EQ(open_error(put(), O_RDWR), EACCES);
    EXPECT_EQ(open_error(put(), O_WRONLY | O_CREAT | O_EXCL), EEXIST);
}

TEST_F(Put, GoesPastTheDaemonWhereTheKernelCanDoThat) {
    const bool past = value_of(slurp(at("kern/ipc/version")), "passthrough") == "on";
    const auto writes = [&] {
        for (auto& row : parse_table(slurp(at("kern/ipc/stats/resources"))))
            if (row["scope"] == "request" && row["resource"] == "WRITE") return number(row["used"]);
        return 0L;
    };
    const std::string content = text_of(8 * kMiB);
    Fd first = open_put();
    const long before = writes();
    ASSERT_EQ(write_all(first.get(), content), 0);
    const long spent = writes() - before;
    EXPECT_EQ(spent == 0, past) << spent;
    Fd second = open_put();  // one at a time can
    ASSERT_EQ(write_all(second.get(), content), 0);
    EXPECT_GE(writes() - before - spent, 8);
    ASSERT_EQ(closed(second), 0);
    ASSERT_EQ(closed(first), 0);
    ASSERT_TRUE(wait_for_depth(2));
    EXPECT_TRUE(take() == content);
    EXPECT_TRUE(take() == content);
}

// ---- who closes ---------------------------------------------------------------------------------

TEST_F(Put, WaitsForTheLastDescriptorOfItsWriter) {
    Fd file = open_put();
    Fd second(fcntl(file.get(), F_DUPFD_CLOEXEC, 3));
    ASSERT_EQ(write_all(file.get(), "a"), 0);
    EXPECT_EQ(closed(file), 0);
    EXPECT_EQ(depth("jobs"), 0);
    ASSERT_EQ(write_all(second.get(), "b"), 0);
    EXPECT_EQ(closed(second), 0);
    EXPECT_EQ(take(), "ab");
}

TEST_F(Put, WaitsForAChildThatStillWrites) {
    int ends[2];
    ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
    Fd listen(ends[0]), tell(ends[1]);
    Fd file = open_put();
    ASSERT_EQ(write_all(file.get(), "parent "), 0);
    Child child([&](std::string&) {
        tell.reset();
        (void)read_from(listen.get(), 1);
        return write_all(file.get(), "child");
    });
    EXPECT_EQ(closed(file), 0);
    EXPECT_EQ(depth("jobs"), 0);
    tell.reset();
    EXPECT_EQ(child.wait(), 0);
    ASSERT_TRUE(wait_for_depth(1));
    EXPECT_EQ(take(), "parent child");
}

TEST_F(Put, IsNotClosedByAChildThatEndsFirst) {
    Fd file = open_put();
    ASSERT_EQ(write_all(file.get(), "parent "), 0);
    EXPECT_EQ(Child([&](std::string&) { return write_all(file.get(), "child "); }).wait(), 0);
    EXPECT_EQ(depth("jobs"), 0);
    ASSERT_EQ(write_all(file.get(), "parent"), 0);
    EXPECT_EQ(closed(file), 0);
    EXPECT_EQ(take(), "parent child parent");
}

TEST_F(Put, IsClosedByExecveToo) {
    // The kernel waits for the answer within execve(2): looking at that process must not wait for it.
    for (const std::size_t size : {std::size_t{10}, kMiB}) {
        Child child([&, size](std::string&) {
            const Fd file = open_put();  // O_CLOEXEC
            if (int error = write_all(file.get(), text_of(size))) return error;
            execl("/bin/true", "true", nullptr);
            return 127;
        });
        EXPECT_EQ(child.wait(), 0);
        EXPECT_EQ(depth("jobs"), 1);
        EXPECT_TRUE(take() == text_of(size));
    }
}

TEST_F(Put, IsClosedByAnExitWithoutClose) {
    for (const int code : {0, 3}) {
        Child child([&, code](std::string&) {
            Fd file = open_put();
            if (int error = write_all(file.release(), "left")) return error;
            _exit(code);
        });
        EXPECT_EQ(child.wait(), code);
        ASSERT_TRUE(wait_for_depth(1));
        EXPECT_EQ(take(), "left");
    }
}

TEST_F(Put, IsClosedByTheExitOfAProcessOfManyThreads) {
    Child child([&](std::string&) {
        Fd file = open_put();
        std::thread([] { pause(); }).detach();
        std::thread([descriptor = file.release()] {
            write_all(descriptor, "left");
            _exit(5);
        }).join();
        return 0;
    });
    EXPECT_EQ(child.wait(), 5);
    ASSERT_TRUE(wait_for_depth(1));
    EXPECT_EQ(take(), "left");
}

TEST_F(Put, LeavesNothingOfAWriterThatASignalKilled) {
    for (const int number : {SIGKILL, SIGINT, SIGTERM, SIGPIPE, SIGABRT, SIGHUP}) {
        for (const bool threads : {false, true}) {
            Child child([&](std::string&) {
                signal(number, SIG_DFL);
                Fd file = open_put();
                if (int error = write_all(file.release(), text_of(kMiB))) return error;
                if (threads) std::thread([] { pause(); }).detach();
                raise(number);
                return 0;
            });
            EXPECT_EQ(child.wait(), 1000 + number);
            ASSERT_TRUE(wait_for_idle());
            EXPECT_EQ(depth("jobs"), 0) << strsignal(number) << (threads ? ", threads" : "");
        }
    }
    EXPECT_TRUE(wait_until([&] { return used(0, "payload_bytes") == 0; }));
}

// ---- several at once ----------------------------------------------------------------------------

TEST_F(Put, TakesOthersWhileOneWrites) {
    const std::string content = text_of(2 * kMiB, 2);
    const std::string file = stored(content);
    Fd slow = open_put();
    ASSERT_EQ(write_all(slow.get(), "slow "), 0);
    for (const char* tool : {"cp %f %p", "cat %f > %p", "dd if=%f of=%p status=none"}) {
        std::string command = tool;
        command.replace(command.find("%f"), 2, file);
        command.replace(command.find("%p"), 2, put());
        ASSERT_EQ(shell(command), 0) << command;
        ASSERT_TRUE(wait_for_depth(1)) << command;
        EXPECT_TRUE(take() == content) << command;
    }
    EXPECT_EQ(shell("echo quick > " + put()), 0);
    ASSERT_TRUE(wait_for_depth(1));
    EXPECT_EQ(take(), "quick\n");
    ASSERT_EQ(write_all(slow.get(), "but sure"), 0);
    ASSERT_EQ(closed(slow), 0);
    EXPECT_EQ(take(), "slow but sure");
    // And again as if nothing had been.
    EXPECT_EQ(shell("cp " + file + " " + put()), 0);
    EXPECT_TRUE(take() == content);
}

TEST_F(Put, KeepsTheMessagesOfManyWritersApart) {
    constexpr unsigned kWriters = 6, kEach = 25;
    std::vector<std::unique_ptr<Child>> writers;
    for (unsigned writer = 0; writer < kWriters; ++writer) {
        writers.push_back(std::make_unique<Child>([&, writer](std::string& text) {
            for (unsigned i = 0; i < kEach; ++i) {
                Fd file = open_put();
                if (!file) {
                    text = "open";
                    return errno;
                }
                const std::string content = text_of(1000 * (writer + 1) * (i % 7 + 1), writer);
                const std::size_t half = content.size() / 2;
                int error = write_all(file.get(), content.substr(0, half));
                if (!error) error = write_all(file.get(), content.substr(half));
                if (!error) error = closed(file);
                if (error) return error;
            }
            return 0;
        }));
    }
    for (auto& writer : writers) EXPECT_EQ(writer->wait(), 0) << writer->text();
    ASSERT_TRUE(wait_for_idle());
    EXPECT_EQ(depth("jobs"), kWriters * kEach);
    std::map<std::string, int> expected, taken;
    for (unsigned writer = 0; writer < kWriters; ++writer) {
        for (unsigned i = 0; i < kEach; ++i)
            ++expected[text_of(1000 * (writer + 1) * (i % 7 + 1), writer)];
    }
    for (unsigned i = 0; i < kWriters * kEach; ++i) ++taken[take()];
    EXPECT_TRUE(taken == expected);
}

TEST_F(Put, IsSealedForWhoeverHasADescriptorLeft) {
    int pair[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, pair), 0);
    const Fd ours(pair[0]), theirs(pair[1]);
    const std::string content = text_of(kMiB);
    // The writer gives its descriptor to somebody who is no child of its own, and closes it.
    Child writer([&](std::string&) {
        Fd file = open_put();
        if (int error = write_all(file.get(), content)) return error;
        alignas(cmsghdr) char room[CMSG_SPACE(sizeof(int))] = {};
        iovec byte{const_cast<char*>("x"), 1};
        msghdr message{};
        message.msg_iov = &byte;
        message.msg_iovlen = 1;
        message.msg_control = room;
        message.msg_controllen = sizeof room;
        cmsghdr* header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int));
        const int descriptor = file.get();
        std::memcpy(CMSG_DATA(header), &descriptor, sizeof descriptor);
        if (sendmsg(theirs.get(), &message, 0) != 1) return errno;
        return closed(file);
    });
    ASSERT_EQ(writer.wait(), 0);
    alignas(cmsghdr) char room[CMSG_SPACE(sizeof(int))] = {};
    char byte = 0;
    iovec into{&byte, 1};
    msghdr message{};
    message.msg_iov = &into;
    message.msg_iovlen = 1;
    message.msg_control = room;
    message.msg_controllen = sizeof room;
    ASSERT_EQ(recvmsg(ours.get(), &message, MSG_CMSG_CLOEXEC), 1);
    int descriptor = -1;
    std::memcpy(&descriptor, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof descriptor);
    const Fd left(descriptor);
    ASSERT_EQ(depth("jobs"), 1) << "the message waits for somebody who is not the writer's";
    EXPECT_NE(write_all(left.get(), "more"), 0);
    EXPECT_EQ(pwrite(left.get(), "X", 1, 0), -1);
    // With root's rights, too: this is root.
    EXPECT_NE(open_error("/proc/self/fd/" + std::to_string(left.get()), O_RDWR), 0);
    EXPECT_TRUE(take() == content);
}

// ---- limits and errors --------------------------------------------------------------------------

TEST_F(Put, SaysAtCloseThatItWasTooLarge) {
    ASSERT_EQ(ctl("jobs", "max-payload 1M\n"), 0);
    const std::string fits = text_of(kMiB);
    Fd file = open_put();
    ASSERT_EQ(write_all(file.get(), fits), 0);
    EXPECT_EQ(closed(file), 0);
    EXPECT_TRUE(take() == fits);

    file = open_put();
    ASSERT_EQ(write_all(file.get(), fits), 0);
    (void)write_all(file.get(), "x");  // goes past the daemon, or is refused at once
    EXPECT_EQ(closed(file), EMSGSIZE);
    EXPECT_TRUE(wait_for_idle());
    EXPECT_EQ(depth("jobs"), 0);
    // One that writes on is stopped, and not only told at the end.
    file = open_put();
    EXPECT_TRUE(wait_until([&] { return write_all(file.get(), fits) != 0; }));
    EXPECT_EQ(closed(file), EMSGSIZE);
    EXPECT_NE(shell("cp " + stored(text_of(3 * kMiB)) + " " + put() + " 2> /dev/null"), 0);
    EXPECT_TRUE(wait_for_idle());
    EXPECT_EQ(depth("jobs"), 0);
    EXPECT_TRUE(wait_until([&] { return used(0, "payload_bytes") == 0; }));
}

TEST_F(Put, ChargesPayloadBytesToTheWriterUntilTheyAreTaken) {
    const std::string content = text_of(kMiB);
    Fd file = open_put();
    ASSERT_EQ(write_all(file.get(), content), 0);
    ASSERT_EQ(closed(file), 0);
    EXPECT_GE(used(0, "payload_bytes"), static_cast<long>(kMiB));
    EXPECT_TRUE(take() == content);
    EXPECT_TRUE(wait_until([&] { return used(0, "payload_bytes") == 0; }));
}

class PutQuota : public Put {
protected:
    Daemon::Options options() const override {
        return {{"--set", "limits.payload-bytes=2M"}, {}, false};
    }
};

TEST_F(PutQuota, StopsOneUserOnly) {
    const std::string half = text_of(3 * kMiB / 2);
    const auto puts = [&](uid_t uid) {
        return Child(Child::As{uid, -1},
                     [&](std::string&) {
                         Fd file = open_put();
                         if (!file) return 1000 + errno;
                         (void)write_all(file.get(), half);
                         return closed(file);
                     })
            .wait();
    };
    EXPECT_EQ(puts(kAlice), 0);
    EXPECT_EQ(puts(kAlice), EDQUOT);
    EXPECT_EQ(puts(kBob), 0);
    ASSERT_TRUE(wait_for_idle());
    EXPECT_EQ(depth("jobs"), 2);
    EXPECT_TRUE(take() == half);
    EXPECT_TRUE(wait_until([&] { return used(kAlice, "payload_bytes") == 0; }));
    EXPECT_EQ(puts(kAlice), 0);
}

class FullPut : public Put {
protected:
    void SetUp() override {
        Put::SetUp();
        if (HasFatalFailure()) return;
        ASSERT_EQ(ctl("jobs", "capacity 5\ntimeout 60s\n"), 0);
    }
    void fill() {
        const Fd out = open_file(at("jobs/queue"), O_WRONLY | O_NONBLOCK);
        while (out && write_to(out.get(), "filler") > 0) {
        }
    }
    // Opens while there is room, closes when there is none; the errno of that is its exit code.
    Child closing(int flags, int ready, int go) {
        return Child([=, this](std::string&) {
            Fd file = open_put(flags);
            if (!file) return errno;
            if (int error = write_all(file.get(), "late")) return error;
            (void)write_to(ready, "x");
            (void)read_patiently(go, 1);
            return closed(file);
        });
    }
};

struct Ends {
    Ends() {
        int pair[2];
        if (pipe2(pair, O_CLOEXEC) != 0) return;
        out.reset(pair[0]);
        in.reset(pair[1]);
    }
    Fd in, out;
};

TEST_F(FullPut, WaitsForRoomAtClose) {
    Ends ready, go;
    auto writer = closing(0, ready.in.get(), go.out.get());
    ASSERT_EQ(read_from(ready.out.get(), 1).result, 1);
    fill();
    const long full = depth("jobs");
    ASSERT_EQ(write_to(go.in.get(), "x"), 1);
    ASSERT_TRUE(wait_for_waiting("jobs", 1));
    EXPECT_EQ(depth("jobs"), full);
    for (long i = 0; i < full; ++i) EXPECT_EQ(take(), "filler");
    EXPECT_EQ(writer.wait(), 0);
    EXPECT_EQ(take(), "late");
}

TEST_F(FullPut, IsInterruptedInItsCloseAndQueuesNothing) {
    for (const int number : {SIGUSR1, SIGKILL}) {
        Ends ready, go;
        auto writer = closing(0, ready.in.get(), go.out.get());
        ASSERT_EQ(read_from(ready.out.get(), 1).result, 1);
        fill();
        ASSERT_EQ(write_to(go.in.get(), "x"), 1);
        ASSERT_TRUE(wait_for_waiting("jobs", 1));
        writer.signal(number);
        EXPECT_EQ(writer.wait(), number == SIGUSR1 ? EINTR : 1000 + SIGKILL);
        ASSERT_TRUE(wait_for_waiting("jobs", 0));
        for (const std::string& message : drain("jobs")) EXPECT_EQ(message, "filler");
        ASSERT_TRUE(wait_for_idle());
        EXPECT_EQ(depth("jobs"), 0);
    }
}

TEST_F(FullPut, GivesUpAtTheChannelsTimeout) {
    ASSERT_EQ(ctl("jobs", "timeout 100ms\n"), 0);
    Ends ready, go;
    auto writer = closing(0, ready.in.get(), go.out.get());
    ASSERT_EQ(read_from(ready.out.get(), 1).result, 1);
    fill();
    ASSERT_EQ(write_to(go.in.get(), "x"), 1);
    EXPECT_EQ(writer.wait(), EAGAIN);
    for (const std::string& message : drain("jobs")) EXPECT_EQ(message, "filler");
}

TEST_F(FullPut, DoesNotWaitWhereItMayNot) {
    Ends ready, go;
    auto writer = closing(O_NONBLOCK, ready.in.get(), go.out.get());
    ASSERT_EQ(read_from(ready.out.get(), 1).result, 1);
    fill();
    ASSERT_EQ(write_to(go.in.get(), "x"), 1);
    EXPECT_EQ(writer.wait(), EAGAIN);
    drain("jobs");
    ASSERT_EQ(ctl("jobs", "overflow reject\n"), 0);
    auto rejected = closing(0, ready.in.get(), go.out.get());
    ASSERT_EQ(read_from(ready.out.get(), 1).result, 1);
    fill();
    ASSERT_EQ(write_to(go.in.get(), "x"), 1);
    EXPECT_EQ(rejected.wait(), ENOBUFS);
}

TEST_F(Put, SaysEpipeAtCloseWhenTheChannelIsGone) {
    Fd file = open_put();
    ASSERT_EQ(write_all(file.get(), "late"), 0);
    ASSERT_EQ(rmdir(at("jobs").c_str()), 0);
    EXPECT_EQ(closed(file), EPIPE);
}

// ---- with a header ------------------------------------------------------------------------------

TEST_F(Put, TakesAFrameOfAnyLength) {
    for (const std::size_t size : {std::size_t{5}, 2 * kMiB + 5}) {
        const std::string body = text_of(size);
        FrameHeader header;
        header.priority = 200;
        header.correlation_id = 77;
        header.body_length = body.size();
        header.flags = kFrameNoChecksum;
        std::string head(reinterpret_cast<const char*>(&header), sizeof header);
        Fd file = open_file(at("jobs/framed/put"), O_WRONLY);
        ASSERT_EQ(write_all(file.get(), head.substr(0, 10)), 0);
        ASSERT_EQ(write_all(file.get(), head.substr(10) + body.substr(0, 3)), 0);
        ASSERT_EQ(write_all(file.get(), body.substr(3)), 0);
        ASSERT_EQ(closed(file), 0);
        const Fd in = open_file(at("jobs/framed/queue"), O_RDONLY | O_NONBLOCK);
        const auto got = parse_frame(read_from(in.get()).data);
        EXPECT_EQ(got.error, FrameError::kNone);
        EXPECT_EQ(got.header.priority, 200);
        EXPECT_EQ(got.header.correlation_id, 77U);
        if (got.header.payload_id == 0) {
            EXPECT_EQ(got.body, body);
        } else {
            const std::string path = at("jobs/payload/") + std::to_string(got.header.payload_id);
            EXPECT_TRUE(slurp(path) == body);
        }
    }
    FrameHeader header;
    header.body_length = 10;
    header.flags = kFrameNoChecksum;
    Fd file = open_file(at("jobs/framed/put"), O_WRONLY);
    const std::string_view head(reinterpret_cast<const char*>(&header), sizeof header);
    ASSERT_EQ(write_all(file.get(), std::string(head) + "short"), 0);
    EXPECT_EQ(closed(file), EINVAL);
    EXPECT_EQ(depth("jobs"), 0);
}

}  // namespace
}  // namespace ipcfs::test
