// A large message body: sealed memory, a chunk of a pool, memory that its producer fills on demand,
// or a region that is handed over. Messages and open files share it. When the last reference goes,
// its memory is freed, unless another process still has it mapped: then the store keeps it charged
// until none has. Thread-safe.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <string_view>
#include <sys/types.h>
#include <vector>

#include <payload/budget.hpp>
#include <payload/pool.hpp>

#include <access/account.hpp>
#include <base/fd.hpp>
#include <base/guarded.hpp>
#include <insight/metric.hpp>
#include <ipcfs/frame.hpp>

namespace ipcfs::payload {

class Store;

// Memory of a receiver into which a lazy payload is to be put.
struct LazyRange {
    std::uint64_t payload = 0;  // id
    std::uint64_t address = 0;  // in the receiver; a multiple of the page size
    std::uint64_t length = 0;   // bytes, a multiple of the page size
    bool is_whole = false;      // a memfd to fill completely; else a userfaultfd on the range
    uid_t uid = 0;              // of the receiver
    pid_t pid = 0;
};

// The process that fills a lazy payload. Called without locks, from any thread.
class Producer {
public:
    virtual ~Producer() = default;
    // Passes a receiver's `memory` (a userfaultfd or memfd) and `link` (its socket) to the
    // producer. False if the producer is gone.
    virtual bool serve(const LazyRange& wanted, Fd memory, Fd link) noexcept = 0;
    // No message refers to the payload any more.
    virtual void gone(std::uint64_t payload) noexcept = 0;
};

class Payload : public std::enable_shared_from_this<Payload> {
public:
    ~Payload();
    Payload(const Payload&) = delete;
    Payload& operator=(const Payload&) = delete;

    const std::uint64_t id;
    const std::uint64_t channel;  // the channel whose payload/ lists it
    const PayloadKind kind;
    const std::uint64_t size;  // bytes

    // The file that holds the bytes; -1 for a lazy payload and for a claimed region.
    int file() const noexcept { return memory_ ? memory_.get() : pool_ ? pool_->memory() : -1; }
    std::uint64_t offset() const noexcept { return pool_ ? pool_->offset(chunk_) : 0; }
    PayloadRef ref() const noexcept;

    // Charges the payload to the receiver `to`. If `framed`, process `reader` also becomes the
    // holder of a chunk, or may claim a region.
    void delivered(access::Account& to, pid_t reader, bool framed) noexcept;

    // Undoes queueing: a chunk stays the sender's.
    void withdraw() noexcept;

    // Hands a region's memory to the process that received it, once. Empty for other processes, and
    // for a second call.
    std::optional<Fd> claim(pid_t by) noexcept;
    // Takes memory and charge out of a region that was not queued.
    std::pair<Fd, access::Charge> take_back() noexcept;
    // The producer of a lazy payload; null if it is gone.
    std::shared_ptr<Producer> producer() const noexcept { return producer_.lock(); }

    std::atomic<bool> is_saved{false};  // the durable store keeps a copy

    std::atomic<std::uint32_t> opens{0};  // open files of payload/<id>
    uid_t uid() const noexcept { return uid_.load(std::memory_order_relaxed); }  // the user charged
    bool is_delivered() const noexcept { return is_delivered_.load(std::memory_order_relaxed); }

private:
    friend class Store;
    Payload(Store& store, std::uint64_t id, std::uint64_t channel, PayloadKind kind,
            std::uint64_t size);

    Store& store_;
    Fd memory_;  // read-only but for a region
    std::shared_ptr<Pool> pool_;
    std::uint32_t chunk_ = 0, generation_ = 0;
    std::weak_ptr<Producer> producer_;
    std::mutex mutex_;  // guards charge_, reader_, and memory_ of a region
    access::Charge charge_;
    pid_t reader_ = 0;
    bool framed_ = false;
    bool is_lent_ = false;  // the receiver must give the chunk back
    std::atomic<uid_t> uid_{0};
    std::atomic<bool> is_delivered_{false};
};

using PayloadPtr = std::shared_ptr<Payload>;

struct Counters {
    std::atomic<std::uint64_t> handovers{0}, handoffs{0}, revocations{0}, lazy_faults{0},
        lazy_pages{0}, sealed_copies{0}, reclaimed{0};
};
// The lines `counter` of kern/ipc/stats/mappings.
struct CounterFigures {
    const Counters& counters;
    std::uint64_t pool_hits, pool_misses, refused;
};
std::span<const insight::Metric<CounterFigures>> counter_metrics() noexcept;

// One line of kern/ipc/stats/mappings.
struct Usage {
    std::string_view object;
    std::string_view state;
    uid_t uid;
    std::uint64_t count;
    std::uint64_t bytes;
};

// All payloads and pools by id. Must outlive them. Thread-safe.
class Store {
public:
    Store(access::Ledger& ledger, Budget& budget) : ledger_(ledger), budget_(budget) {}
    ~Store();

    // `memory` must be a read-only descriptor of sealed memory.
    PayloadPtr add_sealed(std::uint64_t channel, Fd memory, std::uint64_t size, uid_t uid,
                          access::Charge charge) {
        return add_memory(channel, PayloadKind::kSealed, std::move(memory), size, uid,
                          std::move(charge));
    }
    // Recreates sealed payload `id` from the first `size` bytes of `file` after a restart.
    Result<PayloadPtr> restore(std::uint64_t id, std::uint64_t channel, int file,
                               std::uint64_t size, uid_t uid);
    // Sets the first id, above those of earlier runs. Call before adding payloads.
    void start_ids(std::uint64_t first) noexcept { next_id_ = first; }
    std::uint64_t next_id() const noexcept { return next_id_; }
    // EINVAL, EBUSY and EPERM as Pool::enqueue(); EINVAL also for an unknown pool, EPERM for one of
    // another user or channel.
    Result<PayloadPtr> add_pooled(std::uint64_t channel, const PayloadRef& ref, uid_t uid);
    PayloadPtr add_lazy(std::uint64_t channel, std::uint64_t size, uid_t uid,
                        std::weak_ptr<Producer> producer);
    PayloadPtr add_region(std::uint64_t channel, Fd memory, std::uint64_t size, uid_t uid,
                          access::Charge charge) {
        return add_memory(channel, PayloadKind::kHandoff, std::move(memory), size, uid,
                          std::move(charge));
    }

    PayloadPtr find(std::uint64_t id) const;
    // Ids above `after` of a channel's sealed and pooled payloads, ascending.
    std::vector<std::uint64_t> list(std::uint64_t channel, std::uint64_t after) const;

    // `charge` covers the size of the pool's memory.
    Result<std::shared_ptr<Pool>> open_pool(std::uint64_t channel, uid_t uid, pid_t pid,
                                            const PoolShape& shape, const Fd& memory,
                                            access::Charge charge);
    std::shared_ptr<Pool> pool(std::uint64_t id) const;
    // Closes a pool to new messages; lent chunks stay lent. ENOENT; EPERM for another user's pool.
    Result<void> close_pool(std::uint64_t id, uid_t uid);
    // Closes the pools of a process that has ended and reclaims the chunks that it held.
    void process_gone(pid_t pid) noexcept;

    // Releases memory; it stays charged while another process has it open or mapped.
    void let_go(Fd read_only, std::uint64_t size, access::Charge charge) noexcept;
    // Forgets memory that no process maps any more and reclaims chunks of dead processes. Call
    // periodically. Returns how many memory files are still mapped.
    std::size_t sweep() noexcept;
    std::vector<Usage> usage() const;

    // Frees large memory elsewhere: the kernel takes 100 ms for 1 GiB, too long for a client's
    // request. Set before use; without it, memory is freed by the calling thread.
    void set_deallocator(std::function<void(Fd)> free) { free_ = std::move(free); }

    // Called when a payload with a stored copy is destroyed. Set before use.
    void on_saved_gone(std::function<void(std::uint64_t id)> tell) {
        saved_gone_ = std::move(tell);
    }

    Budget& budget() noexcept { return budget_; }
    access::Ledger& ledger() noexcept { return ledger_; }
    Counters counters;

private:
    friend class Payload;
    // Memory whose payload is destroyed but which a client may still map.
    struct Mapped {
        Fd memory;
        access::Charge charge;
        std::uint64_t size;
        uid_t uid;
    };
    struct Tables {
        std::map<std::uint64_t, Payload*> payloads;
        std::map<std::uint64_t, std::set<std::uint64_t>> listed;  // by channel
        std::map<std::uint64_t, std::shared_ptr<Pool>> pools;     // open ones
        std::map<std::uint64_t, std::weak_ptr<Pool>> closed;      // with chunks still lent
        std::vector<Mapped> mapped;
        std::uint64_t hits = 0, misses = 0;  // of closed pools
    };

    std::unique_ptr<Payload> make(std::uint64_t channel, PayloadKind kind, std::uint64_t size,
                                  uid_t uid);
    PayloadPtr add(std::unique_ptr<Payload> payload);
    PayloadPtr add_memory(std::uint64_t channel, PayloadKind kind, Fd memory, std::uint64_t size,
                          uid_t uid, access::Charge charge);
    void free(Fd memory, std::uint64_t size) noexcept;
    void retire(Payload& payload) noexcept;
    static void close(Tables& tables, const std::shared_ptr<Pool>& pool);
    void reclaim() noexcept;

    static constexpr std::uint64_t kLargeMemory = 1U << 20;  // bytes; freeing takes some 150 us

    access::Ledger& ledger_;
    Budget& budget_;
    std::function<void(Fd)> free_;
    std::function<void(std::uint64_t)> saved_gone_;
    std::atomic<std::uint64_t> next_id_{1};
    mutable Guarded<Tables> tables_;
};

}  // namespace ipcfs::payload
