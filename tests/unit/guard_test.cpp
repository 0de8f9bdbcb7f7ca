// The questions to the guard that no file mode answers; permits() has a suite of its own.
#include <gtest/gtest.h>

#include <access/guard.hpp>

namespace ipcfs::access {
namespace {

constexpr uid_t kOwner = 1000, kStranger = 1001;

TEST(Guard, DecidesByWhoAsks) {
    struct Case {
        const char* question;
        bool (*asks)(uid_t who);
        bool owner, other, root;
    };
    static constexpr Case kCases[] = {
        {"change settings", [](uid_t who) { return may_change_settings(kOwner, who); }, true, false,
         true},
        {"close a pool", [](uid_t who) { return may_close_pool(kOwner, who); }, true, false, true},
        {"send a chunk", [](uid_t who) { return may_send_chunk(kOwner, who); }, true, false, false},
        {"map a pool of a queue that he may read",
         [](uid_t who) { return may_map_pool(kOwner, who, true); }, true, true, true},
        {"map a pool of a queue that he may not read",
         [](uid_t who) { return may_map_pool(kOwner, who, false); }, true, false, false},
        {"register a signal", [](uid_t who) { return may_register_signal(kOwner, who); }, true,
         false, false},
    };
    for (const Case& each : kCases) {
        EXPECT_EQ(each.asks(kOwner), each.owner) << each.question << ": the owner";
        EXPECT_EQ(each.asks(kStranger), each.other) << each.question << ": another user";
        EXPECT_EQ(each.asks(kRoot), each.root) << each.question << ": root";
    }
}

TEST(Guard, LetsOnlyTheProcessThatReceivedARegionClaimIt) {
    EXPECT_TRUE(may_claim_region(77, 77));
    EXPECT_FALSE(may_claim_region(77, 78));
    EXPECT_FALSE(may_claim_region(0, 0)) << "neither process is visible";
}

}  // namespace
}  // namespace ipcfs::access
