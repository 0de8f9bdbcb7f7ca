// Loans and received chunks of the client header on memory of the test's own: what is in the ledger
// after each step, and that nothing is taken from a peer that was not checked.
#include <array>
#include <sys/wait.h>
#include <thread>

#include <gtest/gtest.h>

#include <ipcfs/batch.hpp>
#include <ipcfs/loan.hpp>
#include <ipcfs/payload.hpp>

namespace ipcfs {
namespace {

using detail::Fd;
using detail::Mapping;
using detail::ReceivedPool;
using detail::SendPool;

constexpr std::size_t kChunk = 64 << 10;

// What the daemon and a sender would have made.
class ClientPool : public ::testing::Test {
protected:
    void SetUp() override {
        shape_.id = 9;
        shape_.chunk_size = shape_.stride = kChunk;
        shape_.chunk_count = 4;
        auto memory = detail::make_memfd("test", kChunk * 4, 0, "test");
        auto ledger = detail::make_memfd("test", pool_ledger_size(4), 0, "test");
        ASSERT_TRUE(memory && ledger);
        memory_ = std::move(*memory);
        ledger_ = std::move(*ledger);
        auto mapped =
            detail::map_shared(ledger_.get(), pool_ledger_size(4), PROT_READ | PROT_WRITE, "test");
        ASSERT_TRUE(mapped);
        shared_ = new (mapped->data()) PoolLedger;
        kept_ = std::move(*mapped);
        for (const Fd* each : {&memory_, &ledger_})
            ASSERT_EQ(::fcntl(each->get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
    }
    std::shared_ptr<SendPool> sender() {
        auto data = detail::map_shared(memory_.get(), kChunk * 4, PROT_READ | PROT_WRITE, "test");
        auto ledger = detail::map_ledger(ledger_.get(), 4, "test");
        EXPECT_TRUE(data && ledger);
        return std::make_shared<SendPool>(nullptr, shape_, std::move(*data), std::move(*ledger));
    }
    std::uint32_t references(std::uint32_t chunk) const {
        return pool_references(shared_->chunks()[chunk].word);
    }
    static Payload received(const std::shared_ptr<ReceivedPool>& pool, const PayloadRef& ref) {
        auto hold = std::make_shared<detail::Hold>(ref, 1, "");
        hold->set_chunk(pool, *pool->bytes(ref));
        return Payload(std::move(hold));
    }

    ControlPool shape_;
    Fd memory_;
    Fd ledger_;
    Mapping kept_;
    PoolLedger* shared_ = nullptr;
};

TEST_F(ClientPool, ALoanIsAFreeChunkAndComesBackUnsent) {
    auto pool = sender();
    {
        auto loan = Loan::Access::pooled(pool, pool->take(), 100);
        EXPECT_TRUE(loan.pooled());
        EXPECT_EQ(loan.bytes().size(), 100U);
        EXPECT_EQ(loan.capacity(), kChunk);
        EXPECT_EQ(references(0), 1U);
        EXPECT_TRUE(loan.resize(kChunk));
        EXPECT_FALSE(loan.resize(kChunk + 1));
        auto moved = std::move(loan);
        EXPECT_FALSE(loan);  // NOLINT(bugprone-use-after-move)
        EXPECT_EQ(references(0), 1U);
    }
    EXPECT_EQ(references(0), 0U);
    EXPECT_EQ(shared_->hits, 1U);
}

TEST_F(ClientPool, ABatchKeepsItsLoansUntilTheyAreSentOrItIsCleared) {
    auto pool = sender();
    Batch batch;
    SendOptions options;
    options.priority = 7;
    auto first = Loan::Access::pooled(pool, pool->take(), 100);
    const PayloadRef ref = Loan::Access::reference(first);
    ASSERT_TRUE(batch.add(std::move(first), options));
    ASSERT_TRUE(batch.add(Loan::Access::pooled(pool, pool->take(), 200)));
    EXPECT_EQ(batch.size(), 2U);
    FrameView frame;
    std::size_t length = 0;
    ASSERT_EQ(decode(batch.frames(), frame, length), FrameError::kNone);
    EXPECT_EQ(frame.header.priority, 7);
    EXPECT_TRUE(frame.body.empty());
    const auto value = frame.extension(ExtensionType::kPayload);
    ASSERT_TRUE(value && value->size() == sizeof ref);
    EXPECT_EQ(std::memcmp(value->data(), &ref, sizeof ref), 0);

    auto sealed = Loan::Access::sealed(100);
    ASSERT_TRUE(sealed);
    EXPECT_EQ(batch.add(std::move(*sealed)).error().code, EINVAL);
    EXPECT_TRUE(*sealed);  // NOLINT(bugprone-use-after-move): the caller's still
    EXPECT_EQ(batch.size(), 2U);

    batch.clear();
    EXPECT_EQ(references(0) + references(1), 0U);
    ASSERT_TRUE(batch.add(Loan::Access::pooled(pool, pool->take(), 100)));
    batch.sent();
    EXPECT_TRUE(batch.empty());
    EXPECT_EQ(references(0), 1U);  // the message's now
}

TEST_F(ClientPool, NoChunkIsLentTwice) {
    auto pool = sender();
    std::array<SendPool::Taken, 4> all;
    for (auto& each : all) {
        each = pool->take();
        ASSERT_NE(each.generation, 0U);
    }
    EXPECT_EQ(pool->take().generation, 0U);
    EXPECT_EQ(pool->take(detail::Deadline(Timeout::zero())).generation, 0U);
    EXPECT_EQ(pool->take(detail::Deadline(std::chrono::milliseconds(5))).generation, 0U);
    EXPECT_EQ(shared_->misses, 2U);
    pool->give_back(all[2]);
    EXPECT_EQ(pool->take().chunk, 2U);
}

TEST_F(ClientPool, AWaitingLoanIsWokenByTheReceiverWhoGivesBack) {
    auto pool = sender();
    auto data = ReceivedPool::from(shape_, memory_.get(), ledger_.get());
    ASSERT_TRUE(data);
    std::vector<Payload> held;
    for (int i = 0; i < 4; ++i) held.push_back(received(*data, pool->reference(pool->take(), 10)));
    std::thread waiting([&] { EXPECT_EQ(pool->take(detail::Deadline(kForever)).chunk, 3U); });
    while (shared_->waiters == 0) std::this_thread::yield();
    held.pop_back();
    waiting.join();
    EXPECT_EQ(shared_->waiters, 0U);
    EXPECT_EQ(references(3), 1U);
}

TEST_F(ClientPool, TheLastCopyOfAPayloadGivesTheChunkBack) {
    auto pool = sender();
    auto data = ReceivedPool::from(shape_, memory_.get(), ledger_.get());
    ASSERT_TRUE(data);
    const auto taken = pool->take();
    pool->at(taken.chunk)[7] = std::byte{42};
    auto first = received(*data, pool->reference(taken, 8));
    {
        const Payload second = first;
        first = Payload();
        EXPECT_EQ(references(taken.chunk), 1U);
        ASSERT_EQ(second.bytes().size(), 8U);
        EXPECT_EQ(second.bytes()[7], std::byte{42});
        EXPECT_EQ(second.kind(), PayloadKind::kPooled);
    }
    EXPECT_EQ(references(taken.chunk), 0U);
    EXPECT_EQ(shared_->freed, 1U);
}

TEST_F(ClientPool, AForkedChildGivesNothingBack) {
    auto pool = sender();
    auto data = ReceivedPool::from(shape_, memory_.get(), ledger_.get());
    ASSERT_TRUE(data);
    auto loan = Loan::Access::pooled(pool, pool->take(), 100);
    auto payload = received(*data, pool->reference(pool->take(), 8));
    const pid_t child = ::fork();
    if (child == 0) {
        loan = Loan();
        payload = Payload();
        ::_exit(references(0) == 1 && references(1) == 1 ? 0 : 1);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
    loan = Loan();
    payload = Payload();
    EXPECT_EQ(references(0), 0U);
    EXPECT_EQ(references(1), 0U);
}

TEST_F(ClientPool, AReferenceBeyondThePoolIsRefused) {
    auto data = ReceivedPool::from(shape_, memory_.get(), ledger_.get());
    ASSERT_TRUE(data);
    PayloadRef ref;
    ref.chunk = 3;
    ref.size = kChunk;
    EXPECT_TRUE((*data)->bytes(ref));
    ref.size = kChunk + 1;
    EXPECT_FALSE((*data)->bytes(ref));
    ref.size = 1;
    ref.chunk = 4;
    EXPECT_FALSE((*data)->bytes(ref));
}

TEST_F(ClientPool, MemoryThatDoesNotHoldWhatItPromisesIsNotMapped) {
    auto refused = [&](const ControlPool& shape, int memory, int ledger) {
        auto made = ReceivedPool::from(shape, memory, ledger);
        return !made && made.error().code == EPROTO;
    };
    ControlPool wrong = shape_;
    wrong.chunk_count = 5;
    EXPECT_TRUE(refused(wrong, memory_.get(), ledger_.get()));
    wrong = shape_;
    wrong.stride = kChunk + 1;
    EXPECT_TRUE(refused(wrong, memory_.get(), ledger_.get()));
    wrong.stride = ~std::uint64_t{4095};
    EXPECT_TRUE(refused(wrong, memory_.get(), ledger_.get()));
    wrong = shape_;
    wrong.chunk_count = kMaxPoolChunks + 1;
    EXPECT_TRUE(refused(wrong, memory_.get(), ledger_.get()));
    // Of the right size, but somebody could still cut it short.
    auto loose = detail::make_memfd("test", kChunk * 4, 0, "test");
    ASSERT_TRUE(loose);
    EXPECT_TRUE(refused(shape_, loose->get(), ledger_.get()));
    EXPECT_TRUE(refused(shape_, memory_.get(), loose->get()));
}

TEST_F(ClientPool, ManyThreadsTakeAndGiveBackWithoutLosingOne) {
    auto pool = sender();
    std::array<std::atomic<int>, 4> owners{};
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&] {
            for (int i = 0; i < 2000; ++i) {
                const auto taken = pool->take(detail::Deadline(kForever));
                ASSERT_EQ(owners[taken.chunk].fetch_add(1), 0);
                owners[taken.chunk].fetch_sub(1);
                pool->give_back(taken);
            }
        });
    }
    for (std::thread& each : threads) each.join();
    for (std::uint32_t i = 0; i < 4; ++i) EXPECT_EQ(references(i), 0U);
}

TEST(ClientLoan, SealsItsMemoryAndOnlyOnce) {
    auto loan = Loan::Access::sealed(10000);
    ASSERT_TRUE(loan);
    loan->data()[9999] = std::byte{1};
    ASSERT_TRUE(loan->resize(5000));
    auto fd = Loan::Access::seal(*loan);
    ASSERT_TRUE(fd);
    EXPECT_EQ(detail::seals_of(*fd), detail::kSealsWhole);
    EXPECT_TRUE(detail::has_size(*fd, 5000));
    EXPECT_FALSE(detail::has_size(*fd, 5001));
    EXPECT_TRUE(loan->bytes().empty());
    EXPECT_FALSE(loan->resize(1));
    auto again = Loan::Access::seal(*loan);
    ASSERT_TRUE(again);
    EXPECT_EQ(*again, *fd);
}

TEST(ClientLoan, CannotBeSealedWhileSomethingElseHasItMappedForWriting) {
    auto loan = Loan::Access::sealed(4096);
    ASSERT_TRUE(loan);
    void* other =
        ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, Loan::Access::memory(*loan), 0);
    ASSERT_NE(other, MAP_FAILED);
    auto fd = Loan::Access::seal(*loan);
    ASSERT_FALSE(fd);
    EXPECT_EQ(fd.error().code, EBUSY);
    ::munmap(other, 4096);
    EXPECT_TRUE(Loan::Access::seal(*loan));
}

TEST(ClientLoan, OfMegabytesBeginsAtAHugePage) {
    for (const std::size_t size : {std::size_t{1} << 20, (std::size_t{5} << 20) + 1}) {
        auto loan = Loan::Access::sealed(size);
        ASSERT_TRUE(loan);
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(loan->data()) % detail::kHugePage, 0U);
        loan->data()[size - 1] = std::byte{1};
    }
}

}  // namespace
}  // namespace ipcfs
