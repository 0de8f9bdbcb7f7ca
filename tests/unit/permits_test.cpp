// access::permits against what the kernel says of the same file: random owners, modes, ACLs and users.
#include <cerrno>
#include <fcntl.h>
#include <functional>
#include <grp.h>
#include <random>
#include <stdlib.h>
#include <string>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include <gtest/gtest.h>

#include <access/guard.hpp>

namespace ipcfs::access {
namespace {

constexpr unsigned kRead = 4, kWrite = 2, kExecute = 1;

TEST(Permits, GivesTheOwnerTheOwnersBitsAndNoOthers) {
    EXPECT_TRUE(permits(0400, 7, 8, nullptr, 7, 8, {}, kRead));
    EXPECT_FALSE(permits(0077, 7, 8, nullptr, 7, 8, {}, kRead));
}

TEST(Permits, GivesTheGroupTheGroupsBitsEvenIfOthersHaveMore) {
    const gid_t supplementary[] = {90, 8};
    EXPECT_FALSE(permits(0707, 7, 8, nullptr, 1, 8, {}, kRead));
    EXPECT_FALSE(permits(0707, 7, 8, nullptr, 1, 9, supplementary, kRead));
    EXPECT_TRUE(permits(0707, 7, 8, nullptr, 1, 9, {}, kRead | kWrite));
}

TEST(Permits, WantsAllOfItFromOneEntry) {
    Acl acl = acl_of(0700);
    acl.groups = {{50, 4}, {51, 2}};
    acl.mask = 7;
    const gid_t both[] = {50, 51};
    EXPECT_TRUE(permits(mode_of(acl), 7, 8, &acl, 1, 1, both, kRead));
    EXPECT_TRUE(permits(mode_of(acl), 7, 8, &acl, 1, 1, both, kWrite));
    EXPECT_FALSE(permits(mode_of(acl), 7, 8, &acl, 1, 1, both, kRead | kWrite));
}

TEST(Permits, LetsTheMaskBoundWhoIsNamed) {
    Acl acl = acl_of(0700);
    acl.users = {{1001, 6}};
    acl.mask = 4;
    EXPECT_TRUE(permits(mode_of(acl), 7, 8, &acl, 1001, 1, {}, kRead));
    EXPECT_FALSE(permits(mode_of(acl), 7, 8, &acl, 1001, 1, {}, kWrite));
}

TEST(Permits, LetsRootDoAllButExecuteWhatNobodyMay) {
    EXPECT_TRUE(permits(S_IFREG, 7, 8, nullptr, 0, 0, {}, kRead | kWrite));
    EXPECT_FALSE(permits(S_IFREG | 0666, 7, 8, nullptr, 0, 0, {}, kExecute));
    EXPECT_TRUE(permits(S_IFREG | 0610, 7, 8, nullptr, 0, 0, {}, kExecute));
    EXPECT_TRUE(permits(S_IFDIR, 7, 8, nullptr, 0, 0, {}, kExecute));
}

// What faccessat2(2) says to the calling thread.
bool kernel_permits(const std::string& path, unsigned want) {
    return ::syscall(SYS_faccessat2, AT_FDCWD, path.c_str(), static_cast<int>(want), AT_EACCESS) ==
           0;
}

struct User {
    uid_t uid;
    gid_t gid;
    std::vector<gid_t> groups;
};

// On a thread of its own, whose user and groups are its alone: the kernel keeps them by thread.
void as_user(const User& user, const std::function<void()>& body) {
    std::thread thread([&] {
        ::syscall(SYS_setgroups, user.groups.size(), user.groups.data());
        ::setfsgid(user.gid);
        ::setfsuid(user.uid);
        body();
    });
    thread.join();
}

TEST(Permits, AgreesWithTheKernel) {
    if (::geteuid() != 0) GTEST_SKIP() << "only root can be other users";
    std::string root = testing::TempDir() + "ipcfs-permits-XXXXXX";
    ASSERT_NE(::mkdtemp(root.data()), nullptr);
    ASSERT_EQ(::chmod(root.c_str(), 0755), 0);
    const std::string file = root + "/file", directory = root + "/directory";
    ASSERT_EQ(::close(::open(file.c_str(), O_CREAT | O_CLOEXEC, 0600)), 0);
    ASSERT_EQ(::mkdir(directory.c_str(), 0700), 0);
    const std::uint64_t seed = std::random_device{}();
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937_64 random(seed);
    // Few ids, so that they meet.
    const auto id = [&] { return static_cast<std::uint32_t>(random() % 4); };
    const auto three_bits = [&] { return static_cast<std::uint8_t>(random() % 8); };
    bool supported = true;
    for (int round = 0; round < 300 && supported && !HasFailure(); ++round) {
        const bool is_directory = random() % 4 == 0;
        const std::string& path = is_directory ? directory : file;
        const uid_t owner = id();
        const gid_t group = id();
        Acl acl = acl_of(static_cast<mode_t>(random() % 01000));
        const bool extended = random() % 4 != 0;
        if (extended) {
            acl.mask = three_bits();
            for (std::uint32_t each = 0; each < 4; ++each) {
                if (random() % 3 == 0) acl.users.push_back({each, three_bits()});
                if (random() % 3 == 0) acl.groups.push_back({each, three_bits()});
            }
        }
        ASSERT_EQ(::chown(path.c_str(), owner, group), 0);
        const auto bytes = serialize(acl);
        if (::setxattr(path.c_str(), std::string(kAccessAcl).c_str(), bytes.data(), bytes.size(),
                       0) != 0) {
            supported = false;
            EXPECT_EQ(errno, EOPNOTSUPP);
            break;
        }
        const mode_t mode = (is_directory ? S_IFDIR : S_IFREG) | mode_of(acl);
        for (int users = 0; users < 6; ++users) {
            User user{id(), id(), {}};
            for (std::uint64_t more = random() % 3; more > 0; --more) user.groups.push_back(id());
            as_user(user, [&] {
                for (unsigned want = 1; want < 8; ++want) {
                    EXPECT_EQ(permits(mode, owner, group, extended ? &acl : nullptr, user.uid,
                                      user.gid, user.groups, want),
                              kernel_permits(path, want))
                        << "want " << want << " mode " << std::oct << mode << std::dec << " owner "
                        << owner << " group " << group << " uid " << user.uid << " gid " << user.gid
                        << " round " << round;
                }
            });
        }
    }
    ::unlink(file.c_str());
    ::rmdir(directory.c_str());
    ::rmdir(root.c_str());
    if (!supported) GTEST_SKIP() << "no ACLs on the file system of " << root;
}

}  // namespace
}  // namespace ipcfs::access
