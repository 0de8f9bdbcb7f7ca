// Loan: memory for the body of a message that is to be sent without a copy. From Channel::loan(); write
// into bytes(), then give it to Channel::send(). Where the channel lets pools be used it is a chunk of
// one, which comes back when its receivers are done; else it is fresh memory, sealed when it is sent.
//
// A loan belongs to the process that took it: a forked child can neither write to nor send its parent's.
// One thread at a time for each Loan.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fcntl.h>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <ipcfs/connection.hpp>
#include <ipcfs/memory.hpp>
#include <ipcfs/payload.hpp>
#include <ipcfs/pool.hpp>
#include <ipcfs/process.hpp>
#include <ipcfs/result.hpp>
#include <ipcfs/wait.hpp>

namespace ipcfs {

// Of the pools that a Channel makes when its `payloads` is `pooled`: one for each power of two from
// min_chunk on, at the first loan of such a size.
struct PoolOptions {
    bool enabled = true;                 // false: all loans are sealed memory
    std::uint32_t chunks = 8;            // of a pool; 1 to kMaxPoolChunks
    std::uint64_t min_chunk = 64 << 10;  // bytes
    std::uint64_t max_bytes = std::uint64_t{1}
                              << 30;  // a pool has fewer chunks rather than be larger; but two
    bool huge_pages = true;           // from 2 MiB on, where there are any
};

struct LoanOptions {
    Timeout timeout =
        kForever;  // for a chunk to come back when all are lent; then EAGAIN or ETIMEDOUT
    bool sealed_when_busy = false;  // take sealed memory instead of waiting
    bool pooled = true;             // false: sealed memory in any case
};

namespace detail {

inline constexpr unsigned kSealsWhole = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
inline constexpr unsigned kSealsPool = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE;

// A pool of this process' own. Taking a chunk of it is an atomic operation on memory: no call, no
// lock. Thread-safe.
class SendPool : public std::enable_shared_from_this<SendPool> {
public:
    struct Taken {
        std::uint32_t chunk = 0;
        std::uint32_t generation = 0;  // 0: none was free
    };

    // Makes the memory and has the daemon open the pool. Its error, EPERM above all where the channel's
    // `payloads` is `sealed`.
    static Expected<std::shared_ptr<SendPool>> open(const std::string& mount,
                                                    const std::string& channel, std::uint64_t chunk,
                                                    std::uint32_t count, bool huge_pages) {
        if (huge_pages && chunk >= kHugePage) {
            auto made = open_with(mount, channel, chunk, count, true, MFD_HUGETLB | MFD_HUGE_2MB);
            if (made || made.error().code == EPERM) return made;
        }
        return open_with(mount, channel, chunk, count, huge_pages, 0);
    }

    // Over memory and a ledger that are there.
    SendPool(std::shared_ptr<Connection> connection, const ControlPool& shape, Mapping data,
             Mapping ledger)
        : shape_(shape),
          connection_(std::move(connection)),
          data_(std::move(data)),
          ledger_(std::move(ledger)),
          epoch_(process_epoch()) {}
    ~SendPool() {
        if (connection_) connection_->post_later(ControlOp::kPoolClose, ControlId{shape_.id});
    }
    SendPool(const SendPool&) = delete;
    SendPool& operator=(const SendPool&) = delete;

    // A free chunk. The lowest of a small pool: the one most likely to be in the cache.
    Taken take() noexcept {
        PoolLedger& shared = ledger();
        const std::uint32_t count = shape_.chunk_count;
        std::uint32_t at =
            count <= kScanned ? 0 : next_.fetch_add(1, std::memory_order_relaxed) % count;
        for (std::uint32_t looked = 0; looked < count; ++looked) {
            if (const std::uint32_t generation = pool_take(shared.chunks()[at])) {
                shared.hits.fetch_add(1, std::memory_order_relaxed);
                return {at, generation};
            }
            if (++at == count) at = 0;
        }
        return {};
    }

    // The same, waiting for one to come back.
    Taken take(const Deadline& deadline) noexcept {
        if (const Taken taken = take(); taken.generation != 0) return taken;
        PoolLedger& shared = ledger();
        shared.misses.fetch_add(1, std::memory_order_relaxed);
        if (deadline.at_once()) return {};
        shared.waiters.fetch_add(1);
        Taken taken;
        while (true) {
            const std::uint32_t seen = shared.freed.load();
            taken = take();
            if (taken.generation != 0 || deadline.passed()) break;
            // A peer may have died between giving back and waking: look again now and then.
            futex_wait(shared.freed, seen, std::min<Timeout>(deadline.left(), kLook));
        }
        shared.waiters.fetch_sub(1);
        return taken;
    }

    void give_back(const Taken& taken) noexcept {
        if (epoch_ == process_epoch()) give_back_chunk(ledger(), taken.chunk, taken.generation);
    }

    std::byte* at(std::uint32_t chunk) const noexcept {
        return data_.data() + shape_.stride * chunk;
    }
    // For sending it, when all is written.
    PayloadRef reference(const Taken& taken, std::uint64_t size) const noexcept {
        // Before whoever takes the chunk next. Receivers give it back through mappings of their own,
        // which tells thread sanitizers nothing.
        ledger().chunks()[taken.chunk].word.fetch_add(0, std::memory_order_release);
        PayloadRef ref;
        ref.kind = PayloadKind::kPooled;
        ref.chunk = taken.chunk;
        ref.size = size;
        ref.pool = shape_.id;
        ref.generation = taken.generation;
        return ref;
    }
    const ControlPool& shape() const noexcept { return shape_; }
    // The parent's, in a forked child.
    bool inherited() const noexcept { return epoch_ != process_epoch(); }
    bool usable() const noexcept {
        return !inherited() && (!connection_ || !connection_->broken());
    }
    PoolLedger& ledger() const noexcept { return *reinterpret_cast<PoolLedger*>(ledger_.data()); }

private:
    static constexpr std::uint32_t kScanned = 64;
    static constexpr Timeout kLook = std::chrono::seconds(1);

    static Expected<std::shared_ptr<SendPool>> open_with(const std::string& mount,
                                                         const std::string& channel,
                                                         std::uint64_t chunk, std::uint32_t count,
                                                         bool huge_pages, unsigned flags) {
        constexpr const char* kOperation = "open pool";
        ControlPoolOpen ask;
        ask.chunk_size = ask.stride = chunk;
        ask.chunk_count = count;
        ask.path_length = static_cast<std::uint32_t>(channel.size());
        const std::size_t total = static_cast<std::size_t>(chunk) * count;
        auto memory = make_memfd("ipcfs-pool", total, flags, kOperation);
        if (!memory) return std::move(memory).error();
        // Mapped before the seal: nobody can map it for writing after.
        auto data = map_shared(memory->get(), total, PROT_READ | PROT_WRITE, kOperation);
        if (!data) return std::move(data).error();
        if (flags == 0 && huge_pages && total >= kHugeFrom) data->advise(MADV_HUGEPAGE);
        if (::fcntl(memory->get(), F_ADD_SEALS, kSealsPool) != 0) return last_error(kOperation);
        auto connection = Connection::get(mount);
        if (!connection) return std::move(connection).error();
        const int fd = memory->get();
        auto reply = (*connection)->call(ControlOp::kPoolOpen, ask, {channel}, std::span(&fd, 1));
        if (!reply) return std::move(reply).error();
        const auto shape = reply->as<ControlPool>();
        if (reply->fds.size() != 1 || shape.chunk_size != chunk || shape.stride != chunk ||
            shape.chunk_count != count)
            return Error{EPROTO, kOperation};
        auto ledger = map_ledger(reply->fds[0].get(), count, kOperation);
        if (!ledger) return std::move(ledger).error();
        return std::make_shared<SendPool>(std::move(*connection), shape, std::move(*data),
                                          std::move(*ledger));
    }

    const ControlPool shape_;
    const std::shared_ptr<Connection> connection_;
    const Mapping data_;
    const Mapping ledger_;
    const std::uint64_t epoch_;
    std::atomic<std::uint32_t> next_{0};
};

// The pools of a channel by size. Finding one that is there takes no lock and no call.
class SendPools {
public:
    explicit SendPools(const PoolOptions& options) : options_(options) {}

    // The pool for loans of `size` bytes, made now if need be. Null where pools are not to be used
    // here: the channel does not want them, or they could not be made. `where` gives the mount and the
    // channel's path in it; it is asked only to make one.
    template <class Where>
    SendPool* find(std::uint64_t size, Where&& where) {
        if (!options_.enabled || size > kMostChunk) return nullptr;
        const std::uint64_t chunk = std::bit_ceil(std::max(size, floor()));
        Slot& slot = slots_[static_cast<std::size_t>(std::countr_zero(chunk))];
        SendPool* pool = slot.pool.load(std::memory_order_acquire);
        if (pool != nullptr && pool->usable() && !resting(slot)) return pool;
        if (resting(slot)) return nullptr;
        return make(slot, chunk, where);
    }

    bool enabled() const noexcept { return options_.enabled; }

    // The daemon refused a chunk of it: not tried again for a while. `unknown`: not ever.
    void refused(const SendPool& pool, bool unknown) {
        Slot& slot = slots_[static_cast<std::size_t>(std::countr_zero(pool.shape().chunk_size))];
        const std::scoped_lock hold(mutex_);
        if (unknown && slot.pool.load() == &pool) slot.pool.store(nullptr);
        rest(slot);
    }

private:
    static constexpr std::uint64_t kMostChunk = std::uint64_t{1} << 40;
    static constexpr std::chrono::nanoseconds kRest = std::chrono::seconds(1);
    struct Slot {
        std::atomic<SendPool*> pool{nullptr};
        std::atomic<std::int64_t> rests_until{0};  // steady clock, ns; 0: it does not
    };

    std::uint64_t floor() const noexcept {
        return std::max<std::uint64_t>(options_.min_chunk, kPage);
    }
    static std::int64_t now() noexcept {
        return std::chrono::steady_clock::now().time_since_epoch().count();
    }
    static bool resting(const Slot& slot) noexcept {
        const std::int64_t until = slot.rests_until.load(std::memory_order_relaxed);
        return until != 0 && now() < until;
    }
    static void rest(Slot& slot) noexcept { slot.rests_until.store(now() + kRest.count()); }

    template <class Where>
    SendPool* make(Slot& slot, std::uint64_t chunk, Where& where) {
        const std::scoped_lock hold(mutex_);
        SendPool* present = slot.pool.load(std::memory_order_acquire);
        if (resting(slot)) return nullptr;
        slot.rests_until.store(0);
        if (present != nullptr && present->usable()) return present;
        auto [mount, channel] = where();
        const std::uint64_t most = std::max<std::uint64_t>(options_.max_bytes / chunk, 2);
        std::uint32_t count = static_cast<std::uint32_t>(
            std::min<std::uint64_t>(std::clamp(options_.chunks, 1U, kMaxPoolChunks), most));
        while (!mount.empty()) {
            auto made = SendPool::open(mount, channel, chunk, count, options_.huge_pages);
            if (made) {
                kept_.push_back(*made);
                slot.pool.store(made->get(), std::memory_order_release);
                return made->get();
            }
            // Over a quota, or memory is short: one of fewer chunks may do.
            const int code = made.error().code;
            const bool too_large =
                code == EDQUOT || code == ENOSPC || code == ENOMEM || code == EMSGSIZE;
            if (!too_large || count == 1) break;
            count = std::max(count / 2, 1U);
        }
        rest(slot);
        return nullptr;
    }

    const PoolOptions options_;
    std::array<Slot, 64> slots_;
    std::mutex mutex_;  // of making one, and kept_
    // Also those not used any more: somebody may just be looking at one.
    std::vector<std::shared_ptr<SendPool>> kept_;
};

// Whether the machine lets shared memory have huge pages where asked for.
inline bool shared_huge_pages() noexcept {
    static const bool allowed = [] {
        const Fd fd(
            ::open("/sys/kernel/mm/transparent_hugepage/shmem_enabled", O_RDONLY | O_CLOEXEC));
        char text[128] = {};
        if (!fd || ::read(fd.get(), text, sizeof text - 1) <= 0) return false;
        return std::strstr(text, "[never]") == nullptr && std::strstr(text, "[deny]") == nullptr;
    }();
    return allowed;
}

}  // namespace detail

class [[nodiscard]] Loan {
public:
    // Nothing lent.
    Loan() = default;
    Loan(Loan&& other) noexcept { swap(other); }
    Loan& operator=(Loan&& other) noexcept {
        Loan old(std::move(*this));
        swap(other);
        return *this;
    }
    // Gives it back unsent.
    ~Loan() {
        if (pool_) pool_->give_back(taken_);
    }

    explicit operator bool() const noexcept { return data_ != nullptr; }
    // What will be the body. Its first content is undefined in a pool (what was last in that chunk),
    // zero else. Empty after a send that failed when it was sealed already; it can still be sent.
    std::span<std::byte> bytes() const noexcept { return {data_, data_ == nullptr ? 0 : size_}; }
    std::byte* data() const noexcept { return data_; }
    std::size_t size() const noexcept { return size_; }
    std::size_t capacity() const noexcept { return capacity_; }
    bool pooled() const noexcept { return pool_ != nullptr; }

    // Another size for the body; false, and nothing changed, over capacity() or once sealed.
    bool resize(std::size_t size) noexcept {
        if (size > capacity_ || data_ == nullptr) return false;
        size_ = size;
        return true;
    }

    // Internal: Channel makes, seals and consumes loans.
    struct Access {
        static Loan pooled(std::shared_ptr<detail::SendPool> pool, detail::SendPool::Taken taken,
                           std::size_t size) {
            Loan loan;
            loan.data_ = pool->at(taken.chunk);
            loan.size_ = size;
            loan.capacity_ = static_cast<std::size_t>(pool->shape().chunk_size);
            loan.pool_ = std::move(pool);
            loan.taken_ = taken;
            return loan;
        }
        static Expected<Loan> sealed(std::size_t size) {
            constexpr const char* kOperation = "loan";
            auto memory = detail::make_memfd("ipcfs-payload", size, 0, kOperation);
            if (!memory) return std::move(memory).error();
            Loan loan;
            loan.epoch_ = detail::process_epoch();
            loan.size_ = loan.capacity_ = size;
            if (size != 0) {
                auto mapped =
                    detail::map_shared(memory->get(), size, PROT_READ | PROT_WRITE, kOperation);
                if (!mapped) return std::move(mapped).error();
                loan.mapping_ = std::move(*mapped);
                // A child's copy of the mapping would keep it from being sealed.
                loan.mapping_.advise(MADV_DONTFORK);
                if (size >= detail::kHugeFrom) loan.mapping_.advise(MADV_HUGEPAGE);
                loan.data_ = loan.mapping_.data();
            } else {
                loan.data_ = &empty_;
            }
            loan.memory_ = std::move(*memory);
            return loan;
        }
        // Sealed memory that is to be filled by write(2).
        static Expected<Loan> unmapped(std::size_t size) {
            auto memory = detail::make_memfd("ipcfs-payload", size, 0, "loan");
            if (!memory) return std::move(memory).error();
            Loan loan;
            loan.epoch_ = detail::process_epoch();
            loan.size_ = loan.capacity_ = size;
            loan.data_ = &empty_;
            loan.memory_ = std::move(*memory);
            return loan;
        }
        static int memory(const Loan& loan) noexcept { return loan.memory_.get(); }
        // The memfd, with the seals and the size that the daemon wants. May be asked again.
        static Expected<int> seal(Loan& loan) {
            constexpr const char* kOperation = "seal";
            if (!loan.memory_ || loan.epoch_ != detail::process_epoch())
                return Error{EINVAL, kOperation, "not a loan of this process"};
            if (loan.data_ == nullptr) return loan.memory_.get();
            const int fd = loan.memory_.get();
            loan.mapping_.reset();
            loan.data_ = nullptr;
            if (loan.size_ != loan.capacity_ &&
                ::ftruncate(fd, static_cast<off_t>(loan.size_)) != 0)
                return detail::last_error(kOperation);
            if (::fcntl(fd, F_ADD_SEALS, detail::kSealsWhole) != 0)
                return detail::last_error(kOperation);
            return fd;
        }
        static detail::SendPool* pool(const Loan& loan) noexcept { return loan.pool_.get(); }
        static PayloadRef reference(const Loan& loan) noexcept {
            return loan.pool_->reference(loan.taken_, loan.size_);
        }
        // The message has it now.
        static void sent(Loan& loan) noexcept {
            loan.pool_.reset();
            loan = Loan();
        }
    };

private:
    void swap(Loan& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        std::swap(capacity_, other.capacity_);
        std::swap(pool_, other.pool_);
        std::swap(taken_, other.taken_);
        std::swap(memory_, other.memory_);
        std::swap(mapping_, other.mapping_);
        std::swap(epoch_, other.epoch_);
    }

    inline static std::byte empty_{};

    std::byte* data_ = nullptr;
    std::size_t size_ = 0;
    std::size_t capacity_ = 0;
    std::shared_ptr<detail::SendPool> pool_;  // a chunk of it, or
    detail::SendPool::Taken taken_;
    detail::Fd memory_;  // memory of its own
    detail::Mapping mapping_;
    std::uint64_t epoch_ = 0;
};

}  // namespace ipcfs
