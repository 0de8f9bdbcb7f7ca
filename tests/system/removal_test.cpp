// rmdir and mv under open files: what is still there, who is told, and what follows the channel.
#include <cstdio>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "child.hpp"
#include "daemon_fixture.hpp"

namespace ipcfs::test {
namespace {

class Removal : public MountedTest {
protected:
    void SetUp() override {
        MountedTest::SetUp();
        if (HasFatalFailure()) return;
        make_channel("jobs");
    }
    int remove(const std::string& name) { return rmdir(at(name).c_str()) == 0 ? 0 : errno; }
    int move(const std::string& from, const std::string& to) {
        return rename(at(from).c_str(), at(to).c_str()) == 0 ? 0 : errno;
    }
};

TEST_F(Removal, IsRefusedWhileMessagesOrChannelsAreThere) {
    ASSERT_EQ(send("jobs", "x"), 0);
    EXPECT_EQ(remove("jobs"), ENOTEMPTY);
    ASSERT_EQ(ctl("jobs", "purge\n"), 0);
    make_channel("jobs/sub");
    EXPECT_EQ(remove("jobs"), ENOTEMPTY);
    EXPECT_EQ(remove("jobs/sub"), 0);
    EXPECT_EQ(remove("jobs"), 0);
    EXPECT_EQ(remove("jobs"), ENOENT);
    EXPECT_EQ(open_error(at("jobs/queue"), O_RDONLY), ENOENT);
}

TEST_F(Removal, EndsTheFileForWaitingReaders) {
    std::vector<Child> readers;
    for (const char* file : {"next", "stream", "framed/next", "framed/stream"}) {
        const std::string path = at(std::string("jobs/") + file);
        readers.emplace_back([path](std::string&) {
            const Fd in = open_file(path, O_RDONLY);
            const long result = read_from(in.get()).result;
            return result == 0 ? 0 : 1;
        });
    }
    ASSERT_TRUE(wait_for_waiting("jobs", 4));
    ASSERT_EQ(remove("jobs"), 0);
    for (auto& reader : readers) EXPECT_EQ(reader.wait(), 0);
}

TEST_F(Removal, BreaksThePipeOfWritersHeldAtOpen) {
    ASSERT_EQ(ctl("jobs", "pause\n"), 0);
    std::vector<Child> writers;
    for (const char* file : {"queue", "priority/high", "framed/queue"}) {
        const std::string path = at(std::string("jobs/") + file);
        writers.emplace_back([path](std::string&) {
            const Fd out = open_file(path, O_WRONLY);
            return out ? static_cast<int>(-write_to(out.get(), "late")) : errno;
        });
    }
    ASSERT_TRUE(wait_for_waiting("jobs", 3));
    ASSERT_EQ(remove("jobs"), 0);
    for (auto& writer : writers) EXPECT_EQ(writer.wait(), EPIPE);
}

TEST_F(Removal, EndsOpenFilesToo) {
    const Fd in = open_file(at("jobs/queue"), O_RDONLY);
    const Fd stream = open_file(at("jobs/stream"), O_RDONLY);
    const Fd out = open_file(at("jobs/queue"), O_WRONLY);
    const Fd high = open_file(at("jobs/priority/high"), O_WRONLY);
    ASSERT_EQ(remove("jobs"), 0);
    EXPECT_EQ(read_from(in.get()).result, 0);
    EXPECT_EQ(read_from(stream.get()).result, 0);
    EXPECT_EQ(write_to(out.get(), "late"), -EPIPE);
    EXPECT_EQ(write_to(high.get(), "late"), -EPIPE);
}

TEST_F(Removal, LeavesTheNameToANewChannelThatOldFilesDoNotReach) {
    const Fd old = open_file(at("jobs/queue"), O_WRONLY);
    ASSERT_EQ(remove("jobs"), 0);
    make_channel("jobs");
    EXPECT_EQ(write_to(old.get(), "to the dead"), -EPIPE);
    ASSERT_EQ(send("jobs", "to the living"), 0);
    EXPECT_EQ(drain("jobs"), std::vector<std::string>{"to the living"});
}

TEST_F(Removal, LeavesNothingBehindAfterThousandsOfRounds) {
    for (int i = 0; i < 1000; ++i) {
        ASSERT_EQ(mkdir(at("short").c_str(), 0755), 0) << i << ": " << strerror(errno);
        ASSERT_EQ(send("short", "x"), 0) << i;
        ASSERT_EQ(drain("short").size(), 1U) << i;
        ASSERT_EQ(remove("short"), 0) << i;
    }
}

TEST_F(Removal, ARenamedChannelKeepsItsMessagesAndOpenFiles) {
    const Fd in = open_file(at("jobs/queue"), O_RDONLY);
    const Fd out = open_file(at("jobs/queue"), O_WRONLY);
    ASSERT_EQ(send("jobs", "before"), 0);
    ASSERT_EQ(move("jobs", "work"), 0);
    EXPECT_EQ(open_error(at("jobs/queue"), O_RDONLY), ENOENT);
    EXPECT_EQ(write_to(out.get(), "after"), 5);
    EXPECT_EQ(read_from(in.get()).data, "before");
    EXPECT_EQ(drain("work"), std::vector<std::string>{"after"});
}

TEST_F(Removal, AReaderWaitsOnThroughARename) {
    const std::string path = at("jobs/next");
    Child reader([path](std::string& text) {
        const Fd in = open_file(path, O_RDONLY);
        text = read_from(in.get()).data;
        return 0;
    });
    ASSERT_TRUE(wait_for_waiting("jobs", 1));
    make_channel("shelf");
    ASSERT_EQ(move("jobs", "shelf/work"), 0);
    EXPECT_EQ(waiting("shelf/work"), 1);
    ASSERT_EQ(send("shelf/work", "found you"), 0);
    EXPECT_EQ(reader.wait(), 0);
    EXPECT_EQ(reader.text(), "found you");
}

TEST_F(Removal, ARenameTakesSubChannelsAlongAndNotIntoThemselves) {
    make_channel("jobs/sub");
    ASSERT_EQ(send("jobs/sub", "x"), 0);
    EXPECT_EQ(move("jobs", "jobs/sub/loop"), EINVAL);
    ASSERT_EQ(move("jobs", "work"), 0);
    EXPECT_EQ(drain("work/sub"), std::vector<std::string>{"x"});
}

TEST_F(Removal, ARenameToAReservedNameOrAFullChannelIsRefused) {
    make_channel("full");
    ASSERT_EQ(send("full", "x"), 0);
    EXPECT_EQ(move("jobs", "full"), ENOTEMPTY);
    EXPECT_EQ(move("jobs", "full/queue"), ENOTDIR);
    EXPECT_EQ(move("jobs/queue", "jobs/mine"), EPERM);
    EXPECT_EQ(drain("full"), std::vector<std::string>{"x"});
}

}  // namespace
}  // namespace ipcfs::test
