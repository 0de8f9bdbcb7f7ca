// Memory that is mapped through the tree with plain system calls: payloads and the regions of share/,
// by several processes and users, and what becomes of mappings when somebody dies or takes it away.
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "child.hpp"
#include "daemon_fixture.hpp"
#include <ipcfs/frame.hpp>

namespace ipcfs::test {
namespace {

// A mapping of a file, unmapped at the end.
class View {
public:
    View(const std::string& path, int flags, std::size_t size, int protection)
        : file_(open_file(path, flags)), size_(size) {
        if (file_) map(protection);
    }
    View(const View&) = delete;
    View& operator=(const View&) = delete;
    ~View() {
        if (at_ != MAP_FAILED) munmap(at_, size_);
    }
    void close() { file_.reset(); }
    int file() const { return file_.get(); }
    explicit operator bool() const { return at_ != MAP_FAILED; }
    volatile char* data() const { return static_cast<volatile char*>(at_); }

private:
    void map(int protection) { at_ = mmap(nullptr, size_, protection, MAP_SHARED, file_.get(), 0); }
    Fd file_;
    std::size_t size_;
    void* at_ = MAP_FAILED;
};

std::string pattern(std::size_t size) {
    std::string text(size, '\0');
    for (std::size_t i = 0; i < size; ++i) text[i] = static_cast<char>('a' + i * 7 % 26);
    return text;
}

class Mapping : public MountedTest {
protected:
    // A region of that size with `content` in front, made by root.
    void make_region(const std::string& path, std::size_t size, std::string_view content = {},
                     mode_t mode = 0666) {
        Fd file(open(at(path).c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode));
        ASSERT_TRUE(file) << strerror(errno);
        ASSERT_EQ(fchmod(file.get(), mode), 0);
        ASSERT_EQ(ftruncate(file.get(), static_cast<off_t>(size)), 0) << strerror(errno);
        ASSERT_EQ(write_to(file.get(), content), static_cast<long>(content.size()));
    }
    // The path of a payload of `content`, which `reader` has received and holds.
    std::string receive_payload(const std::string& channel, const std::string& content,
                                Fd& reader) {
        Fd put = open_file(at(channel + "/put"), O_WRONLY);
        for (std::size_t done = 0; done < content.size();) {
            const long part = write_to(put.get(), std::string_view(content).substr(done, kMiB));
            if (part <= 0) return {};
            done += static_cast<std::size_t>(part);
        }
        put.reset();
        reader = open_file(at(channel + "/framed/queue"), O_RDONLY | O_NONBLOCK);
        const Read got = read_from(reader.get());
        FrameHeader header;
        if (got.data.size() < sizeof header) return {};
        std::memcpy(&header, got.data.data(), sizeof header);
        return at(channel + "/payload/" + std::to_string(header.payload_id));
    }
    long used(const std::string& resource, uid_t uid) {
        for (const Row& row : parse_table(slurp(at("kern/ipc/stats/resources")))) {
            if (row.at("scope") == "user" && row.at("resource") == resource &&
                row.at("id") == std::to_string(uid)) {
                return number(row.at("used"));
            }
        }
        return 0;
    }
};

TEST_F(Mapping, OfARegionIsSharedBetweenProcesses) {
    make_channel("a");
    make_region("a/share/r", kMiB);
    View ours(at("a/share/r"), O_RDWR, kMiB, PROT_READ | PROT_WRITE);
    ASSERT_TRUE(ours) << strerror(errno);
    ours.data()[0] = 'p';
    Child other([&](std::string&) {
        View theirs(at("a/share/r"), O_RDWR, kMiB, PROT_READ | PROT_WRITE);
        if (!theirs) return errno;
        if (theirs.data()[0] != 'p') return 200;
        theirs.data()[kMiB - 1] = 'c';
        return 0;
    });
    EXPECT_EQ(other.wait(), 0);
    EXPECT_EQ(ours.data()[kMiB - 1], 'c');
    EXPECT_EQ(read_from(ours.file(), 1).data, "p") << "read(2) sees what was stored";
}

TEST_F(Mapping, ModeAndAclsAreTheGrant) {
    make_channel("a");
    make_region("a/share/r", kMiB, "secret", 0600);
    auto as = [&](uid_t uid, int flags) {
        Child other({uid, -1}, [&](std::string&) { return open_error(at("a/share/r"), flags); });
        return other.wait();
    };
    EXPECT_EQ(as(1000, O_RDONLY), EACCES);
    ASSERT_EQ(chmod(at("a/share/r").c_str(), 0640), 0);
    EXPECT_EQ(as(1000, O_RDONLY), EACCES);
    ASSERT_EQ(shell("setfacl -m u:1000:r " + at("a/share/r")), 0);
    EXPECT_EQ(as(1000, O_RDONLY), 0);
    EXPECT_EQ(as(1000, O_RDWR), EACCES);
    EXPECT_EQ(as(1001, O_RDONLY), EACCES);
    Child reader({1000, -1}, [&](std::string&) {
        View view(at("a/share/r"), O_RDONLY, kMiB, PROT_READ);
        if (!view) return errno;
        if (view.data()[0] != 's') return 200;
        // Neither this mapping nor a new one becomes writable.
        if (mprotect(const_cast<char*>(view.data()), 4096, PROT_READ | PROT_WRITE) == 0) return 201;
        if (mmap(nullptr, 4096, PROT_WRITE, MAP_SHARED, view.file(), 0) != MAP_FAILED) return 202;
        return 0;
    });
    EXPECT_EQ(reader.wait(), 0);
}

TEST_F(Mapping, ARevokedRegionFaultsWhereItWasMappedAndIsThereAgainAsNewMemory) {
    make_channel("a");
    std::string content = pattern(5 * kMiB + 123);
    make_region("a/share/r", content.size());
    {
        Fd file = open_file(at("a/share/r"), O_RDWR);
        for (std::size_t done = 0; done < content.size(); done += kMiB) {
            const auto part = std::string_view(content).substr(done, kMiB);
            ASSERT_EQ(write_to(file.get(), part), static_cast<long>(part.size()));
        }
    }
    int go[2], ready[2];
    ASSERT_EQ(pipe2(go, O_CLOEXEC), 0);
    ASSERT_EQ(pipe2(ready, O_CLOEXEC), 0);
    Child holder([&](std::string&) {
        signal(SIGBUS, SIG_DFL);  // a sanitizer's handler would take it
        View view(at("a/share/r"), O_RDWR, 5 * kMiB, PROT_READ | PROT_WRITE);
        if (!view || view.data()[5] != content[5]) return 200;
        view.data()[7] = '!';
        char byte = 0;
        if (write(ready[1], "r", 1) != 1 || read(go[0], &byte, 1) != 1) return 201;
        // The descriptor is dead, too.
        if (read_from(view.file(), 16).result >= 0) return 202;
        return static_cast<int>(view.data()[5]);  // SIGBUS
    });
    char byte = 0;
    ASSERT_EQ(read(ready[0], &byte, 1), 1);
    ASSERT_EQ(ctl("a", "revoke share/r\n"), 0);
    ASSERT_EQ(write(go[1], "g", 1), 1);
    EXPECT_EQ(holder.wait(), 1000 + SIGBUS);
    Fd again = open_file(at("a/share/r"), O_RDONLY);
    ASSERT_TRUE(again);
    std::string now;
    for (Read part = read_from(again.get()); part.result > 0; part = read_from(again.get())) {
        now += part.data;
    }
    content[7] = '!';
    EXPECT_TRUE(now == content) << "the content moved, with what was stored in the mapping";
    EXPECT_EQ(ctl("a", "revoke share/none\n"), EINVAL);
    EXPECT_EQ(ctl("a", "capacity 7\nrevoke share/none\n"), EINVAL);
    EXPECT_EQ(value_of(slurp(at("a/ctl")), "capacity"), "1000") << "whole or not at all";
    close(go[0]), close(go[1]), close(ready[0]), close(ready[1]);
}

TEST_F(Mapping, UnlinkEndsTheNameOnly) {
    make_channel("a");
    make_region("a/share/r", kMiB, "still");
    EXPECT_EQ(rmdir(at("a").c_str()), -1);
    EXPECT_EQ(errno, ENOTEMPTY) << "a region is not lost by the way";
    View view(at("a/share/r"), O_RDWR, kMiB, PROT_READ | PROT_WRITE);
    ASSERT_TRUE(view);
    ASSERT_EQ(unlink(at("a/share/r").c_str()), 0);
    EXPECT_EQ(open_error(at("a/share/r"), O_RDONLY), ENOENT);
    EXPECT_EQ(view.data()[0], 's');
    struct stat about {};
    EXPECT_EQ(fstat(view.file(), &about), 0) << strerror(errno);
    EXPECT_EQ(rmdir(at("a").c_str()), 0);
    EXPECT_EQ(view.data()[4], 'l');
}

TEST_F(Mapping, ARegionCutShortFaultsBeyondItsEnd) {
    make_channel("a");
    make_region("a/share/r", 2 * kMiB);
    Child reader([&](std::string&) {
        signal(SIGBUS, SIG_DFL);
        View view(at("a/share/r"), O_RDWR, 2 * kMiB, PROT_READ | PROT_WRITE);
        if (!view) return 200;
        view.data()[0] = 'x';
        view.data()[kMiB] = 'x';
        if (ftruncate(view.file(), kMiB) != 0) return 201;
        if (view.data()[0] != 'x') return 202;
        return static_cast<int>(view.data()[kMiB]);
    });
    EXPECT_EQ(reader.wait(), 1000 + SIGBUS);
    struct stat about {};
    ASSERT_EQ(stat(at("a/share/r").c_str(), &about), 0);
    EXPECT_EQ(about.st_size, static_cast<off_t>(kMiB));
}

TEST_F(Mapping, RegionsAreRenamedListedAndRefusedElsewhere) {
    make_channel("a");
    make_region("a/share/one", kMiB, "1");
    ASSERT_EQ(rename(at("a/share/one").c_str(), at("a/share/two").c_str()), 0);
    std::string listing;
    EXPECT_EQ(shell("ls " + at("a/share"), &listing), 0);
    EXPECT_EQ(listing, "two\n");
    EXPECT_EQ(open(at("a/new").c_str(), O_RDWR | O_CREAT, 0666), -1);
    EXPECT_EQ(errno, EPERM);
    EXPECT_EQ(open(at("a/share/two").c_str(), O_RDWR | O_CREAT | O_EXCL, 0666), -1);
    EXPECT_EQ(errno, EEXIST);
    EXPECT_NE(rename(at("a/share/two").c_str(), at("a/three").c_str()), 0);
    EXPECT_EQ(unlink(at("a/queue").c_str()), -1);
    EXPECT_EQ(errno, EPERM);
    Fd cut = open_file(at("a/share/two"), O_RDWR | O_TRUNC);
    struct stat about {};
    ASSERT_EQ(fstat(cut.get(), &about), 0);
    EXPECT_EQ(about.st_size, 0);
}

TEST_F(Mapping, RegionsAreChargedToTheirOwnerAndBounded) {
    make_channel("a", "max-payload 4M");
    Child owner({1000, -1}, [&](std::string&) {
        Fd file(open(at("a/share/r").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
        if (!file) return errno;
        if (ftruncate(file.get(), 5 * kMiB) == 0 || errno != EFBIG) return 200;
        if (ftruncate(file.get(), 3 * kMiB) != 0) return errno;
        return pwrite(file.get(), "x", 1, 4 * kMiB) == -1 ? errno : 0;
    });
    EXPECT_EQ(owner.wait(), EFBIG);
    EXPECT_EQ(used("payload_bytes", 1000), static_cast<long>(3 * kMiB));
    ASSERT_EQ(unlink(at("a/share/r").c_str()), 0);
    EXPECT_TRUE(wait_until([&] { return used("payload_bytes", 1000) == 0; }));
}

TEST_F(Mapping, OfAPayloadStaysValidWhenTheDaemonIsKilled) {
    make_channel("a");
    const std::string content = pattern(3 * kMiB);
    Fd reader;
    const std::string path = receive_payload("a", content, reader);
    ASSERT_FALSE(path.empty());
    make_region("a/share/r", kMiB, "region");
    View payload(path, O_RDONLY, content.size(), PROT_READ);
    View region(at("a/share/r"), O_RDWR, kMiB, PROT_READ | PROT_WRITE);
    ASSERT_TRUE(payload);
    ASSERT_TRUE(region);
    // Without passthrough, pages that were never touched went with the daemon.
    std::size_t sum = 0;
    for (std::size_t at = 0; at < content.size(); at += 4096) {
        sum += static_cast<unsigned char>(payload.data()[at]);
    }
    EXPECT_GT(sum, 0U);
    EXPECT_EQ(region.data()[0], 'r');
    kill_daemon();
    for (std::size_t at = 0; at < content.size(); at += 4096) {
        ASSERT_EQ(payload.data()[at], content[at]);
    }
    EXPECT_EQ(region.data()[0], 'r');
}

TEST_F(Mapping, KeepsAPayloadAliveAndChargedUntilItIsUnmapped) {
    make_channel("a");
    Fd reader;
    const std::string path = receive_payload("a", pattern(2 * kMiB), reader);
    ASSERT_FALSE(path.empty());
    {
        View view(path, O_RDONLY, 2 * kMiB, PROT_READ);
        ASSERT_TRUE(view);
        view.close();
        reader.reset();  // nothing but the mapping is left
        EXPECT_EQ(view.data()[kMiB], pattern(kMiB + 1)[kMiB]);
        EXPECT_EQ(used("payload_bytes", 0), static_cast<long>(2 * kMiB));
    }
    EXPECT_TRUE(wait_until([&] { return used("payload_bytes", 0) == 0; }));
    EXPECT_EQ(open_error(path, O_RDONLY), ENOENT);
}

TEST_F(Mapping, OfAPayloadIsNeverWritableForAnybody) {
    make_channel("a");
    const std::string content = pattern(kMiB);
    Fd reader;
    const std::string path = receive_payload("a", content, reader);
    ASSERT_FALSE(path.empty());
    for (uid_t uid : {0U, 1000U}) {
        Child thief({uid, -1}, [&](std::string&) {
            for (int flags : {O_WRONLY, O_RDWR, O_RDWR | O_TRUNC, O_WRONLY | O_APPEND}) {
                const int error = open_error(path, flags);
                if (error != EROFS && error != EACCES) return 200;
            }
            View view(path, O_RDONLY, kMiB, PROT_READ);
            if (!view) return 201;
            if (mprotect(const_cast<char*>(view.data()), kMiB, PROT_READ | PROT_WRITE) == 0)
                return 202;
            if (mmap(nullptr, kMiB, PROT_WRITE, MAP_SHARED, view.file(), 0) != MAP_FAILED)
                return 203;
            const std::string again = "/proc/self/fd/" + std::to_string(view.file());
            if (open_error(again, O_RDWR) == 0) return 204;
            if (pwrite(view.file(), "x", 1, 0) >= 0) return 205;
            if (ftruncate(view.file(), 0) == 0 || truncate(path.c_str(), 0) == 0) return 206;
            struct stat about {};
            (void)chmod(path.c_str(), 0666);  // may be taken as what it is already
            if (stat(path.c_str(), &about) != 0 || (about.st_mode & 0222)) return 207;
            // A private view is the reader's own.
            void* own = mmap(nullptr, kMiB, PROT_READ | PROT_WRITE, MAP_PRIVATE, view.file(), 0);
            if (own == MAP_FAILED) return 208;
            static_cast<char*>(own)[0] = '!';
            return view.data()[0] == content[0] ? 0 : 209;
        });
        EXPECT_EQ(thief.wait(), 0) << "uid " << uid;
    }
}

}  // namespace
}  // namespace ipcfs::test
