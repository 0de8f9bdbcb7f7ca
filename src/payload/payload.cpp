// Payloads and their store. Any thread; a payload is never destroyed under the store's lock.
#include <algorithm>
#include <array>
#include <signal.h>
#include <tuple>

#include <payload/memory.hpp>
#include <payload/payload.hpp>

#include <access/guard.hpp>
#include <base/check.hpp>

namespace ipcfs::payload {

Payload::Payload(Store& store, std::uint64_t of_id, std::uint64_t of_channel, PayloadKind of_kind,
                 std::uint64_t of_size)
    : id(of_id), channel(of_channel), kind(of_kind), size(of_size), store_(store) {}

Payload::~Payload() {
    if (pool_ && !is_lent_) pool_->release(chunk_, generation_);
    if (auto producer = producer_.lock()) producer->gone(id);
    store_.retire(*this);
}

PayloadRef Payload::ref() const noexcept {
    PayloadRef ref;
    ref.kind = kind;
    ref.size = size;
    if (pool_) {
        ref.pool = pool_->id;
        ref.chunk = chunk_;
        ref.generation = generation_;
    }
    return ref;
}

void Payload::delivered(access::Account& to, pid_t reader, bool framed) noexcept {
    access::Charge before;
    {
        std::scoped_lock hold(mutex_);
        before = std::move(charge_);
        if (before.amount() > 0) {
            charge_ = access::Charge::force(to, access::Resource::kPayloadBytes, before.amount());
        }
        reader_ = reader;
        framed_ = framed;
        is_lent_ = framed;
        uid_.store(to.uid(), std::memory_order_relaxed);
        is_delivered_.store(true, std::memory_order_relaxed);
    }
    if (pool_ && framed) pool_->lend(chunk_, generation_, reader);
    store_.counters.handovers.fetch_add(1, std::memory_order_relaxed);
}

void Payload::withdraw() noexcept {
    if (!pool_) return;
    is_lent_ = true;
    pool_->cancel_enqueue(chunk_, generation_);
}

std::optional<Fd> Payload::claim(pid_t by) noexcept {
    std::scoped_lock hold(mutex_);
    if (kind != PayloadKind::kHandoff || !access::may_claim_region(reader_, by) || !framed_ ||
        !memory_) {
        return std::nullopt;
    }
    // From now on the memory is accounted as mapped by a client; see Store::retire. Both sides need
    // a reopened file: a lease does not count the descriptor that created the memory.
    auto ours = reopen_read_only(memory_.get());
    auto theirs = reopen(memory_.get());
    if (!ours || !theirs) return std::nullopt;
    memory_ = std::move(*ours);
    reader_ = 0;
    store_.counters.handoffs.fetch_add(1, std::memory_order_relaxed);
    return std::move(*theirs);
}

std::pair<Fd, access::Charge> Payload::take_back() noexcept {
    std::scoped_lock hold(mutex_);
    return {std::move(memory_), std::move(charge_)};
}

Store::~Store() {
    tables_.with([](Tables& tables) { IPCFS_CHECK(tables.payloads.empty()); });
}

PayloadPtr Store::add(std::unique_ptr<Payload> payload) {
    PayloadPtr shared(std::move(payload));
    tables_.with([&](Tables& tables) {
        tables.payloads.emplace(shared->id, shared.get());
        if (shared->kind == PayloadKind::kSealed || shared->kind == PayloadKind::kPooled) {
            tables.listed[shared->channel].insert(shared->id);
        }
    });
    return shared;
}

void Store::retire(Payload& payload) noexcept {
    if (payload.is_saved && saved_gone_) saved_gone_(payload.id);
    Mapped rest{std::move(payload.memory_), std::move(payload.charge_), payload.size,
                payload.uid()};
    bool linger = rest.memory && payload.is_delivered() && held_elsewhere(rest.memory.get());
    tables_.with([&](Tables& tables) {
        tables.payloads.erase(payload.id);
        auto listed = tables.listed.find(payload.channel);
        if (listed != tables.listed.end()) {
            listed->second.erase(payload.id);
            if (listed->second.empty()) tables.listed.erase(listed);
        }
        if (linger) tables.mapped.push_back(std::move(rest));
    });
    if (!linger) free(std::move(rest.memory), rest.size);
}

void Store::free(Fd memory, std::uint64_t size) noexcept {
    if (memory && size >= kLargeMemory && free_) free_(std::move(memory));
}

void Store::let_go(Fd read_only, std::uint64_t size, access::Charge charge) noexcept {
    if (!held_elsewhere(read_only.get())) return free(std::move(read_only), size);
    uid_t uid = charge.uid();
    tables_.with([&](Tables& tables) {
        tables.mapped.push_back({std::move(read_only), std::move(charge), size, uid});
    });
}

std::unique_ptr<Payload> Store::make(std::uint64_t channel, PayloadKind kind, std::uint64_t size,
                                     uid_t uid) {
    std::unique_ptr<Payload> made(new Payload(*this, next_id_++, channel, kind, size));
    made->uid_ = uid;
    return made;
}

PayloadPtr Store::add_memory(std::uint64_t channel, PayloadKind kind, Fd memory, std::uint64_t size,
                             uid_t uid, access::Charge charge) {
    auto made = make(channel, kind, size, uid);
    made->memory_ = std::move(memory);
    made->charge_ = std::move(charge);
    return add(std::move(made));
}

Result<PayloadPtr> Store::restore(std::uint64_t id, std::uint64_t channel, int file,
                                  std::uint64_t size, uid_t uid) {
    auto memory = make_memory("ipcfs-payload");
    if (!memory) return memory.error();
    if (auto copied = copy_content(file, 0, memory->get(), size); !copied) return copied.error();
    auto sealed = seal(memory->get());
    if (!sealed) return sealed.error();
    if (*sealed != size) return Fault{EBADMSG, "the file of a stored payload has a wrong length"};
    auto readable = reopen_read_only(memory->get());
    if (!readable) return readable.error();
    std::unique_ptr<Payload> made(new Payload(*this, id, channel, PayloadKind::kSealed, size));
    made->memory_ = std::move(*readable);
    made->charge_ =
        access::Charge::force(ledger_.account(uid), access::Resource::kPayloadBytes, size);
    made->uid_ = uid;
    return add(std::move(made));
}

Result<PayloadPtr> Store::add_pooled(std::uint64_t channel, const PayloadRef& ref, uid_t uid) {
    auto from = tables_.with([&](const Tables& tables) {
        auto at = tables.pools.find(ref.pool);
        return at == tables.pools.end() ? nullptr : at->second;
    });
    if (!from) return Fault{EINVAL, "pool: no such pool"};
    if (!access::may_send_chunk(from->owner, uid) || from->channel != channel) {
        return Fault{EPERM, "pool: it belongs to another user or channel"};
    }
    if (auto queued = from->enqueue(ref.chunk, ref.generation, ref.size); !queued) {
        return queued.error();
    }
    auto made = make(channel, PayloadKind::kPooled, ref.size, uid);
    made->pool_ = std::move(from);
    made->chunk_ = ref.chunk;
    made->generation_ = ref.generation;
    return add(std::move(made));
}

PayloadPtr Store::add_lazy(std::uint64_t channel, std::uint64_t size, uid_t uid,
                           std::weak_ptr<Producer> producer) {
    auto made = make(channel, PayloadKind::kLazy, size, uid);
    made->producer_ = std::move(producer);
    return add(std::move(made));
}

PayloadPtr Store::find(std::uint64_t id) const {
    // A payload under destruction stays in the table until retire(); weak_from_this() is then expired.
    return tables_.with([&](const Tables& tables) -> PayloadPtr {
        auto at = tables.payloads.find(id);
        return at == tables.payloads.end() ? nullptr : at->second->weak_from_this().lock();
    });
}

std::vector<std::uint64_t> Store::list(std::uint64_t channel, std::uint64_t after) const {
    return tables_.with([&](const Tables& tables) {
        std::vector<std::uint64_t> ids;
        auto listed = tables.listed.find(channel);
        if (listed != tables.listed.end()) {
            ids.assign(listed->second.upper_bound(after), listed->second.end());
        }
        return ids;
    });
}

Result<std::shared_ptr<Pool>> Store::open_pool(std::uint64_t channel, uid_t uid, pid_t pid,
                                               const PoolShape& shape, const Fd& memory,
                                               access::Charge charge) {
    auto made = Pool::make(next_id_++, channel, uid, pid, shape, memory, std::move(charge));
    if (!made) return made.error();
    tables_.with([&](Tables& tables) { tables.pools.emplace((*made)->id, *made); });
    return *made;
}

std::shared_ptr<Pool> Store::pool(std::uint64_t id) const {
    return tables_.with([&](const Tables& tables) -> std::shared_ptr<Pool> {
        if (auto at = tables.pools.find(id); at != tables.pools.end()) return at->second;
        // The sender may have closed the pool while messages with its chunks are queued.
        auto closed = tables.closed.find(id);
        return closed == tables.closed.end() ? nullptr : closed->second.lock();
    });
}

// With the lock held.
void Store::close(Tables& tables, const std::shared_ptr<Pool>& pool) {
    Pool::Use use = pool->use();
    tables.hits += use.hits;
    tables.misses += use.misses;
    tables.closed.emplace(pool->id, pool);
}

Result<void> Store::close_pool(std::uint64_t id, uid_t uid) {
    std::shared_ptr<Pool> closed;  // destroyed outside the lock
    return tables_.with([&](Tables& tables) -> Result<void> {
        auto at = tables.pools.find(id);
        if (at == tables.pools.end()) return Fault{ENOENT, "pool: no such pool"};
        if (!access::may_close_pool(at->second->owner, uid))
            return Fault{EPERM, "pool: it belongs to another user"};
        closed = std::move(at->second);
        tables.pools.erase(at);
        close(tables, closed);
        return {};
    });
}

void Store::process_gone(pid_t pid) noexcept {
    if (pid == 0) return;
    std::vector<std::shared_ptr<Pool>> touched;
    tables_.with([&](Tables& tables) {
        for (auto at = tables.pools.begin(); at != tables.pools.end();) {
            touched.push_back(at->second);
            if (at->second->pid == pid) {
                close(tables, at->second);
                at = tables.pools.erase(at);
            } else {
                ++at;
            }
        }
        for (auto at = tables.closed.begin(); at != tables.closed.end();) {
            auto pool = at->second.lock();
            if (pool) touched.push_back(std::move(pool));
            at = at->second.expired() ? tables.closed.erase(at) : std::next(at);
        }
    });
    for (const auto& each : touched) counters.reclaimed += each->reclaim(pid);
}

// Finds readers that died without a connection to the control socket, whose end would have told us.
void Store::reclaim() noexcept {
    std::set<pid_t> holders;
    tables_.with([&](const Tables& tables) {
        auto add = [&](const Pool& pool) { holders.merge(pool.holders()); };
        for (const auto& [id, pool] : tables.pools) add(*pool);
        for (const auto& [id, weak] : tables.closed) {
            if (auto pool = weak.lock()) add(*pool);
        }
    });
    for (pid_t pid : holders) {
        if (::kill(pid, 0) != 0 && errno == ESRCH) process_gone(pid);
    }
}

std::size_t Store::sweep() noexcept {
    reclaim();
    std::vector<Mapped> free;
    return tables_.with([&](Tables& tables) {
        auto& mapped = tables.mapped;
        auto gone = std::partition(mapped.begin(), mapped.end(), [](const Mapped& each) {
            return held_elsewhere(each.memory.get());
        });
        std::move(gone, mapped.end(), std::back_inserter(free));
        mapped.erase(gone, mapped.end());
        return mapped.size();
    });
}

namespace {

using insight::Value;
using enum insight::Unit;
using Figures = CounterFigures;

template <auto kMember>
Value counter(const Figures& of) {
    return (of.counters.*kMember).load(std::memory_order_relaxed);
}

constexpr std::array<insight::Metric<Figures>, 10> kCounters{{
    {{"pool_hits", kCount, "loans from open pools that found a free chunk at once"},
     insight::member<&Figures::pool_hits>},
    {{"pool_misses", kCount, "those that did not"}, insight::member<&Figures::pool_misses>},
    {{"handovers", kCount, "payloads and chunks that reached a receiver"},
     counter<&Counters::handovers>},
    {{"handoffs", kCount, "regions claimed"}, counter<&Counters::handoffs>},
    {{"revocations", kCount, "regions revoked"}, counter<&Counters::revocations>},
    {{"lazy_faults", kCount, "page faults that producers answered, as they report them"},
     counter<&Counters::lazy_faults>},
    {{"lazy_pages", kCount, "pages of 4 KiB that producers filled, as they report them"},
     counter<&Counters::lazy_pages>},
    {{"sealed_copies", kCount, "copies of pooled payloads"}, counter<&Counters::sealed_copies>},
    {{"reclaimed", kCount, "chunks that came back because a process died"},
     counter<&Counters::reclaimed>},
    {{"refused", kCount, "requests refused for want of memory or quota"},
     insight::member<&Figures::refused>},
}};

}  // namespace

std::span<const insight::Metric<CounterFigures>> counter_metrics() noexcept {
    return kCounters;
}

std::vector<Usage> Store::usage() const {
    constexpr std::array<std::string_view, 4> kObjects{"payload", "pool", "chunk", "chunk"};
    struct Sum {
        std::uint64_t count = 0, bytes = 0;
    };
    std::map<std::tuple<std::size_t, std::string_view, uid_t>, Sum> sums;
    const auto add = [&](std::size_t object, std::string_view state, uid_t uid, std::uint64_t count,
                         std::uint64_t bytes) {
        Sum& sum = sums[{object, state, uid}];
        sum.count += count;
        sum.bytes += bytes;
    };
    CounterFigures figures{counters, 0, 0, budget_.refused()};
    tables_.with([&](const Tables& tables) {
        for (const auto& [id, payload] : tables.payloads) {
            const bool is_open = payload->opens.load(std::memory_order_relaxed) > 0;
            const char* const state = payload->is_delivered() ? "held" : "queued";
            add(0, is_open ? "open" : state, payload->uid(), 1, payload->size);
        }
        for (const Mapped& each : tables.mapped) add(0, "mapped", each.uid, 1, each.size);
        figures.pool_hits = tables.hits;
        figures.pool_misses = tables.misses;
        for (const auto& [id, pool] : tables.pools) {
            const Pool::Use use = pool->use();
            const PoolShape& shape = pool->shape;
            add(1, "open", pool->owner, 1, shape.stride * shape.chunk_count);
            add(2, "queued", pool->owner, use.queued, use.queued * shape.chunk_size);
            add(3, "lent", pool->owner, use.lent, use.lent * shape.chunk_size);
            figures.pool_hits += use.hits;
            figures.pool_misses += use.misses;
        }
    });
    std::vector<Usage> lines;
    for (const auto& [key, sum] : sums) {
        const auto& [object, state, uid] = key;
        lines.push_back({kObjects[object], state, uid, sum.count, sum.bytes});
    }
    for (const auto& row : kCounters) {
        lines.push_back({"counter", row.name, 0, std::get<std::uint64_t>(row.get(figures)), 0});
    }
    return lines;
}

}  // namespace ipcfs::payload
