// Memory files, payloads and pools, without a mount.
#include <cstring>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <gtest/gtest.h>
#include <payload/memory.hpp>
#include <payload/payload.hpp>

namespace ipcfs::payload {
namespace {

constexpr std::uint64_t kMiB = 1 << 20;

class FixedClock final : public Clock {
public:
    Nanos monotonic() const noexcept override { return now; }
    Nanos realtime() const noexcept override { return now; }
    Nanos now = kSecond;
};

Fd filled(std::uint64_t size, char with) {
    auto file = make_memory("ipcfs-test");
    EXPECT_TRUE(file);
    std::string data(size, with);
    EXPECT_EQ(::pwrite(file->get(), data.data(), size, 0), static_cast<ssize_t>(size));
    return std::move(*file);
}

char byte_at(int file, std::uint64_t at) {
    char byte = 0;
    EXPECT_EQ(::pread(file, &byte, 1, static_cast<off_t>(at)), 1);
    return byte;
}

class Payloads : public testing::Test {
protected:
    Result<access::Charge> charge(uid_t uid, std::uint64_t bytes) {
        return budget.take(ledger.account(uid), bytes);
    }
    std::uint64_t used(uid_t uid) {
        return ledger.account(uid).used(access::Resource::kPayloadBytes);
    }
    PayloadPtr sealed(std::uint64_t size, uid_t uid) {
        Fd file = filled(size, 'p');
        EXPECT_TRUE(seal(file.get()));
        return store.add_sealed(7, *reopen_read_only(file.get()), size, uid, *charge(uid, size));
    }
    std::shared_ptr<Pool> pool(uid_t uid, pid_t pid, std::uint32_t chunks = 4) {
        Fd memory = filled(chunks * kMiB, 'c');
        EXPECT_TRUE(check_sealed(memory.get(), Sealing::kPool));
        auto made =
            store.open_pool(7, uid, pid, {kMiB, kMiB, chunks}, memory, *charge(uid, chunks * kMiB));
        EXPECT_TRUE(made);
        return *made;
    }
    // Chunk number `chunk`, taken, with 100 bytes in it.
    static PayloadRef lent(const Pool& of, PoolLedger& ledger, std::uint32_t chunk) {
        PayloadRef ref;
        ref.kind = PayloadKind::kPooled;
        ref.pool = of.id;
        ref.chunk = chunk;
        ref.size = 100;
        ref.generation = pool_take(ledger.chunks()[chunk]);
        return ref;
    }

    // The ledger as a peer maps it.
    static PoolLedger& peer(const Pool& of) {
        void* at = ::mmap(nullptr, pool_ledger_size(of.shape.chunk_count), PROT_READ | PROT_WRITE,
                          MAP_SHARED, of.ledger(), 0);
        EXPECT_NE(at, MAP_FAILED);
        return *static_cast<PoolLedger*>(at);
    }

    FixedClock clock;
    std::uint64_t available = 64ULL << 30;
    access::Ledger ledger{[](uid_t uid) {
        access::Limits limits = access::kNoLimits;
        if (uid == 1000)
            limits[static_cast<std::size_t>(access::Resource::kPayloadBytes)] = 8 * kMiB;
        return limits;
    }};
    Budget budget{clock, [this] { return available; }};
    Store store{ledger, budget};
};

TEST(Memory, SealedItTakesNoWriteAndNoMapping) {
    Fd file = filled(8192, 'x');
    auto size = seal(file.get());
    ASSERT_TRUE(size);
    EXPECT_EQ(*size, 8192U);
    EXPECT_EQ(::pwrite(file.get(), "y", 1, 0), -1);
    EXPECT_EQ(::mmap(nullptr, 4096, PROT_WRITE, MAP_SHARED, file.get(), 0), MAP_FAILED);
    EXPECT_NE(::ftruncate(file.get(), 0), 0);
    EXPECT_TRUE(seal(file.get())) << "again is no fault";
}

TEST(Memory, AWritableMappingKeepsItFromBeingSealed) {
    Fd file = filled(4096, 'x');
    void* view = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
    ASSERT_NE(view, MAP_FAILED);
    auto checked = check_sealed(file.get(), Sealing::kWhole);
    ASSERT_FALSE(checked);
    EXPECT_EQ(checked.error().code, EPERM);
    ::munmap(view, 4096);
    EXPECT_TRUE(check_sealed(file.get(), Sealing::kWhole));
}

TEST(Memory, WhatIsNoMemfdIsRefused) {
    Fd plain(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
    Fd directory(::open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    Fd unsealable(::memfd_create("plain", MFD_CLOEXEC));  // F_SEAL_SEAL is on
    int ends[2];
    ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    Fd in(ends[0]), out(ends[1]);
    for (int file : {plain.get(), directory.get(), unsealable.get(), in.get()}) {
        auto checked = check_sealed(file, Sealing::kWhole);
        ASSERT_FALSE(checked);
        EXPECT_EQ(checked.error().code, EPERM);
    }
}

TEST(Memory, TellsWhetherAnybodyElseHasIt) {
    Fd ours;
    {
        Fd file = filled(4096, 'x');
        ASSERT_TRUE(seal(file.get()));
        ours = *reopen_read_only(file.get());
    }
    EXPECT_FALSE(held_elsewhere(ours.get()));
    {
        auto other = reopen_read_only(ours.get());
        ASSERT_TRUE(other);
        EXPECT_TRUE(held_elsewhere(ours.get())) << "open";
        void* view = ::mmap(nullptr, 4096, PROT_READ, MAP_SHARED, other->get(), 0);
        ASSERT_NE(view, MAP_FAILED);
        other->reset();
        EXPECT_TRUE(held_elsewhere(ours.get())) << "mapped";
        ::munmap(view, 4096);
    }
    EXPECT_FALSE(held_elsewhere(ours.get()));
}

TEST(Memory, MovesContentWithItsHolesAndEmptiesTheSource) {
    auto from = make_memory("ipcfs-test");
    auto to = make_memory("ipcfs-test");
    ASSERT_TRUE(from && to);
    const std::uint64_t size = 11 * kMiB + 5;
    ASSERT_EQ(::ftruncate(from->get(), static_cast<off_t>(size)), 0);
    ASSERT_EQ(::pwrite(from->get(), "first", 5, 0), 5);
    ASSERT_EQ(::pwrite(from->get(), "end", 3, static_cast<off_t>(size - 3)), 3);
    ASSERT_TRUE(move_content(from->get(), to->get(), size));
    struct stat st {};
    ASSERT_EQ(::fstat(from->get(), &st), 0);
    EXPECT_EQ(st.st_size, 0);
    ASSERT_EQ(::fstat(to->get(), &st), 0);
    EXPECT_EQ(static_cast<std::uint64_t>(st.st_size), size);
    EXPECT_LT(st.st_blocks * 512, static_cast<off_t>(9 * kMiB))
        << "the hole in the middle stays one";
    EXPECT_EQ(byte_at(to->get(), 1), 'i');
    EXPECT_EQ(byte_at(to->get(), 6 * kMiB), '\0');
    EXPECT_EQ(byte_at(to->get(), size - 1), 'd');
}

TEST_F(Payloads, AreChargedToWhoeverHasThem) {
    auto payload = sealed(kMiB, 1000);
    EXPECT_EQ(used(1000), kMiB);
    payload->delivered(ledger.account(1001), 42, false);
    EXPECT_EQ(used(1000), 0U);
    EXPECT_EQ(used(1001), kMiB);
    EXPECT_EQ(store.find(payload->id), payload);
    auto id = payload->id;
    payload.reset();
    EXPECT_EQ(store.find(id), nullptr);
    EXPECT_EQ(used(1001), 0U);
}

TEST_F(Payloads, StayChargedWhileSomebodyMapsThem) {
    auto payload = sealed(kMiB, 1000);
    payload->delivered(ledger.account(1001), 42, false);
    auto reader = reopen_read_only(payload->file());
    ASSERT_TRUE(reader);
    void* view = ::mmap(nullptr, kMiB, PROT_READ, MAP_SHARED, reader->get(), 0);
    ASSERT_NE(view, MAP_FAILED);
    reader->reset();
    payload.reset();
    EXPECT_EQ(store.sweep(), 1U);
    EXPECT_EQ(used(1001), kMiB);
    EXPECT_EQ(static_cast<char*>(view)[kMiB - 1], 'p');
    ::munmap(view, kMiB);
    EXPECT_EQ(store.sweep(), 0U);
    EXPECT_EQ(used(1001), 0U);
}

TEST_F(Payloads, OverTheUsersLimitIsEdquotAndOverTheMachinesIsEnospc) {
    auto much = charge(1000, 9 * kMiB);
    ASSERT_FALSE(much);
    EXPECT_EQ(much.error().code, EDQUOT);
    EXPECT_EQ(used(1000), 0U);
    budget.set_reserve(1ULL << 30);
    available = (1ULL << 30) + 4 * kMiB;
    auto little = charge(1000, 3 * kMiB);
    EXPECT_TRUE(little);
    auto more = charge(1001, 8 * kMiB);
    ASSERT_FALSE(more);
    EXPECT_EQ(more.error().code, ENOSPC);
    EXPECT_EQ(used(1001), 0U);
    EXPECT_EQ(budget.refused(), 2U);
}

TEST_F(Payloads, ARegionIsClaimedOnceAndByItsReceiverOnly) {
    auto region = store.add_region(7, filled(kMiB, 'r'), kMiB, 1000, *charge(1000, kMiB));
    EXPECT_FALSE(region->claim(42)) << "not delivered yet";
    region->delivered(ledger.account(1001), 42, true);
    EXPECT_FALSE(region->claim(43));
    EXPECT_FALSE(region->claim(0));
    auto memory = region->claim(42);
    ASSERT_TRUE(memory);
    EXPECT_EQ(::pwrite(memory->get(), "w", 1, 0), 1) << "it is the receiver's to write";
    EXPECT_FALSE(region->claim(42));
}

TEST_F(Payloads, AChunkGoesToTheReaderAndComesBackFree) {
    auto from = pool(1000, 10);
    PoolLedger& shared = peer(*from);
    std::uint32_t generation = pool_take(shared.chunks()[2]);
    ASSERT_EQ(generation, 1U);
    PayloadRef ref;
    ref.kind = PayloadKind::kPooled;
    ref.pool = from->id;
    ref.chunk = 2;
    ref.generation = generation;
    ref.size = 100;
    auto payload = store.add_pooled(7, ref, 1000);
    ASSERT_TRUE(payload);
    auto again = store.add_pooled(7, ref, 1000);
    ASSERT_FALSE(again) << "the same loan cannot be sent twice";
    EXPECT_EQ(again.error().code, EBUSY);
    (*payload)->delivered(ledger.account(1001), 42, true);
    *payload = nullptr;
    EXPECT_EQ(pool_take(shared.chunks()[2]), 0U) << "the reader has it";
    EXPECT_TRUE(pool_give_back(shared.chunks()[2], generation));
    EXPECT_EQ(pool_take(shared.chunks()[2]), 2U);
    EXPECT_FALSE(pool_give_back(shared.chunks()[2], generation)) << "of an earlier loan";
}

TEST_F(Payloads, AnotherUsersChannelsOrUnlentChunksAreRefused) {
    auto from = pool(1000, 10);
    PoolLedger& shared = peer(*from);
    const PayloadRef ref = lent(*from, shared, 0);
    EXPECT_EQ(store.add_pooled(8, ref, 1000).error().code, EPERM);
    EXPECT_EQ(store.add_pooled(7, ref, 1001).error().code, EPERM);
    PayloadRef wrong = ref;
    wrong.chunk = 4;
    EXPECT_EQ(store.add_pooled(7, wrong, 1000).error().code, EINVAL);
    wrong = ref;
    wrong.size = kMiB + 1;
    EXPECT_EQ(store.add_pooled(7, wrong, 1000).error().code, EINVAL);
    wrong = ref;
    ++wrong.generation;
    EXPECT_EQ(store.add_pooled(7, wrong, 1000).error().code, EINVAL);
    EXPECT_TRUE(store.add_pooled(7, ref, 1000));
}

TEST_F(Payloads, WhatADeadReaderHeldComesBack) {
    auto from = pool(1000, 10);
    PoolLedger& shared = peer(*from);
    std::vector<PayloadPtr> delivered;
    for (std::uint32_t chunk = 0; chunk < 4; ++chunk) {
        const PayloadRef ref = lent(*from, shared, chunk);
        auto payload = store.add_pooled(7, ref, 1000);
        ASSERT_TRUE(payload);
        (*payload)->delivered(ledger.account(1001), chunk < 2 ? 42 : 43, true);
    }
    EXPECT_TRUE(pool_give_back(shared.chunks()[0], 1));
    store.process_gone(42);
    EXPECT_EQ(store.counters.reclaimed, 1U) << "one of its two was given back already";
    EXPECT_EQ(pool_take(shared.chunks()[0]), 2U);
    EXPECT_EQ(pool_take(shared.chunks()[1]), 2U);
    EXPECT_EQ(pool_take(shared.chunks()[2]), 0U) << "the other reader lives";
    store.process_gone(42);
    EXPECT_EQ(pool_take(shared.chunks()[0]), 0U) << "lent anew: not its any more";
}

TEST_F(Payloads, AReaderThatDiesWithoutAWordIsNoticed) {
    auto from = pool(1000, 10);
    PoolLedger& shared = peer(*from);
    const PayloadRef ref = lent(*from, shared, 0);
    auto payload = store.add_pooled(7, ref, 1000);
    ASSERT_TRUE(payload);
    pid_t reader = ::fork();
    if (reader == 0) ::pause();
    (*payload)->delivered(ledger.account(1001), reader, true);
    store.sweep();
    EXPECT_EQ(pool_references(shared.chunks()[0].word), 1U);
    ::kill(reader, SIGKILL);
    ASSERT_EQ(::waitpid(reader, nullptr, 0), reader);
    store.sweep();
    EXPECT_EQ(pool_references(shared.chunks()[0].word), 0U);
}

TEST_F(Payloads, WhatWasNotSentStaysTheSendersAndWhatIsDroppedComesBack) {
    auto from = pool(1000, 10);
    PoolLedger& shared = peer(*from);
    const PayloadRef ref = lent(*from, shared, 0);
    auto payload = store.add_pooled(7, ref, 1000);
    ASSERT_TRUE(payload);
    (*payload)->withdraw();
    *payload = nullptr;
    EXPECT_EQ(pool_references(shared.chunks()[0].word), 1U);
    payload = store.add_pooled(7, ref, 1000);
    ASSERT_TRUE(payload) << "it may be tried again";
    *payload = nullptr;  // purged
    EXPECT_EQ(pool_references(shared.chunks()[0].word), 0U);
    EXPECT_EQ(shared.freed, 1U);
}

TEST_F(Payloads, APoolThatDoesNotFitItsMemoryIsRefused) {
    Fd memory = filled(2 * kMiB, 'c');
    ASSERT_TRUE(check_sealed(memory.get(), Sealing::kPool));
    for (PoolShape shape :
         {PoolShape{kMiB, kMiB, 3}, PoolShape{kMiB, kMiB, 0}, PoolShape{0, kMiB, 1},
          PoolShape{kMiB, 100, 2}, PoolShape{kMiB, kMiB / 2, 2}, PoolShape{kMiB, ~0ULL << 12, 3},
          PoolShape{4096, 4096, kMaxPoolChunks + 1}}) {
        auto made = store.open_pool(7, 0, 1, shape, memory, access::Charge());
        ASSERT_FALSE(made);
        EXPECT_EQ(made.error().code, EINVAL);
    }
}

}  // namespace
}  // namespace ipcfs::payload
