// The regions of share/: memory with a name, an owner, a mode and ACLs, that whoever may open it maps.
// A region is charged to its owner by its size. Revoking moves its content to new memory under a new
// node id: what was mapped before faults, what was open before answers ESTALE. Thread-safe.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include <payload/payload.hpp>

#include <channel/registry.hpp>

namespace ipcfs::tree {

class Region {
public:
    const std::uint64_t id, channel;
    Region(std::uint64_t region_id, std::uint64_t of_channel, Fd memory, payload::Store& store)
        : id(region_id), channel(of_channel), store_(store), memory_(std::move(memory)) {}
    // It stays charged while somebody has it mapped.
    ~Region();

    int memory() const noexcept { return memory_.get(); }
    std::uint64_t size() const noexcept { return size_.load(std::memory_order_relaxed); }
    bool revoked() const noexcept { return revoked_.load(std::memory_order_acquire); }
    Nanos modified() const noexcept { return modified_.load(std::memory_order_relaxed); }

private:
    friend class Shares;
    payload::Store& store_;
    Fd memory_;
    std::atomic<std::uint64_t> size_{0};
    std::atomic<bool> revoked_{false};
    std::atomic<Nanos> modified_{0};
    std::mutex resizing_;  // of the size, the memory's length and charge_
    access::Charge charge_;
};
using RegionPtr = std::shared_ptr<Region>;

class Shares {
public:
    Shares(access::Ledger& ledger, const Clock& clock, payload::Store& store)
        : ledger_(ledger), clock_(clock), store_(store) {}

    // Ids from here on, so that none of an earlier life is used again.
    void start_ids(std::uint64_t first) noexcept { next_id_ = first; }
    // EEXIST; ENFILE beyond kMostRegions of a channel.
    Result<RegionPtr> create(std::uint64_t channel, std::string_view name,
                             channel::Attributes attributes);
    RegionPtr find(std::uint64_t id) const;
    RegionPtr find(std::uint64_t channel, std::string_view name) const;
    // Regions of a channel with an id above `after`, in order of id, until `visit` returns false. It
    // runs under the lock: it copies, and calls nothing.
    void list(std::uint64_t channel, std::uint64_t after,
              const std::function<bool(std::uint64_t, std::string_view)>& visit) const;
    // The name goes; what is mapped or open stays until it is let go. ENOENT.
    Result<void> unlink(std::uint64_t channel, std::string_view name);
    Result<void> rename(std::uint64_t channel, std::string_view from, std::string_view to,
                        bool keep);
    bool empty(std::uint64_t channel) const;
    void forget(std::uint64_t channel);  // the channel is gone

    // Charges what it grows by: EDQUOT, ENOSPC; EFBIG over `most`; ESTALE when it was revoked.
    Result<void> resize(Region& region, std::uint64_t size, std::uint64_t most);
    // Writes that reach beyond the end make it longer first.
    Result<void> write(Region& region, std::span<const std::byte> data, std::uint64_t at,
                       std::uint64_t most);

    // Both take long with much memory: for a worker. revoke() gives the region new memory; take_away()
    // gives it to the caller. ENOENT.
    struct Taken {
        Fd memory;
        std::uint64_t size = 0;
        access::Charge charge;
        channel::Attributes attributes;
    };
    Result<void> revoke(std::uint64_t channel, std::string_view name);
    Result<Taken> take_away(std::uint64_t channel, std::string_view name);
    // The opposite of take_away(). EEXIST.
    Result<void> put_back(std::uint64_t channel, std::string_view name, Taken taken);

    bool read(std::uint64_t id, const std::function<void(const channel::Attributes&)>& use) const;
    bool change(std::uint64_t id, const std::function<void(channel::Attributes&)>& use);

    std::vector<payload::Usage> usage() const;

    // Called with the id of a region before and after its memory moves: what clients' kernels have cached
    // of it must be written, and go. Set before use.
    void on_revoked(std::function<void(std::uint64_t id)> call) { on_revoked_ = std::move(call); }

private:
    static constexpr std::ptrdiff_t kMostRegions = 4096;
    struct Entry {
        RegionPtr region;            // null once unlinked,
        std::weak_ptr<Region> last;  // while somebody may have it open
        std::string name;
        channel::Attributes attributes;
    };
    // By channel and name, which is that of the entry.
    using Names = std::map<std::pair<std::uint64_t, std::string_view>, std::uint64_t>;

    Result<RegionPtr> make(std::uint64_t channel);
    using Range = std::pair<Names::const_iterator, Names::const_iterator>;
    Range names_of(std::uint64_t channel) const;
    void orphan(Names::const_iterator name);
    Result<Taken> empty_out(Region& region, Fd into);

    access::Ledger& ledger_;
    const Clock& clock_;
    payload::Store& store_;
    std::function<void(std::uint64_t)> on_revoked_;
    mutable std::mutex mutex_;
    std::atomic<std::uint64_t> next_id_{1};
    std::map<std::uint64_t, Entry> regions_;  // those with a name, and the unlinked ones still open
    Names names_;
};

}  // namespace ipcfs::tree
