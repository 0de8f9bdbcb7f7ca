// payload/<id>: large messages as files, to read and to map, for those who may read the channel and
// for nobody to write. What becomes of mappings when somebody dies is in mapping_test.cpp.
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <set>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "child.hpp"
#include "daemon_fixture.hpp"
#include "frames.hpp"

namespace ipcfs::test {
namespace {

constexpr uid_t kFriend = 1001;
constexpr uid_t kStranger = 1002;

class Payloads : public MountedTest {
protected:
    void SetUp() override {
        MountedTest::SetUp();
        if (HasFatalFailure()) return;
        make_channel("jobs", {}, 0755);
    }
    void put(const std::string& content) {
        Fd file = open_file(at("jobs/put"), O_WRONLY);
        ASSERT_TRUE(file);
        for (std::size_t done = 0; done < content.size();) {
            const long part = write_to(file.get(), std::string_view(content).substr(done, kMiB));
            ASSERT_GT(part, 0);
            done += static_cast<std::size_t>(part);
        }
        ASSERT_EQ(close(file.release()), 0);
    }
    // The next message's payload, which the open file `reader` holds; empty: it has none.
    std::string receive(Fd& reader) {
        if (!reader) reader = open_file(at("jobs/framed/queue"), O_RDONLY | O_NONBLOCK);
        const auto got = parse_frame(read_from(reader.get()).data);
        if (got.header.payload_id == 0) return {};
        EXPECT_TRUE(got.body.empty());
        return at("jobs/payload/") + std::to_string(got.header.payload_id);
    }
    std::set<std::string> listed() {
        std::string names;
        shell("ls " + at("jobs/payload"), &names);
        std::set<std::string> set;
        for (std::size_t at = 0, end; (end = names.find('\n', at)) != std::string::npos;
             at = end + 1)
            set.insert(names.substr(at, end - at));
        return set;
    }
    long counted(const std::string& object, const std::string& state, const char* what) {
        long sum = 0;
        for (Row& row : parse_table(slurp(at("kern/ipc/stats/mappings"))))
            if (row["object"] == object && row["state"] == state) sum += number(row[what]);
        return sum;
    }
};

TEST_F(Payloads, AreListedWhileTheyAreQueuedOrHeld) {
    EXPECT_TRUE(listed().empty());
    put(std::string(100, 'x'));  // small: no payload
    EXPECT_TRUE(listed().empty());
    put(text_of(kMiB, 1));
    put(text_of(2 * kMiB, 2));
    EXPECT_EQ(listed().size(), 2U);
    Fd reader;
    EXPECT_EQ(receive(reader), "");
    const std::string first = receive(reader);
    ASSERT_FALSE(first.empty());
    EXPECT_EQ(listed().size(), 2U) << "its reader holds it until it reads on";
    EXPECT_TRUE(slurp(first) == text_of(kMiB, 1));
    const std::string second = receive(reader);
    EXPECT_EQ(listed().size(), 1U);
    EXPECT_EQ(open_error(first, O_RDONLY), ENOENT);
    EXPECT_TRUE(slurp(second) == text_of(2 * kMiB, 2));
    reader.reset();
    EXPECT_TRUE(wait_until([&] { return listed().empty(); }));
    EXPECT_EQ(open_error(second, O_RDONLY), ENOENT);
    for (const char* name : {"jobs/payload/0", "jobs/payload/01", "jobs/payload/x",
                             "jobs/payload/99999999999999999999"}) {
        EXPECT_EQ(open_error(at(name), O_RDONLY), ENOENT) << name;
    }
}

TEST_F(Payloads, AreReadByteByByteFromAnywhere) {
    const std::string content = text_of(3 * kMiB + 17);
    put(content);
    Fd reader;
    const std::string path = receive(reader);
    struct stat about {};
    ASSERT_EQ(stat(path.c_str(), &about), 0);
    EXPECT_EQ(about.st_size, static_cast<off_t>(content.size()));
    EXPECT_EQ(about.st_mode & 07777, 0444U);
    for (int round = 0; round < 2; ++round) {  // the second from what the kernel may have kept
        const Fd file = open_file(path, O_RDONLY);
        ASSERT_TRUE(file) << strerror(errno);
        for (const std::size_t size :
             {std::size_t{1}, std::size_t{4096}, std::size_t{70000}, kMiB}) {
            for (const std::size_t at :
                 {std::size_t{0}, std::size_t{1}, std::size_t{4095}, kMiB - 3, content.size() - 5,
                  content.size(), content.size() + 9}) {
                std::string buffer(size, '#');
                const ssize_t got = pread(file.get(), buffer.data(), size, static_cast<off_t>(at));
                const std::string there = at < content.size() ? content.substr(at, size) : "";
                ASSERT_EQ(got, static_cast<ssize_t>(there.size())) << size << " at " << at;
                EXPECT_TRUE(buffer.starts_with(there)) << size << " at " << at;
            }
        }
        EXPECT_EQ(lseek(file.get(), 0, SEEK_END), static_cast<off_t>(content.size()));
        EXPECT_EQ(lseek(file.get(), 100, SEEK_SET), 100);
        EXPECT_EQ(read_from(file.get(), 50).data, content.substr(100, 50));
    }
    for (const char* tool :
         {"cmp %p -", "cp %p %d/copy && cmp %d/copy -", "cat %p | cmp - /dev/stdin",
          "dd if=%p bs=1M status=none | cmp - /dev/stdin"}) {
        // The content itself comes from another way out: the queue, which still has it.
        std::string command = tool;
        for (std::size_t at; (at = command.find("%p")) != std::string::npos;)
            command.replace(at, 2, path);
        for (std::size_t at; (at = command.find("%d")) != std::string::npos;)
            command.replace(at, 2, daemon().directory());
        const std::string other = daemon().directory() + "/content";
        const Fd file(open(other.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
        ASSERT_EQ(write_to(file.get(), content), static_cast<long>(content.size()));
        if (command.ends_with("/dev/stdin"))
            command.replace(command.rfind("/dev/stdin"), 10, other);
        else
            command += " < " + other;
        EXPECT_EQ(shell(command), 0) << command;
    }
}

TEST_F(Payloads, AreMappedSharedAndPrivately) {
    const std::string content = text_of(2 * kMiB + 5);
    put(content);
    Fd reader;
    const std::string path = receive(reader);
    const Fd file = open_file(path, O_RDONLY);
    const std::size_t size = content.size();
    void* shared = mmap(nullptr, size, PROT_READ, MAP_SHARED, file.get(), 0);
    ASSERT_NE(shared, MAP_FAILED) << strerror(errno);
    EXPECT_EQ(std::memcmp(shared, content.data(), size), 0);
    EXPECT_EQ(mprotect(shared, size, PROT_READ | PROT_WRITE), -1);
    EXPECT_EQ(errno, EACCES);
    EXPECT_EQ(mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0), MAP_FAILED);
    EXPECT_EQ(errno, EACCES);
    // What is written to a private mapping is seen nowhere else.
    void* own = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, file.get(), 0);
    ASSERT_NE(own, MAP_FAILED) << strerror(errno);
    std::memset(own, '!', size);
    EXPECT_EQ(std::memcmp(shared, content.data(), size), 0);
    EXPECT_TRUE(slurp(path) == content);
    munmap(own, size);
    // Another process sees the same, at once with this one and with plain reads.
    EXPECT_EQ(Child([&](std::string&) {
                  const Fd again = open_file(path, O_RDONLY);
                  void* at = mmap(nullptr, size, PROT_READ, MAP_SHARED, again.get(), 0);
                  if (at == MAP_FAILED) return errno;
                  return std::memcmp(at, content.data(), size) == 0 && slurp(path) == content ? 0
                                                                                              : 1;
              }).wait(),
              0);
    EXPECT_EQ(counted("payload", "held", "count") + counted("payload", "open", "count") +
                  counted("payload", "mapped", "count") + counted("payload", "queued", "count"),
              1);
    munmap(shared, size);
}

TEST_F(Payloads, AreWritableForNobodyInAnyWay) {
    const std::string content = text_of(kMiB);
    put(content);
    Fd reader;
    const std::string path = receive(reader);
    // As root, which no mode stops.
    for (const int flags :
         {O_WRONLY, O_RDWR, O_RDONLY | O_TRUNC, O_WRONLY | O_TRUNC, O_RDWR | O_APPEND})
        EXPECT_EQ(open_error(path, flags), EROFS) << flags;
    EXPECT_EQ(truncate(path.c_str(), 0), -1);
    EXPECT_EQ(errno, EROFS);
    struct stat about {};
    EXPECT_EQ(chmod(path.c_str(), 0666), 0);  // rights to write are passed over
    EXPECT_EQ(stat(path.c_str(), &about), 0);
    EXPECT_EQ(about.st_mode & 0777, 0444u);
    EXPECT_EQ(chmod(path.c_str(), 0600), -1);
    EXPECT_EQ(errno, EPERM);
    EXPECT_EQ(unlink(path.c_str()), -1);
    EXPECT_EQ(open_error(at("jobs/payload/new"), O_WRONLY | O_CREAT), EPERM);
    const Fd file = open_file(path, O_RDONLY);
    ASSERT_TRUE(file);
    for (const int flags : {O_RDWR, O_WRONLY})
        EXPECT_EQ(open_error("/proc/self/fd/" + std::to_string(file.get()), flags), EROFS);
    EXPECT_NE(fallocate(file.get(), 0, 0, 2 * kMiB), 0);
    EXPECT_NE(ftruncate(file.get(), 0), 0);
    EXPECT_EQ(pwrite(file.get(), "X", 1, 0), -1);
    // As another user.
    ASSERT_EQ(chmod(at("jobs/queue").c_str(), 0666), 0);
    EXPECT_EQ(Child(Child::As{kFriend, -1}, [&](std::string&) { return open_error(path, O_RDWR); })
                  .wait(),
              EACCES);
    EXPECT_TRUE(slurp(path) == content);
}

TEST_F(Payloads, AreForThoseWhoMayReadTheQueue) {
    put(text_of(kMiB));
    Fd reader;
    const std::string path = receive(reader);
    const auto opens = [&](uid_t uid) {
        return Child(Child::As{uid, -1}, [&](std::string&) { return open_error(path, O_RDONLY); })
            .wait();
    };
    const auto lists = [&](uid_t uid) {
        return Child(Child::As{uid, -1},
                     [&](std::string&) { return open_error(at("jobs/payload"), O_RDONLY); })
            .wait();
    };
    ASSERT_EQ(chmod(at("jobs/queue").c_str(), 0600), 0);
    EXPECT_EQ(opens(kFriend), EACCES);
    EXPECT_EQ(lists(kFriend), EACCES);
    ASSERT_EQ(shell("setfacl -m u:" + std::to_string(kFriend) + ":r " + at("jobs/queue")), 0);
    EXPECT_EQ(opens(kFriend), 0);
    EXPECT_EQ(lists(kFriend), 0);
    EXPECT_EQ(opens(kStranger), EACCES);
    ASSERT_EQ(shell("setfacl -b " + at("jobs/queue")), 0);
    EXPECT_EQ(opens(kFriend), EACCES) << "the kernel has kept the old rights";
    ASSERT_EQ(chmod(at("jobs/queue").c_str(), 0644), 0);
    EXPECT_EQ(opens(kStranger), 0);
    ASSERT_EQ(chmod(at("jobs/queue").c_str(), 0200), 0);  // to send is not to receive
    EXPECT_EQ(opens(kStranger), EACCES);
}

TEST_F(Payloads, LiveAsLongAsSomebodyHasThem) {
    const std::string content = text_of(4 * kMiB);
    put(content);
    EXPECT_EQ(counted("payload", "queued", "bytes"), static_cast<long>(content.size()));
    Fd reader;
    const std::string path = receive(reader);
    Fd file = open_file(path, O_RDONLY);
    ASSERT_TRUE(file);
    reader.reset();
    EXPECT_EQ(counted("payload", "queued", "count"), 0);
    EXPECT_EQ(open_error(path, O_RDONLY), 0) << "somebody has it open";
    std::string buffer(content.size(), '#');
    EXPECT_EQ(pread(file.get(), buffer.data(), buffer.size(), 0),
              static_cast<ssize_t>(content.size()));
    EXPECT_TRUE(buffer == content);
    void* view = mmap(nullptr, content.size(), PROT_READ, MAP_SHARED, file.get(), 0);
    ASSERT_NE(view, MAP_FAILED) << strerror(errno);
    file.reset();
    EXPECT_EQ(std::memcmp(view, content.data(), content.size()), 0);
    ASSERT_EQ(rmdir(at("jobs").c_str()), 0);
    EXPECT_EQ(std::memcmp(view, content.data(), content.size()), 0);
    munmap(view, content.size());
    EXPECT_TRUE(wait_until([&] {
        return counted("payload", "held", "count") + counted("payload", "open", "count") +
                   counted("payload", "mapped", "count") ==
               0;
    })) << slurp(at("kern/ipc/stats/mappings"));
    EXPECT_EQ(open_error(path, O_RDONLY), ENOENT);
}

TEST_F(Payloads, MapWithNothingButThePythonLibrary) {
    const std::string content = text_of(2 * kMiB);
    put(content);
    Fd reader;
    const std::string path = receive(reader);
    std::string out;
    ASSERT_EQ(shell("python3 -S -E -c 'import mmap\n"
                    "f = open(\"" +
                        path +
                        "\", \"rb\")\n"
                        "m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)\n"
                        "print(len(m), m[:10].decode(), m[-10:].decode(), end=\"\")'",
                    &out),
              0);
    EXPECT_EQ(out, std::to_string(content.size()) + " " + content.substr(0, 10) + " " +
                       content.substr(content.size() - 10));
}

}  // namespace
}  // namespace ipcfs::test
