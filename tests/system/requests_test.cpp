// How many requests the kernel sends for what users do most. Counted by the daemon itself, in the
// `request` rows of kern/ipc/stats/resources; what reading that file costs is measured and taken
// off. RELEASE and FORGET come when the kernel likes and are left out, but no FLUSH may come.
#include <fcntl.h>
#include <map>
#include <sys/stat.h>

#include "child.hpp"
#include "daemon_fixture.hpp"

namespace ipcfs::test {
namespace {

using Counts = std::map<std::string, long>;

class Requests : public MountedTest {
protected:
    void SetUp() override {
        MountedTest::SetUp();
        if (HasFatalFailure()) return;
        make_channel("jobs");
        // Warm: entries, attributes and the statistics file are in the kernel's cache.
        ASSERT_EQ(shell("echo warm > " + at("jobs/queue") + "; cat " + at("jobs/queue")), 0);
        count();
    }
    Counts count() {
        Counts counts;
        for (auto& row : parse_table(slurp(at("kern/ipc/stats/resources")))) {
            if (row["scope"] == "request") counts[row["resource"]] = number(row["used"]);
        }
        return counts;
    }
    // The requests of `act`, without those of counting.
    Counts of(const std::function<void()>& act) {
        const auto first = count();
        const auto second = count();
        act();
        const auto third = count();
        Counts spent;
        for (const auto& [name, value] : third) {
            const auto at_of = [&](const Counts& counts) {
                const auto found = counts.find(name);
                return found == counts.end() ? 0L : found->second;
            };
            const long own = at_of(second) - at_of(first);
            const long difference = value - at_of(second) - own;
            if (name == "RELEASE" || name == "FORGET" || name == "BATCH_FORGET") continue;
            if (difference != 0) spent[name] = difference;
        }
        return spent;
    }
};

std::string text(const Counts& counts) {
    std::string all;
    for (const auto& [name, value] : counts) all += name + " " + std::to_string(value) + "; ";
    return all;
}

TEST_F(Requests, AreCounted) {
    const auto counts = count();
    EXPECT_GE(counts.size(), 4U);
    EXPECT_TRUE(counts.contains("OPEN"));
    EXPECT_GT(counts.at("WRITE"), 0);
}

TEST_F(Requests, ForAWriteOnAnOpenFileAreOne) {
    const Fd out = open_file(at("jobs/queue"), O_WRONLY);
    ASSERT_EQ(write_to(out.get(), "first"), 5);
    const auto spent = of([&] { ASSERT_EQ(write_to(out.get(), "hi"), 2); });
    EXPECT_EQ(spent, (Counts{{"WRITE", 1}})) << text(spent);
    const auto ten = of([&] {
        for (int i = 0; i < 10; ++i)
            ASSERT_EQ(write_to(out.get(), std::string(100000, 'x')), 100000);
    });
    EXPECT_EQ(ten, (Counts{{"WRITE", 10}})) << text(ten);
}

TEST_F(Requests, ForAReadOnAnOpenFileAreOne) {
    ASSERT_EQ(send("jobs", "one"), 0);
    ASSERT_EQ(send("jobs", "two"), 0);
    const Fd in = open_file(at("jobs/queue"), O_RDONLY);
    ASSERT_EQ(read_from(in.get()).data, "one");
    const auto spent = of([&] { ASSERT_EQ(read_from(in.get()).data, "two"); });
    EXPECT_EQ(spent, (Counts{{"READ", 1}})) << text(spent);
}

// GETXATTR: the kernel looks for security.capability before the O_TRUNC of `>`. A shell that writes
// its very first output also calls fstat for its buffer; this one has written before.
TEST_F(Requests, ForEchoToAQueueAreThreeAndARelease) {
    const auto spent =
        of([&] { ASSERT_EQ(shell("echo before > /dev/null; echo hi > " + at("jobs/queue")), 0); });
    std::cout << "echo hi > queue: " << text(spent) << "\n";
    EXPECT_EQ(spent, (Counts{{"GETXATTR", 1}, {"OPEN", 1}, {"WRITE", 1}})) << text(spent);
    EXPECT_EQ(drain("jobs"), std::vector<std::string>{"hi\n"});
}

// GETATTR: cat calls fstat, and the last delivery has changed the times.
TEST_F(Requests, ForCatOfAQueueAreAReadAMessageAndThreeMore) {
    ASSERT_EQ(send("jobs", "one"), 0);
    ASSERT_EQ(send("jobs", "two"), 0);
    std::string output;
    const auto spent = of([&] { ASSERT_EQ(shell("cat " + at("jobs/queue"), &output), 0); });
    std::cout << "cat queue: " << text(spent) << "\n";
    EXPECT_EQ(output, "onetwo");
    EXPECT_EQ(spent, (Counts{{"GETATTR", 1}, {"OPEN", 1}, {"READ", 3}})) << text(spent);
}

TEST_F(Requests, ForLookingAndSendingAgainUseTheKernelsCaches) {
    struct stat about {};
    stat(at("jobs/ctl").c_str(), &about);
    const auto spent = of([&] {
        for (int i = 0; i < 10; ++i) ASSERT_EQ(stat(at("jobs/ctl").c_str(), &about), 0);
    });
    EXPECT_EQ(spent, Counts{}) << text(spent);
}

}  // namespace
}  // namespace ipcfs::test
