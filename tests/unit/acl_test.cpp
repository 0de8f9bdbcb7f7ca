#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <fcntl.h>
#include <initializer_list>
#include <random>
#include <stdlib.h>
#include <string>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <tuple>
#include <unistd.h>
#include <vector>

#include <gtest/gtest.h>

#include <access/acl.hpp>

namespace ipcfs::access {
namespace {

using Bytes = std::vector<std::byte>;
using Entry = std::tuple<unsigned, unsigned, std::uint32_t>;  // tag, permissions, id

constexpr std::uint32_t kNone = 0xffffffff;
constexpr unsigned kUserObj = 1, kUser = 2, kGroupObj = 4, kGroup = 8, kMask = 16, kOther = 32;

Bytes raw(const std::vector<Entry>& entries, unsigned version = 2) {
    Bytes out;
    const auto put = [&](std::uint32_t value, int size) {
        for (int i = 0; i < size; ++i)
            out.push_back(static_cast<std::byte>(value >> (8 * i) & 255));
    };
    put(version, 4);
    for (const auto& [tag, permissions, id] : entries) {
        put(tag, 2);
        put(permissions, 2);
        put(id, 4);
    }
    return out;
}

// 0 if it parses, else the errno.
int error_of(const std::vector<Entry>& entries, unsigned version = 2) {
    const auto acl = parse_acl(raw(entries, version));
    return acl ? 0 : acl.error().code;
}

// user::rw- user:1001:r-- group::r-- group:50:rw- mask::rw- other::---
Acl some_acl() {
    Acl acl;
    acl.owner = 6;
    acl.users = {{1001, 4}};
    acl.group = 4;
    acl.groups = {{50, 6}};
    acl.mask = 6;
    acl.other = 0;
    return acl;
}

TEST(Acl, HasTheKernelsBytes) {
    // As `setfacl -m u:1001:r` leaves it in system.posix_acl_access of a file of mode 0640.
    const Bytes kernel = raw({{kUserObj, 6, kNone},
                              {kUser, 4, 1001},
                              {kGroupObj, 4, kNone},
                              {kMask, 4, kNone},
                              {kOther, 0, kNone}});
    ASSERT_EQ(kernel.size(), 44U);
    const auto acl = parse_acl(kernel);
    ASSERT_TRUE(acl);
    EXPECT_EQ(acl->users, (std::vector<Acl::Named>{{1001, 4}}));
    EXPECT_EQ(mode_of(*acl), 0640U);
    EXPECT_EQ(serialize(*acl), kernel);
}

TEST(Acl, ComesBackAsItWent) {
    const auto back = parse_acl(serialize(some_acl()));
    ASSERT_TRUE(back);
    EXPECT_EQ(*back, some_acl());
}

TEST(Acl, IsRefusedWithoutOwnerGroupOrOther) {
    EXPECT_EQ(error_of({{kUserObj, 6, kNone}, {kGroupObj, 4, kNone}, {kOther, 0, kNone}}), 0);
    EXPECT_EQ(error_of({{kGroupObj, 4, kNone}, {kOther, 0, kNone}}), EINVAL);
    EXPECT_EQ(error_of({{kUserObj, 4, kNone}, {kOther, 0, kNone}}), EINVAL);
    EXPECT_EQ(error_of({{kUserObj, 4, kNone}, {kGroupObj, 0, kNone}}), EINVAL);
    EXPECT_EQ(error_of({}), EINVAL);
}

TEST(Acl, IsRefusedOutOfOrderOrRepeated) {
    EXPECT_EQ(error_of({{kGroupObj, 4, kNone}, {kUserObj, 6, kNone}, {kOther, 0, kNone}}), EINVAL);
    EXPECT_EQ(error_of({{kUserObj, 6, kNone},
                        {kUserObj, 6, kNone},
                        {kGroupObj, 4, kNone},
                        {kOther, 0, kNone}}),
              EINVAL);
    EXPECT_EQ(error_of({{kUserObj, 6, kNone},
                        {kGroupObj, 4, kNone},
                        {kUser, 4, 1001},
                        {kMask, 6, kNone},
                        {kOther, 0, kNone}}),
              EINVAL);
    EXPECT_EQ(error_of({{kUserObj, 6, kNone},
                        {kGroupObj, 4, kNone},
                        {kMask, 6, kNone},
                        {kMask, 6, kNone},
                        {kOther, 0, kNone}}),
              EINVAL);
    EXPECT_EQ(
        error_of(
            {{kUserObj, 6, kNone}, {kGroupObj, 4, kNone}, {kOther, 0, kNone}, {kOther, 0, kNone}}),
        EINVAL);
}

TEST(Acl, NeedsAMaskWhenSomebodyIsNamed) {
    EXPECT_EQ(
        error_of(
            {{kUserObj, 6, kNone}, {kUser, 4, 1001}, {kGroupObj, 4, kNone}, {kOther, 0, kNone}}),
        EINVAL);
    EXPECT_EQ(
        error_of(
            {{kUserObj, 6, kNone}, {kGroupObj, 4, kNone}, {kGroup, 4, 1001}, {kOther, 0, kNone}}),
        EINVAL);
    EXPECT_EQ(
        error_of(
            {{kUserObj, 6, kNone}, {kGroupObj, 4, kNone}, {kMask, 4, kNone}, {kOther, 0, kNone}}),
        0);
}

TEST(Acl, NamesNobodyTwiceThoughAUserAndAGroupMayShareANumber) {
    const auto named = [](unsigned second, std::uint32_t id) {
        std::vector<Entry> entries{{kUserObj, 6, kNone},
                                   {kUser, 4, 7},
                                   {kGroupObj, 4, kNone},
                                   {kMask, 4, kNone},
                                   {kOther, 0, kNone}};
        entries.insert(entries.begin() + (second == kUser ? 2 : 3), Entry{second, 4, id});
        return error_of(entries);
    };
    EXPECT_EQ(named(kUser, 7), EINVAL);
    EXPECT_EQ(named(kUser, 6), 0);  // need not ascend
    EXPECT_EQ(named(kGroup, 7), 0);
    EXPECT_EQ(named(kUser, kNone), EINVAL);
    EXPECT_EQ(named(kGroup, kNone), EINVAL);
}

TEST(Acl, IsRefusedWithUnknownTagsPermissionsOrVersion) {
    const auto with = [](unsigned tag, unsigned permissions, unsigned version = 2) {
        return error_of({{kUserObj, permissions, kNone}, {kGroupObj, 4, kNone}, {tag, 0, kNone}},
                        version);
    };
    EXPECT_EQ(with(kOther, 7), 0);
    EXPECT_EQ(with(64, 7), EINVAL);
    EXPECT_EQ(with(0, 7), EINVAL);
    EXPECT_EQ(with(kOther, 8), EINVAL);
    EXPECT_EQ(with(kOther, 0x104), EINVAL);
    EXPECT_EQ(with(kOther, 7, 1), EINVAL);
    EXPECT_EQ(with(kOther, 7, 3), EINVAL);
}

TEST(Acl, IgnoresTheIdsOfUnnamedEntries) {
    const auto acl = parse_acl(raw({{kUserObj, 6, 0}, {kGroupObj, 4, 5}, {kOther, 0, 77}}));
    ASSERT_TRUE(acl);
    EXPECT_EQ(*acl, acl_of(0640));
}

TEST(Acl, IsRefusedAtEveryCutShorterThanItself) {
    const Bytes whole = serialize(some_acl());
    for (std::size_t length = 0; length < whole.size(); ++length)
        EXPECT_FALSE(parse_acl(std::span<const std::byte>(whole).first(length))) << length;
    Bytes longer = whole;
    longer.push_back(std::byte{0});
    EXPECT_FALSE(parse_acl(longer));
}

TEST(Acl, HoldsAtMostTwoHundredFiftySixEntries) {
    Acl acl = some_acl();
    while (acl.users.size() + acl.groups.size() + 4 < kMaxAclEntries)
        acl.users.push_back({static_cast<std::uint32_t>(2000 + acl.users.size()), 4});
    ASSERT_EQ(serialize(acl).size(), 4 + 8 * kMaxAclEntries);
    EXPECT_TRUE(parse_acl(serialize(acl)));
    acl.users.push_back({1, 4});
    EXPECT_FALSE(parse_acl(serialize(acl)));
}

TEST(Acl, SurvivesRandomBytes) {
    const std::uint64_t seed = std::random_device{}();
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937_64 random(seed);
    const Bytes whole = serialize(some_acl());
    int accepted = 0;
    for (int round = 0; round < 20000; ++round) {
        Bytes bad = whole;
        for (int flips = 1 + static_cast<int>(random() % 3); flips > 0; --flips)
            bad[random() % bad.size()] = static_cast<std::byte>(random() % 9);
        const auto acl = parse_acl(bad);
        if (!acl) continue;
        ++accepted;
        const auto again = parse_acl(serialize(*acl));
        ASSERT_TRUE(again);
        ASSERT_EQ(*again, *acl);
    }
    EXPECT_GT(accepted, 0);
}

TEST(Acl, SaysTheSameAsAModeAndBack) {
    for (mode_t mode = 0; mode <= 0777; ++mode) {
        EXPECT_EQ(mode_of(acl_of(mode)), mode);
        EXPECT_TRUE(is_minimal(acl_of(mode)));
        EXPECT_TRUE(parse_acl(serialize(acl_of(mode))));
    }
    EXPECT_EQ(acl_of(04755), acl_of(0755));
}

TEST(Acl, ShowsItsMaskAsTheGroupsBits) {
    EXPECT_EQ(mode_of(some_acl()), 0660U);
    EXPECT_FALSE(is_minimal(some_acl()));
}

TEST(Acl, WithAMaskAloneIsNotMinimal) {
    Acl acl = acl_of(0640);
    acl.mask = 4;
    EXPECT_FALSE(is_minimal(acl));
}

TEST(Acl, ChmodChangesTheMaskAndLeavesTheNamed) {
    const Acl changed = with_mode(some_acl(), 0741);
    EXPECT_EQ(changed.owner, 7);
    EXPECT_EQ(changed.mask, 4);
    EXPECT_EQ(changed.group, 4);
    EXPECT_EQ(changed.groups, some_acl().groups);
    EXPECT_EQ(changed.users, some_acl().users);
    EXPECT_EQ(changed.other, 1);
    EXPECT_EQ(mode_of(changed), 0741U);
}

TEST(Acl, ChmodChangesTheGroupWithoutAMask) {
    EXPECT_EQ(with_mode(acl_of(0777), 0640), acl_of(0640));
}

TEST(Acl, IsInheritedBoundedByTheModeOfCreation) {
    // acl(5): a default ACL replaces the umask; the mode given bounds owner, mask and other.
    const auto [access, mode] = inherit(some_acl(), 0666);
    EXPECT_EQ(mode, 0660U);
    EXPECT_EQ(access, some_acl());
    const auto [less, less_mode] = inherit(some_acl(), 0444);
    EXPECT_EQ(less_mode, 0440U);
    EXPECT_EQ(less.owner, 4);
    EXPECT_EQ(less.mask, 4);
    EXPECT_EQ(less.group, 4);
    EXPECT_EQ(less.groups, some_acl().groups);
    EXPECT_EQ(less.other, 0);
}

TEST(Acl, InheritedWithoutAMaskIsAPlainMode) {
    const auto [access, mode] = inherit(acl_of(0750), 0666);
    EXPECT_EQ(mode, 0640U);
    EXPECT_EQ(access, acl_of(0640));
    EXPECT_TRUE(is_minimal(access));
}

TEST(Acl, InheritingKeepsTypeAndStickyBits) {
    EXPECT_EQ(inherit(acl_of(0700), 0041777).mode, 0041700U);
    EXPECT_EQ(inherit(acl_of(0777), 02755).mode, 02755U);
}

Bytes attribute(const std::string& path, const char* name) {
    Bytes value(4096);
    const ssize_t size = ::getxattr(path.c_str(), name, value.data(), value.size());
    value.resize(size < 0 ? 0 : static_cast<std::size_t>(size));
    return value;
}

Bytes kept(const Acl& acl) {
    return is_minimal(acl) ? Bytes{} : serialize(acl);
}

// The oracle is the running kernel: its own ACLs on the file system of the temporary directory.
TEST(Acl, AgreesWithTheKernelOnCreationChmodAndWhatIsValid) {
    std::string root = testing::TempDir() + "ipcfs-acl-XXXXXX";
    ASSERT_NE(::mkdtemp(root.data()), nullptr);
    const std::string file = root + "/file";
    const std::uint64_t seed = std::random_device{}();
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937_64 random(seed);
    const auto three_bits = [&] { return static_cast<std::uint8_t>(random() % 8); };
    bool supported = true;
    for (int round = 0; round < 500 && supported && !testing::Test::HasFailure(); ++round) {
        Acl defaults = acl_of(static_cast<mode_t>(random() % 01000));
        if (random() % 4 != 0) {
            defaults.mask = three_bits();
            for (std::uint32_t id = 0; id < random() % 3; ++id)
                defaults.users.push_back({1000 + id, three_bits()});
            for (std::uint32_t id = 0; id < random() % 3; ++id)
                defaults.groups.push_back({1000 + id, three_bits()});
        }
        Bytes bytes = serialize(defaults);
        if (::setxattr(root.c_str(), "system.posix_acl_default", bytes.data(), bytes.size(), 0) !=
            0) {
            supported = errno != EOPNOTSUPP;
            EXPECT_FALSE(supported) << "the kernel refuses a default ACL";
            break;
        }
        const auto created_with = static_cast<mode_t>(random() % 01000);
        const int fd = ::open(file.c_str(), O_CREAT | O_EXCL | O_RDONLY | O_CLOEXEC, created_with);
        ASSERT_GE(fd, 0);
        ::close(fd);
        const auto [access, mode] = inherit(defaults, created_with);
        struct stat status {};
        EXPECT_EQ(::stat(file.c_str(), &status), 0);
        EXPECT_EQ(status.st_mode & 0777, mode);
        EXPECT_EQ(mode_of(access), mode);
        EXPECT_EQ(attribute(file, "system.posix_acl_access"), kept(access));

        const auto changed_to = static_cast<mode_t>(random() % 01000);
        EXPECT_EQ(::chmod(file.c_str(), changed_to), 0);
        EXPECT_EQ(attribute(file, "system.posix_acl_access"), kept(with_mode(access, changed_to)));

        for (std::uint64_t spoiled = random() % 3; spoiled > 0; --spoiled)
            bytes[random() % bytes.size()] = static_cast<std::byte>(random() % 40);
        const bool taken =
            ::setxattr(file.c_str(), "system.posix_acl_access", bytes.data(), bytes.size(), 0) == 0;
        const auto parsed = parse_acl(bytes);
        // The kernel lets an id be named twice; we do not.
        EXPECT_TRUE(taken || !parsed) << "we accept what the kernel refuses";
        if (taken && parsed) {
            EXPECT_EQ(::stat(file.c_str(), &status), 0);
            EXPECT_EQ(status.st_mode & 0777, mode_of(*parsed));
        }
        ::unlink(file.c_str());
    }
    ::unlink(file.c_str());
    ::rmdir(root.c_str());
    if (!supported) GTEST_SKIP() << "no ACLs on the file system of " << root;
}

}  // namespace
}  // namespace ipcfs::access
