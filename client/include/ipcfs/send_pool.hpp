// A sender's pools: chunks of shared memory, each lent for one message, that return when the
// receivers are done. The daemon helps to create a pool, not to use it. Internal to the client
// header except PoolOptions.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
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

// For the pools that a Channel makes if its `payloads` is `pooled`: one for each power of two from
// min_chunk on, at the first loan of that size.
struct PoolOptions {
    bool enabled = true;                 // false: all loans use sealed memory
    std::uint32_t chunks = 8;            // chunks of a pool; 1 to kMaxPoolChunks
    std::uint64_t min_chunk = 64 << 10;  // bytes
    std::uint64_t max_bytes = std::uint64_t{1}
                              << 30;  // a pool has fewer chunks rather than be larger; but two
    bool huge_pages = true;           // for chunks from 2 MiB on, if available
};

namespace detail {

inline constexpr unsigned kSealsPool = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE;

// A pool of this process. Taking a chunk is one atomic operation: no system call, no lock.
// Thread-safe.
class SendPool : public std::enable_shared_from_this<SendPool> {
public:
    struct Taken {
        std::uint32_t chunk = 0;
        std::uint32_t generation = 0;  // 0: no chunk was free
    };

    // Creates the memory and opens the pool at the daemon. EPERM if the channel's `payloads` is
    // `sealed`, and other errors of the daemon.
    static Expected<std::shared_ptr<SendPool>> open(const std::string& mount,
                                                    const std::string& channel, std::uint64_t chunk,
                                                    std::uint32_t count, bool huge_pages) {
        if (huge_pages && chunk >= kHugePage) {
            auto made = open_with(mount, channel, chunk, count, true, MFD_HUGETLB | MFD_HUGE_2MB);
            if (made || made.error().code == EPERM) return made;
        }
        return open_with(mount, channel, chunk, count, huge_pages, 0);
    }

    // Uses existing memory and an existing ledger.
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

    // Takes a free chunk. In a small pool, the lowest one, which is most likely to be in the cache.
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

    // Like take(), but waits for a chunk to return.
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
            // A peer may have died after giving back and before waking: recheck regularly.
            futex_wait(shared.freed, seen, std::min<Timeout>(deadline.left(), kRecheckInterval));
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
    // The reference to send, once the chunk is filled.
    PayloadRef reference(const Taken& taken, std::uint64_t size) const noexcept {
        // Release order towards the next owner of the chunk. Receivers give it back through other
        // mappings, which thread sanitizers do not see.
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
    // Whether this is a forked child that inherited the parent's pool.
    bool inherited() const noexcept { return epoch_ != process_epoch(); }
    bool usable() const noexcept {
        return !inherited() && (!connection_ || !connection_->broken());
    }
    PoolLedger& ledger() const noexcept { return *reinterpret_cast<PoolLedger*>(ledger_.data()); }

private:
    static constexpr std::uint32_t kScanned = 64;
    static constexpr Timeout kRecheckInterval = std::chrono::seconds(1);

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
        // Map it before sealing, since afterwards it cannot be mapped for writing.
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

// A channel's pools by size. Finding an existing one takes no lock and no system call.
class SendPools {
public:
    explicit SendPools(const PoolOptions& options) : options_(options) {}

    // Returns the pool for loans of `size` bytes, and creates it if needed. Null if pools cannot be
    // used: the channel does not accept them, or creation failed. `where` returns the mount and the
    // channel's path in it; called only for creation.
    template <class Where>
    SendPool* find(std::uint64_t size, Where&& where) {
        if (!options_.enabled || size > kMaxChunk) return nullptr;
        const std::uint64_t chunk = std::bit_ceil(std::max(size, floor()));
        Slot& slot = slots_[static_cast<std::size_t>(std::countr_zero(chunk))];
        SendPool* pool = slot.pool.load(std::memory_order_acquire);
        if (pool != nullptr && pool->usable() && !is_suspended(slot)) return pool;
        if (is_suspended(slot)) return nullptr;
        return make(slot, chunk, where);
    }

    bool enabled() const noexcept { return options_.enabled; }

    // The daemon refused a chunk of `pool`: do not use it for a while, or, if the daemon does not
    // know it (`unknown`), never again.
    void refused(const SendPool& pool, bool unknown) {
        Slot& slot = slots_[static_cast<std::size_t>(std::countr_zero(pool.shape().chunk_size))];
        const std::scoped_lock hold(mutex_);
        if (unknown && slot.pool.load() == &pool) slot.pool.store(nullptr);
        suspend(slot);
    }

private:
    static constexpr std::uint64_t kMaxChunk = std::uint64_t{1} << 40;
    static constexpr std::chrono::nanoseconds kRetryDelay = std::chrono::seconds(1);
    struct Slot {
        std::atomic<SendPool*> pool{nullptr};
        std::atomic<std::int64_t> suspended_until{0};  // steady clock, ns; 0: not suspended
    };

    std::uint64_t floor() const noexcept {
        return std::max<std::uint64_t>(options_.min_chunk, kPage);
    }
    static std::int64_t now() noexcept {
        return std::chrono::steady_clock::now().time_since_epoch().count();
    }
    static bool is_suspended(const Slot& slot) noexcept {
        const std::int64_t until = slot.suspended_until.load(std::memory_order_relaxed);
        return until != 0 && now() < until;
    }
    static void suspend(Slot& slot) noexcept {
        slot.suspended_until.store(now() + kRetryDelay.count());
    }

    template <class Where>
    SendPool* make(Slot& slot, std::uint64_t chunk, Where& where) {
        const std::scoped_lock hold(mutex_);
        SendPool* present = slot.pool.load(std::memory_order_acquire);
        if (is_suspended(slot)) return nullptr;
        slot.suspended_until.store(0);
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
            // A smaller pool may fit into the quota or the memory.
            const int code = made.error().code;
            const bool too_large =
                code == EDQUOT || code == ENOSPC || code == ENOMEM || code == EMSGSIZE;
            if (!too_large || count == 1) break;
            count = std::max(count / 2, 1U);
        }
        suspend(slot);
        return nullptr;
    }

    const PoolOptions options_;
    std::array<Slot, 64> slots_;
    std::mutex mutex_;  // guards creation, and kept_
    // Includes pools no longer used, since another thread may be looking at one.
    std::vector<std::shared_ptr<SendPool>> kept_;
};

}  // namespace detail
}  // namespace ipcfs
