// Payload: the body of a large message, without copying it. A value: what bytes() returns stays
// valid and unchanged while a copy lives. Thread-safe.
//
// sealed  in memory that cannot be written any more; mapped on first use.
// pooled  a chunk of memory that the sender lends; given back when the last copy is destroyed. The
//         sender can still write it: `payloads pooled` says that sender and receivers trust each
// other.
// lazy, handoff  not accessible as bytes: see page_map.hpp, lazy.hpp and region.hpp.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include <ipcfs/connection.hpp>
#include <ipcfs/control.hpp>
#include <ipcfs/memory.hpp>
#include <ipcfs/pool.hpp>
#include <ipcfs/process.hpp>
#include <ipcfs/result.hpp>
#include <ipcfs/wait.hpp>

namespace ipcfs {
namespace detail {

// Gives back a reference to a chunk and wakes a waiting sender.
inline void give_back_chunk(PoolLedger& ledger, std::uint32_t chunk,
                            std::uint32_t generation) noexcept {
    if (!pool_give_back(ledger.chunks()[chunk], generation)) return;
    ledger.freed.fetch_add(1);
    if (ledger.waiters.load() != 0) futex_wake_all(ledger.freed);
}

// Whether the shape that the daemon sent is valid and its memory addressable; sets `total`, its
// size in bytes.
inline bool pool_fits(const ControlPool& pool, std::uint64_t& total) noexcept {
    if (pool.chunk_count == 0 || pool.chunk_count > kMaxPoolChunks || pool.chunk_size == 0 ||
        pool.stride < pool.chunk_size || pool.stride % kPage != 0)
        return false;
    std::uint64_t end = 0;
    if (__builtin_mul_overflow(pool.stride, std::uint64_t{pool.chunk_count} - 1, &end) ||
        __builtin_add_overflow(end, pool.chunk_size, &total))
        return false;
    return total <= PTRDIFF_MAX;
}

// Maps a pool's ledger from the daemon. ENOTSUP: a version that this program does not know.
inline Expected<Mapping> map_ledger(int fd, std::uint32_t chunks, const char* operation) {
    const std::size_t size = pool_ledger_size(chunks);
    if (!has_size(fd, size) || (seals_of(fd) & F_SEAL_SHRINK) == 0) return Error{EPROTO, operation};
    auto mapped = map_shared(fd, size, PROT_READ | PROT_WRITE, operation);
    if (!mapped) return mapped;
    const auto* ledger = reinterpret_cast<const PoolLedger*>(mapped->data());
    if (ledger->magic != kPoolMagic || ledger->version != 1) return Error{ENOTSUP, operation};
    return mapped;
}

// A sender's pool, mapped read-only once and kept.
class ReceivedPool {
public:
    static Expected<std::shared_ptr<ReceivedPool>> map(const std::string& mount, std::uint64_t id) {
        constexpr const char* kOperation = "map pool";
        auto reply = Connection::request(mount, ControlOp::kPoolMap, ControlId{id});
        if (!reply) return std::move(reply).error();
        if (reply->fds.size() != 2) return Error{EPROTO, kOperation};
        return from(reply->as<ControlPool>(), reply->fds[0].get(), reply->fds[1].get());
    }

    // `memory` may be read-only.
    static Expected<std::shared_ptr<ReceivedPool>> from(const ControlPool& pool, int memory,
                                                        int ledger) {
        constexpr const char* kOperation = "map pool";
        std::uint64_t total = 0;
        if (!pool_fits(pool, total)) return Error{EPROTO, kOperation};
        // Without this seal the sender could truncate the memory and cause SIGBUS here.
        if (!has_size(memory, total) || (seals_of(memory) & F_SEAL_SHRINK) == 0)
            return Error{EPROTO, kOperation, "the pool's memory is not sealed"};
        auto made = std::make_shared<ReceivedPool>();
        made->shape_ = pool;
        auto data = map_shared(memory, total, PROT_READ, kOperation);
        if (!data) return std::move(data).error();
        made->data_ = std::move(*data);
        auto shared = map_ledger(ledger, pool.chunk_count, kOperation);
        if (!shared) return std::move(shared).error();
        made->ledger_ = std::move(*shared);
        return made;
    }

    // The bytes of a chunk; empty if `ref` names no chunk of this pool.
    std::optional<std::span<const std::byte>> bytes(const PayloadRef& ref) const noexcept {
        if (ref.chunk >= shape_.chunk_count || ref.size > shape_.chunk_size) return std::nullopt;
        return std::span<const std::byte>(data_.data() + shape_.stride * ref.chunk,
                                          static_cast<std::size_t>(ref.size));
    }
    PoolLedger& ledger() const noexcept { return *reinterpret_cast<PoolLedger*>(ledger_.data()); }

    std::uint32_t sender_pid = 0;  // of the last message; used to forget dead senders
    std::uint64_t last_used = 0;   // message count at the last use

private:
    ControlPool shape_;
    Mapping data_;
    Mapping ledger_;
};

// Shared by the copies of a Payload.
class Hold {
public:
    Hold(const PayloadRef& ref, std::uint64_t id, std::string mount) noexcept
        : ref_(ref), id_(id), mount_(std::move(mount)) {}
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;
    ~Hold() {
        // In a forked child the parent still owns the reference.
        if (pool_ && epoch_ == process_epoch())
            give_back_chunk(pool_->ledger(), ref_.chunk, ref_.generation);
        if (!pool_)
            Mapping(const_cast<std::byte*>(data_.load()), 0,
                    mapped_length(static_cast<std::size_t>(ref_.size)));
    }

    // Before sharing, call set_file(), set_chunk() or fail(); none of them for lazy payloads and
    // regions.
    void set_file(Fd file) noexcept { file_ = std::move(file); }
    void set_chunk(std::shared_ptr<ReceivedPool> pool, std::span<const std::byte> bytes) noexcept {
        pool_ = std::move(pool);
        epoch_ = process_epoch();
        data_.store(bytes.data(), std::memory_order_release);
    }
    void fail(Error error) { error_ = std::move(error); }

    // Lock-free, since a forked child could find a lock taken: the thread that comes second drops
    // its mapping.
    Expected<std::span<const std::byte>> map() {
        const auto size = static_cast<std::size_t>(ref_.size);
        const std::byte* data = data_.load(std::memory_order_acquire);
        if (data != nullptr) return std::span(data, size);
        if (error_) return *error_;
        if (ref_.kind == PayloadKind::kLazy || ref_.kind == PayloadKind::kHandoff)
            return Error{ENOTSUP, "map payload", "use page_map or Region::claim"};
        if (size == 0) return std::span<const std::byte>();
        if (!has_size(file_.get(), size)) return Error{EPROTO, "map payload"};
        auto mapped = map_shared(file_.get(), size, PROT_READ, "map payload");
        if (!mapped) return std::move(mapped).error();
        if (data_.compare_exchange_strong(data, mapped->data(), std::memory_order_acq_rel))
            data = mapped->release();
        return std::span(data, size);
    }

    const PayloadRef& ref() const noexcept { return ref_; }
    std::uint64_t id() const noexcept { return id_; }
    const std::string& mount() const noexcept { return mount_; }
    int fd() const noexcept { return file_.get(); }

private:
    const PayloadRef ref_;
    const std::uint64_t id_;
    const std::string mount_;
    Fd file_;                             // sealed: payload/<id>
    std::shared_ptr<ReceivedPool> pool_;  // pooled
    std::uint64_t epoch_ = 0;
    std::optional<Error> error_;
    std::atomic<const std::byte*> data_{nullptr};  // set once mapped
};

}  // namespace detail

class Payload {
public:
    // An empty payload, of size 0.
    Payload() = default;
    explicit Payload(std::shared_ptr<detail::Hold> hold) noexcept : hold_(std::move(hold)) {}

    explicit operator bool() const noexcept { return hold_ != nullptr; }
    // The kind, as set by the daemon.
    PayloadKind kind() const noexcept { return hold_ ? hold_->ref().kind : PayloadKind::kSealed; }
    // The size in bytes.
    std::uint64_t size() const noexcept { return hold_ ? hold_->ref().size : 0; }
    // The id, as in payload/<id>.
    std::uint64_t id() const noexcept { return hold_ ? hold_->id() : 0; }

    // The bytes; mapped read-only at the first call. ENOMEM, EMFILE and similar if that fails;
    // ENOENT or ESTALE if the payload could not be opened; ENOTSUP for kinds lazy and handoff.
    Expected<std::span<const std::byte>> map() const {
        if (!hold_) return std::span<const std::byte>();
        return hold_->map();
    }
    // Like map(), but empty if that fails.
    std::span<const std::byte> bytes() const {
        auto mapped = map();
        return mapped ? *mapped : std::span<const std::byte>();
    }

    // The open file of a sealed payload, for reading, or -1. The payload owns it: do not close it.
    int fd() const noexcept { return hold_ ? hold_->fd() : -1; }
    // The mount it came from; empty if unknown.
    const std::string& mount() const noexcept {
        static const std::string none;
        return hold_ ? hold_->mount() : none;
    }

private:
    std::shared_ptr<detail::Hold> hold_;
};

}  // namespace ipcfs
