// Accounts: what is held for a user, limits, refunds, contention.
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <access/account.hpp>

namespace ipcfs::access {
namespace {

Limits limits(std::uint64_t each) {
    Limits all;
    all.fill(each);
    return all;
}

TEST(Account, AChargeIsRefundedByItsDestructor) {
    Ledger ledger;
    Account& account = ledger.account(1);
    {
        auto charge = Charge::take(account, Resource::kBytes, 100);
        ASSERT_TRUE(charge);
        EXPECT_EQ(account.used(Resource::kBytes), 100U);
        EXPECT_EQ(ledger.total_bytes(), 100U);
        Charge moved = std::move(*charge);
        charge.reset();
        EXPECT_EQ(account.used(Resource::kBytes), 100U);
    }
    EXPECT_EQ(account.used(Resource::kBytes), 0U);
    EXPECT_EQ(ledger.total_bytes(), 0U);
}

TEST(Account, AssigningRefundsWhatWasHeldBefore) {
    Ledger ledger;
    Account &one = ledger.account(1), &two = ledger.account(2);
    Charge charge = *Charge::take(one, Resource::kMessages, 3);
    charge = *Charge::take(two, Resource::kChannels, 5);
    EXPECT_EQ(one.used(Resource::kMessages), 0U);
    EXPECT_EQ(two.used(Resource::kChannels), 5U);
    charge.reset();
    charge.reset();
    EXPECT_EQ(two.used(Resource::kChannels), 0U);
}

TEST(Account, AUserAtItsLimitFailsAlone) {
    Ledger ledger([](uid_t) { return limits(2); });
    auto first = Charge::take(ledger.account(1), Resource::kMessages, 2);
    ASSERT_TRUE(first);
    EXPECT_FALSE(Charge::take(ledger.account(1), Resource::kMessages, 1));
    EXPECT_TRUE(Charge::take(ledger.account(1), Resource::kWaiters, 1));
    EXPECT_TRUE(Charge::take(ledger.account(2), Resource::kMessages, 2));
    first.reset();
    EXPECT_TRUE(Charge::take(ledger.account(1), Resource::kMessages, 2));
}

TEST(Account, HugeAmountsDoNotWrapAround) {
    Ledger ledger([](uid_t) { return limits(10); });
    auto held = Charge::take(ledger.account(1), Resource::kBytes, 5);
    EXPECT_FALSE(Charge::take(ledger.account(1), Resource::kBytes, UINT64_MAX));
    EXPECT_FALSE(Charge::take(ledger.account(1), Resource::kBytes, UINT64_MAX - 4));
    EXPECT_EQ(ledger.total_bytes(), 5U);
}

TEST(Account, TheMachinesBytesBoundAllUsersTogether) {
    Ledger ledger([](uid_t) { return kNoLimits; }, 100);
    auto first = Charge::take(ledger.account(1), Resource::kBytes, 60);
    EXPECT_FALSE(Charge::take(ledger.account(2), Resource::kBytes, 41));
    EXPECT_EQ(ledger.account(2).used(Resource::kBytes), 0U);
    EXPECT_TRUE(Charge::take(ledger.account(2), Resource::kBytes, 40));
    EXPECT_TRUE(Charge::take(ledger.account(2), Resource::kMessages, 1000));
}

TEST(Account, WhatIsForcedPassesTheLimitAndIsStillCounted) {
    Ledger ledger([](uid_t) { return limits(1); }, 1);
    Charge forced = Charge::force(ledger.account(1), Resource::kBytes, 50);
    EXPECT_EQ(ledger.account(1).used(Resource::kBytes), 50U);
    EXPECT_EQ(ledger.total_bytes(), 50U);
    EXPECT_FALSE(Charge::take(ledger.account(1), Resource::kBytes, 1));
}

TEST(Account, AReloadChangesUsersSeenAndUnseen) {
    Ledger ledger([](uid_t) { return limits(1); });
    Account& seen = ledger.account(1);
    auto held = Charge::take(seen, Resource::kMessages, 1);
    ledger.reload([](uid_t uid) { return limits(uid == 1 ? 0 : 9); }, 7);
    EXPECT_EQ(seen.limit(Resource::kMessages), 0U);
    EXPECT_EQ(seen.used(Resource::kMessages), 1U);
    EXPECT_EQ(ledger.account(2).limit(Resource::kMessages), 9U);
    EXPECT_EQ(ledger.total_limit(), 7U);
    EXPECT_EQ(&ledger.account(1), &seen);
}

TEST(AccountThreads, NeverPassTheLimitAndEndAtZero) {
    constexpr std::uint64_t kLimit = 16;
    Ledger ledger([](uid_t) { return limits(kLimit); });
    std::atomic<std::uint64_t> taken{0}, refused{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 8; ++t) {
        threads.emplace_back([&, t] {
            Account& account = ledger.account(static_cast<uid_t>(t % 2));
            for (int i = 0; i < 3000; ++i) {
                auto charge =
                    Charge::take(account, Resource::kBytes, static_cast<std::uint64_t>(1 + i % 7));
                ++(charge ? taken : refused);
                if (account.used(Resource::kBytes) > kLimit) ADD_FAILURE() << "over the limit";
            }
        });
    }
    threads.emplace_back([&] {
        for (int i = 0; i < 200; ++i) {
            ledger.account(static_cast<uid_t>(100 + i));
            ledger.reload([](uid_t) { return limits(kLimit); }, kUnlimited);
            ledger.for_each([](const Account& account) { (void)account.limit(Resource::kBytes); });
        }
    });
    for (auto& thread : threads) thread.join();
    EXPECT_EQ(taken + refused, 24000U);
    EXPECT_GT(taken, 0U);
    ledger.for_each([](const Account& account) { EXPECT_EQ(account.used(Resource::kBytes), 0U); });
    EXPECT_EQ(ledger.total_bytes(), 0U);
}

TEST(AccountThreads, AUserFirstSeenDuringAReloadGetsTheNewLimits) {
    for (int round = 0; round < 200; ++round) {
        Ledger ledger([](uid_t) { return limits(1); });
        std::thread reload([&] { ledger.reload([](uid_t) { return limits(2); }, kUnlimited); });
        for (uid_t uid = 0; uid < 20; ++uid) ledger.account(uid);
        reload.join();
        ledger.for_each([](const Account& account) {
            ASSERT_EQ(account.limit(Resource::kMessages), 2U) << account.uid();
        });
    }
}

}  // namespace
}  // namespace ipcfs::access
