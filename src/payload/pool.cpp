// Pools of chunks. Any thread.
#include <fcntl.h>
#include <linux/futex.h>
#include <new>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <payload/memory.hpp>
#include <payload/pool.hpp>

namespace ipcfs::payload {
namespace {

constexpr std::uint64_t kPage = 4096;

// Whether all chunks lie in `size` bytes.
bool fits(const PoolShape& shape, std::uint64_t size) {
    if (shape.chunk_count == 0 || shape.chunk_count > kMaxPoolChunks) return false;
    if (shape.chunk_size == 0 || shape.stride % kPage != 0 || shape.stride < shape.chunk_size) {
        return false;
    }
    std::uint64_t before = 0, end = 0;
    return !__builtin_mul_overflow(shape.stride, shape.chunk_count - 1, &before) &&
           !__builtin_add_overflow(before, shape.chunk_size, &end) && end <= size;
}

}  // namespace

Pool::Pool(std::uint64_t pool_id, std::uint64_t of_channel, uid_t uid, pid_t opener,
           const PoolShape& of)
    : id(pool_id), channel(of_channel), owner(uid), pid(opener), shape(of) {
    slots_.with([&](auto& slots) { slots.resize(of.chunk_count); });
}

Result<std::shared_ptr<Pool>> Pool::make(std::uint64_t id, std::uint64_t channel, uid_t owner,
                                         pid_t pid, const PoolShape& shape, const Fd& memory,
                                         access::Charge charge) {
    struct stat st {};
    if (::fstat(memory.get(), &st) != 0) return errno_fault("fstat a pool");
    if (!fits(shape, static_cast<std::uint64_t>(st.st_size))) {
        return Fault{EINVAL,
                     "pool: the chunks do not fit in the memfd, or their number is 0 or too large"};
    }
    std::shared_ptr<Pool> pool(new Pool(id, channel, owner, pid, shape));
    auto readable = reopen_read_only(memory.get());
    if (!readable) return readable.error();
    pool->memory_ = std::move(*readable);

    auto ledger = make_memory("ipcfs-ledger-" + std::to_string(id));
    if (!ledger) return ledger.error();
    std::size_t size = pool_ledger_size(shape.chunk_count);
    // Seal the size, so that no client can truncate the file under our mapping.
    if (::ftruncate(ledger->get(), static_cast<off_t>(size)) != 0 ||
        ::fcntl(ledger->get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
        return errno_fault("make a pool's ledger");
    }
    void* mapped = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, ledger->get(), 0);
    if (mapped == MAP_FAILED) return errno_fault("map a pool's ledger");
    pool->ledger_ = std::move(*ledger);
    pool->shared_ = new (mapped) PoolLedger;
    pool->shared_->chunk_size = shape.chunk_size;
    pool->shared_->stride = shape.stride;
    pool->shared_->chunk_count = shape.chunk_count;
    pool->charge_ = std::move(charge);
    return pool;
}

Pool::~Pool() {
    if (shared_) ::munmap(shared_, pool_ledger_size(shape.chunk_count));
}

Result<void> Pool::enqueue(std::uint32_t chunk, std::uint32_t generation, std::uint64_t size) {
    if (chunk >= shape.chunk_count || size > shape.chunk_size || generation == 0) {
        return Fault{EINVAL, "pool: no such chunk, or larger than a chunk"};
    }
    std::uint64_t word = shared_->chunks()[chunk].word.load(std::memory_order_acquire);
    if (pool_generation(word) != generation || pool_references(word) == 0) {
        return Fault{EINVAL, "pool: the sender does not hold this chunk"};
    }
    return slots_.with([&](auto& slots) -> Result<void> {
        Slot& slot = slots[chunk];
        if (slot.where != Where::kSender && slot.generation == generation) {
            return Fault{EBUSY, "pool: the chunk was sent already"};
        }
        slot = {generation, 0, Where::kQueued};
        return {};
    });
}

void Pool::cancel_enqueue(std::uint32_t chunk, std::uint32_t generation) noexcept {
    slots_.with([&](auto& slots) {
        Slot& slot = slots[chunk];
        if (slot.generation == generation && slot.where == Where::kQueued)
            slot.where = Where::kSender;
    });
}

void Pool::lend(std::uint32_t chunk, std::uint32_t generation, pid_t to) noexcept {
    slots_.with([&](auto& slots) {
        if (slots[chunk].generation == generation) slots[chunk] = {generation, to, Where::kLent};
    });
}

void Pool::release(std::uint32_t chunk, std::uint32_t generation) noexcept {
    bool ours = slots_.with([&](auto& slots) {
        Slot& slot = slots[chunk];
        if (slot.generation != generation || slot.where != Where::kQueued) return false;
        slot.where = Where::kSender;
        return true;
    });
    if (ours) give_back(chunk, generation);
}

std::size_t Pool::reclaim(pid_t holder) noexcept {
    std::size_t count = 0;
    for (std::uint32_t chunk = 0; chunk < shape.chunk_count; ++chunk) {
        std::uint32_t generation = slots_.with([&](auto& slots) -> std::uint32_t {
            Slot& slot = slots[chunk];
            if (slot.where != Where::kLent || slot.holder != holder) return 0;
            slot.where = Where::kSender;
            return slot.generation;
        });
        if (generation == 0) continue;
        std::uint64_t word = shared_->chunks()[chunk].word.load(std::memory_order_relaxed);
        count += pool_generation(word) == generation && pool_references(word) > 0;
        give_back(chunk, generation);
    }
    return count;
}

void Pool::give_back(std::uint32_t chunk, std::uint32_t generation) noexcept {
    if (!pool_give_back(shared_->chunks()[chunk], generation)) return;
    shared_->freed.fetch_add(1, std::memory_order_seq_cst);
    if (shared_->waiters.load(std::memory_order_seq_cst) != 0) {
        ::syscall(SYS_futex, &shared_->freed, FUTEX_WAKE, INT32_MAX, nullptr, nullptr, 0);
    }
}

std::set<pid_t> Pool::holders() const {
    return slots_.with([](const auto& slots) {
        std::set<pid_t> pids;
        for (const Slot& slot : slots) {
            if (slot.where == Where::kLent && slot.holder != 0) pids.insert(slot.holder);
        }
        return pids;
    });
}

Pool::Use Pool::use() const noexcept {
    Use use;
    slots_.with([&](const auto& slots) {
        for (std::uint32_t chunk = 0; chunk < shape.chunk_count; ++chunk) {
            const Slot& slot = slots[chunk];
            if (slot.where == Where::kQueued) ++use.queued;
            if (slot.where != Where::kLent) continue;
            std::uint64_t word = shared_->chunks()[chunk].word.load(std::memory_order_relaxed);
            use.lent += pool_generation(word) == slot.generation && pool_references(word) > 0;
        }
    });
    use.hits = shared_->hits.load(std::memory_order_relaxed);
    use.misses = shared_->misses.load(std::memory_order_relaxed);
    return use;
}

}  // namespace ipcfs::payload
