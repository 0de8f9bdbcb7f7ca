// What a daemon leaves to its successor, as memory.
#include <set>
#include <sys/wait.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include <fuse/inheritance.hpp>

namespace ipcfs::fuse {
namespace {

TEST(Inheritance, GivesAHandleThatNamesOneOpenFileOnly) {
    auto made = Inheritance::make(0);
    ASSERT_TRUE(made.has_value()) << made.error().message();
    Inheritance& all = **made;
    HandleSlot* slot = all.take_slot();
    ASSERT_NE(slot, nullptr);
    EXPECT_EQ(all.slot_of(all.handle_of(*slot)), nullptr) << "it is not open yet";
    slot->node = 7;
    const std::uint64_t handle = all.handle_of(*slot);
    EXPECT_EQ(all.slot_of(handle), slot);
    all.free_slot(*slot);
    EXPECT_EQ(all.slot_of(handle), nullptr);
    HandleSlot* again = all.take_slot();
    ASSERT_EQ(again, slot);
    again->node = 8;
    EXPECT_EQ(all.slot_of(handle), nullptr);
    EXPECT_NE(all.handle_of(*again), handle);
}

TEST(Inheritance, ShowsASuccessorWhatAKilledDaemonLeft) {
    auto made = Inheritance::make(1 << 20);
    ASSERT_TRUE(made.has_value()) << made.error().message();
    Inheritance& all = **made;
    all.begin_life();
    const std::uint64_t first = all.claim_ids(1);
    const pid_t daemon = fork();
    if (daemon == 0) {
        for (std::uint64_t i = 1; i <= 3; ++i) all.take_slot()->node = i;
        all.free_slot(*all.slot_of(1ULL << 32 | 1));
        all.rings()[8192] = std::byte{1};
        all.set_survivable(true);
        _exit(0);
    }
    waitpid(daemon, nullptr, 0);
    all.begin_life();
    EXPECT_EQ(all.life(), 2U);
    EXPECT_TRUE(all.survivable());
    EXPECT_GT(all.claim_ids(1), first);
    EXPECT_EQ(all.claim_ids(1ULL << 50), 1ULL << 50);
    EXPECT_TRUE(all.used(all.rings() + 8192));
    EXPECT_FALSE(all.used(all.rings() + 4096));
    std::set<std::uint64_t> nodes;
    all.recall([&](HandleSlot& slot) { nodes.insert(slot.node.load()); });
    EXPECT_EQ(nodes, (std::set<std::uint64_t>{1, 3}));
    EXPECT_EQ(all.index_of(*all.take_slot()), 1U) << "the free one";
    EXPECT_EQ(all.index_of(*all.take_slot()), 3U);
}

TEST(Inheritance, NamesARequestTheSameWhenItComesAgain) {
    auto one = Inheritance::make(0), other = Inheritance::make(0);
    ASSERT_TRUE(one.has_value() && other.has_value());
    const std::uint64_t again = 1ULL << 63;  // FUSE_UNIQUE_RESEND
    EXPECT_EQ((*one)->request_id(42), (*one)->request_id(42 | again));
    EXPECT_NE((*one)->request_id(42), (*one)->request_id(44));
    EXPECT_NE((*one)->request_id(42), (*other)->request_id(42)) << "of another mount";
    EXPECT_NE((*one)->request_id(0), 0U);
}

}  // namespace
}  // namespace ipcfs::fuse
