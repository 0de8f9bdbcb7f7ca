// A large body: sealed memory, a chunk of a pool, memory that its producer fills on demand, or a region
// that changes hands. Messages and open files share it; when the last of them lets go, its memory goes
// too, unless somebody still has it mapped: then the store keeps the account of it until nobody has.
// Thread-safe.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <sys/types.h>
#include <vector>

#include <payload/budget.hpp>
#include <payload/pool.hpp>

#include <access/account.hpp>
#include <base/fd.hpp>
#include <base/guarded.hpp>
#include <ipcfs/control.hpp>

namespace ipcfs::payload {

class Store;

// Whoever fills a lazy payload. Called without locks, from any thread.
class Producer {
public:
    virtual ~Producer() = default;
    // A receiver wants it: `memory` (a userfaultfd, or a memfd) and `link` (its socket) are passed on.
    // False: the producer is not there any more.
    virtual bool serve(const ControlLazy& wanted, Fd memory, Fd link) noexcept = 0;
    // No message refers to it any more.
    virtual void gone(std::uint64_t payload) noexcept = 0;
};

class Payload : public std::enable_shared_from_this<Payload> {
public:
    ~Payload();
    Payload(const Payload&) = delete;
    Payload& operator=(const Payload&) = delete;

    const std::uint64_t id;
    const std::uint64_t channel;  // where it is listed
    const PayloadKind kind;
    const std::uint64_t size;  // bytes

    // Where the bytes are; -1 for a lazy one, and for a region that was claimed.
    int file() const noexcept { return memory_ ? memory_.get() : pool_ ? pool_->memory() : -1; }
    std::uint64_t offset() const noexcept { return pool_ ? pool_->offset(chunk_) : 0; }
    PayloadRef ref() const noexcept;

    // Somebody received it: its bytes are the receiver's account's from now on; a chunk is the
    // process' that read the frame (`framed`), a region may be claimed by it.
    void delivered(access::Account& to, pid_t reader, bool framed) noexcept;

    // It was not queued after all: a chunk stays the sender's.
    void withdraw() noexcept;

    // A region: the memory, once, for the process that received it. Empty for others, and later.
    std::optional<Fd> claim(pid_t by) noexcept;
    // A region that was not queued after all: its memory and charge.
    std::pair<Fd, access::Charge> take_back() noexcept;
    // A lazy one's.
    std::shared_ptr<Producer> producer() const noexcept { return producer_.lock(); }

    // A copy of it is beside the store (src/store), for a durable channel.
    std::atomic<bool> is_saved{false};

    // Open files of payload/<id>.
    std::atomic<std::uint32_t> opens{0};
    uid_t uid() const noexcept { return uid_.load(std::memory_order_relaxed); }  // who is charged
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
    std::mutex mutex_;  // of charge_, reader_, and memory_ of a region
    access::Charge charge_;
    pid_t reader_ = 0;
    bool framed_ = false;
    bool passed_ = false;  // the chunk is somebody else's to give back
    std::atomic<uid_t> uid_{0};
    std::atomic<bool> is_delivered_{false};
};

using PayloadPtr = std::shared_ptr<Payload>;

struct Counters {
    std::atomic<std::uint64_t> handovers{0};    // payloads and chunks that reached a receiver
    std::atomic<std::uint64_t> handoffs{0};     // regions claimed
    std::atomic<std::uint64_t> revocations{0};  // regions revoked
    std::atomic<std::uint64_t> lazy_faults{0}, lazy_pages{0};  // as producers report them
    std::atomic<std::uint64_t> sealed_copies{0};               // of pooled ones
    std::atomic<std::uint64_t> reclaimed{0};                   // chunks that a dead process held
};

// A line of stats/mappings.
struct Usage {
    const char* object;
    const char* state;
    uid_t uid;
    std::uint64_t count;
    std::uint64_t bytes;
};

// All payloads and pools by id. Outlives them.
class Store {
public:
    Store(access::Ledger& ledger, Budget& budget) : ledger_(ledger), budget_(budget) {}
    ~Store();

    // `memory`: sealed; a read-only descriptor.
    PayloadPtr add_sealed(std::uint64_t channel, Fd memory, std::uint64_t size, uid_t uid,
                          access::Charge charge);
    // The content of a file, `size` bytes, as the sealed payload `id` again that it was before a restart.
    Result<PayloadPtr> restore(std::uint64_t id, std::uint64_t channel, int file,
                               std::uint64_t size, uid_t uid);
    // Ids from here on, so that none of an earlier life is used again. Before any payload is added.
    void start_ids(std::uint64_t first) noexcept { next_id_ = first; }
    std::uint64_t next_id() const noexcept { return next_id_; }
    // EINVAL, EBUSY, EPERM as Pool::enqueue, and for a pool of another user or channel.
    Result<PayloadPtr> add_pooled(std::uint64_t channel, const PayloadRef& ref, uid_t uid);
    PayloadPtr add_lazy(std::uint64_t channel, std::uint64_t size, uid_t uid,
                        std::weak_ptr<Producer> producer);
    PayloadPtr add_region(std::uint64_t channel, Fd memory, std::uint64_t size, uid_t uid,
                          access::Charge charge);

    PayloadPtr find(std::uint64_t id) const;
    // Ids of a channel's sealed and pooled ones, above `after`, in order.
    std::vector<std::uint64_t> list(std::uint64_t channel, std::uint64_t after) const;

    // `charge` holds the size of the pool's memory.
    Result<std::shared_ptr<Pool>> open_pool(std::uint64_t channel, uid_t uid, pid_t pid,
                                            const PoolShape& shape, const Fd& memory,
                                            access::Charge charge);
    std::shared_ptr<Pool> pool(std::uint64_t id) const;
    // No new messages from it; what is lent stays so. ENOENT, EPERM (another user's).
    Result<void> close_pool(std::uint64_t id, uid_t uid);
    // The process is gone: pools that it opened are closed, and chunks that it held come back.
    void process_gone(pid_t pid) noexcept;

    // Memory that we let go of: it stays charged while somebody else has it open or mapped.
    void let_go(Fd read_only, std::uint64_t size, access::Charge charge) noexcept;
    // What nobody has mapped any more is forgotten, and what dead processes had of pools comes back.
    // Called now and then. Returns how many are mapped.
    std::size_t sweep() noexcept;
    std::vector<Usage> usage() const;

    // Whoever frees much memory for us: the kernel takes 100 ms for a gigabyte, and no client's thread
    // has that. Set before use; without, it is freed where it is let go.
    void free_elsewhere(std::function<void(Fd)> free) { free_ = std::move(free); }

    // Who keeps copies beside the durable store: told when the payload of one is gone. Set before use.
    void on_saved_gone(std::function<void(std::uint64_t id)> tell) {
        saved_gone_ = std::move(tell);
    }

    Budget& budget() noexcept { return budget_; }
    access::Ledger& ledger() noexcept { return ledger_; }
    Counters counters;

private:
    friend class Payload;
    // Memory whose payload is gone while somebody may still have it mapped.
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
        std::uint64_t hits = 0, misses = 0;  // of pools that are closed
    };

    PayloadPtr enter(std::unique_ptr<Payload> payload);
    void free(Fd memory, std::uint64_t size) noexcept;
    void retire(Payload& payload) noexcept;
    static void close(Tables& tables, const std::shared_ptr<Pool>& pool);
    void reclaim() noexcept;

    static constexpr std::uint64_t kMuch = 1U << 20;  // bytes; some 150 us

    access::Ledger& ledger_;
    Budget& budget_;
    std::function<void(Fd)> free_;
    std::function<void(std::uint64_t)> saved_gone_;
    std::atomic<std::uint64_t> next_id_{1};
    mutable Guarded<Tables> tables_;
};

}  // namespace ipcfs::payload
