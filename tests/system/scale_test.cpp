// Ten thousand channels, and a tree that changes while it is read.
#include <dirent.h>
#include <fcntl.h>
#include <map>
#include <set>
#include <sys/stat.h>
#include <unistd.h>

#include "child.hpp"
#include "daemon_fixture.hpp"

namespace ipcfs::test {
namespace {

std::vector<std::string> list(const std::string& path) {
    std::vector<std::string> names;
    DIR* listing = opendir(path.c_str());
    if (listing == nullptr) return names;
    while (const dirent* entry = readdir(listing)) names.emplace_back(entry->d_name);
    closedir(listing);
    return names;
}

using Scale = MountedTest;

TEST_F(Scale, TenThousandChannelsAreMadeListedUsedAndRemoved) {
    constexpr int kChannels = 10000;
    const auto name = [](int i) { return "many/c" + std::to_string(i); };
    make_channel("many");
    for (int i = 0; i < kChannels; ++i) {
        ASSERT_EQ(mkdir(at(name(i)).c_str(), 0755), 0) << i << ": " << strerror(errno);
    }
    const auto names = list(at("many"));
    const std::set<std::string> listed(names.begin(), names.end());
    EXPECT_EQ(listed.size(), names.size()) << "listed twice";
    int found = 0;
    for (int i = 0; i < kChannels; ++i) found += listed.contains(name(i).substr(5)) ? 1 : 0;
    EXPECT_EQ(found, kChannels);
    struct stat about {};
    for (int i = 0; i < kChannels; ++i) {
        ASSERT_EQ(stat(at(name(i)).c_str(), &about), 0) << i;
        ASSERT_TRUE(S_ISDIR(about.st_mode));
    }
    for (int i = 0; i < kChannels; i += 97) {
        ASSERT_EQ(send(name(i), name(i)), 0);
    }
    for (int i = 0; i < kChannels; i += 97) {
        ASSERT_EQ(drain(name(i)), std::vector<std::string>{name(i)});
    }
    const auto rows = parse_table(slurp(at("kern/ipc/stats/channels")));
    EXPECT_EQ(rows.size(), static_cast<std::size_t>(kChannels) + 1);
    for (int i = 0; i < kChannels; ++i) {
        ASSERT_EQ(rmdir(at(name(i)).c_str()), 0) << i << ": " << strerror(errno);
    }
    for (const auto& left : list(at("many"))) EXPECT_FALSE(left.starts_with("c1")) << left;
    EXPECT_EQ(rmdir(at("many").c_str()), 0);
}

TEST_F(Scale, AListingThatRacesWithChangesShowsWhatStaysExactlyOnce) {
    for (int i = 0; i < 300; ++i) make_channel("stays" + std::to_string(i));
    const std::string root = daemon().mount();
    Child churner([root](std::string&) {
        for (int i = 0;; i = (i + 1) % 500) {
            const std::string path = root + "/comes" + std::to_string(i);
            if (mkdir(path.c_str(), 0755) != 0 && rmdir(path.c_str()) != 0) return 1;
        }
    });
    ASSERT_TRUE(wait_until([&] { return access((root + "/comes100").c_str(), F_OK) == 0; }));
    for (int round = 0; round < 30; ++round) {
        std::map<std::string, int> seen;
        for (const auto& name : list(root)) ++seen[name];
        for (int i = 0; i < 300; ++i) ASSERT_EQ(seen["stays" + std::to_string(i)], 1) << i;
        for (const auto& [name, times] : seen) ASSERT_EQ(times, 1) << name;
    }
    EXPECT_FALSE(churner.wait(0ms).has_value());
}

TEST_F(Scale, ChannelsNestDeeply) {
    std::string path = "d";
    for (int i = 0; i < 50; ++i) {
        make_channel(path);
        path += "/d";
    }
    path.resize(path.size() - 2);
    ASSERT_EQ(send(path, "deep"), 0);
    EXPECT_EQ(rmdir(at("d").c_str()), -1);
    EXPECT_EQ(errno, ENOTEMPTY);
    EXPECT_EQ(drain(path), std::vector<std::string>{"deep"});
}

}  // namespace
}  // namespace ipcfs::test
