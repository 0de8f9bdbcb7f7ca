// Shared regions. Any thread; memory is moved without the table's lock.
#include <algorithm>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <payload/memory.hpp>

#include <tree/shares.hpp>

namespace ipcfs::tree {
namespace {

Fault not_there() {
    return Fault{ENOENT, "share: no such region"};
}

}  // namespace

Region::~Region() {
    if (size() == 0) return;
    auto last = payload::reopen_read_only(memory_.get());
    memory_.reset();
    if (last) store_.let_go(std::move(*last), size(), std::move(charge_));
}

Result<RegionPtr> Shares::make(std::uint64_t channel) {
    std::uint64_t id = next_id_++;
    auto memory = payload::make_memory("ipcfs-region-" + std::to_string(id));
    if (!memory) return memory.error();
    return std::make_shared<Region>(id, channel, std::move(*memory), store_);
}

// Under the lock.
Shares::Range Shares::names_of(std::uint64_t channel) const {
    return {names_.lower_bound({channel, {}}), names_.lower_bound({channel + 1, {}})};
}

// Under the lock. Attributes stay for those who have the region open.
void Shares::orphan(Names::const_iterator name) {
    regions_.at(name->second).region.reset();
    names_.erase(name);
    std::erase_if(regions_, [](const auto& each) { return each.second.last.expired(); });
}

Result<RegionPtr> Shares::create(std::uint64_t channel, std::string_view name,
                                 channel::Attributes attributes) {
    std::scoped_lock hold(mutex_);
    if (names_.contains({channel, name})) return Fault{EEXIST, "share: the name is taken"};
    if (const auto [at, end] = names_of(channel); std::distance(at, end) >= kMostRegions) {
        return Fault{ENFILE,
                     "share: " + std::to_string(kMostRegions) + " regions are there already"};
    }
    auto region = make(channel);
    if (!region) return region.error();
    const std::uint64_t id = (*region)->id;
    (*region)->modified_ = clock_.realtime();
    const auto entry =
        regions_.emplace(id, Entry{*region, *region, std::string(name), std::move(attributes)});
    names_.emplace(Names::key_type(channel, entry.first->second.name), id);
    return region;
}

RegionPtr Shares::find(std::uint64_t id) const {
    std::scoped_lock hold(mutex_);
    auto at = regions_.find(id);
    return at == regions_.end() ? nullptr : at->second.last.lock();
}

RegionPtr Shares::find(std::uint64_t channel, std::string_view name) const {
    std::scoped_lock hold(mutex_);
    auto at = names_.find({channel, name});
    return at == names_.end() ? nullptr : regions_.at(at->second).region;
}

void Shares::list(std::uint64_t channel, std::uint64_t after,
                  const std::function<bool(std::uint64_t, std::string_view)>& visit) const {
    std::scoped_lock hold(mutex_);
    std::map<std::uint64_t, std::string_view> ordered;
    for (auto [at, end] = names_of(channel); at != end; ++at) {
        if (at->second > after) ordered.emplace(at->second, at->first.second);
    }
    for (const auto& [id, name] : ordered) {
        if (!visit(id, name)) return;
    }
}

Result<void> Shares::unlink(std::uint64_t channel, std::string_view name) {
    std::scoped_lock hold(mutex_);
    auto at = names_.find({channel, name});
    if (at == names_.end()) return not_there();
    orphan(at);
    return {};
}

Result<void> Shares::rename(std::uint64_t channel, std::string_view from, std::string_view to,
                            bool keep) {
    std::scoped_lock hold(mutex_);
    auto at = names_.find({channel, from});
    if (at == names_.end()) return not_there();
    if (from == to) return {};
    if (auto there = names_.find({channel, to}); there != names_.end()) {
        if (keep) return Fault{EEXIST, "share: the name is taken"};
        orphan(there);
    }
    const std::uint64_t id = at->second;
    names_.erase(at);
    std::string& name = regions_.at(id).name;
    name = to;
    names_.emplace(Names::key_type(channel, name), id);
    return {};
}

bool Shares::empty(std::uint64_t channel) const {
    std::scoped_lock hold(mutex_);
    const auto [at, end] = names_of(channel);
    return at == end;
}

void Shares::forget(std::uint64_t channel) {
    std::scoped_lock hold(mutex_);
    for (auto [at, end] = names_of(channel); at != end;) orphan(at++);
}

Result<void> Shares::resize(Region& region, std::uint64_t size, std::uint64_t most) {
    if (size > most) return Fault{EFBIG, "share: larger than max-payload"};
    uid_t owner = 0;
    read(region.id, [&](const channel::Attributes& attributes) { owner = attributes.uid; });
    std::scoped_lock hold(region.resizing_);
    if (region.revoked()) return Fault{ESTALE, "share: the region was revoked"};
    if (size > region.size()) {
        auto room = store_.budget().take(ledger_.account(owner), size - region.size());
        if (!room) return room.error();
    }
    if (::ftruncate(region.memory_.get(), static_cast<off_t>(size)) != 0) {
        return errno_fault("share: ftruncate");
    }
    // One charge for the whole: what it was is refunded as this takes its place.
    region.charge_ =
        access::Charge::force(ledger_.account(owner), access::Resource::kPayloadBytes, size);
    region.size_ = size;
    region.modified_ = clock_.realtime();
    return {};
}

Result<void> Shares::write(Region& region, std::span<const std::byte> data, std::uint64_t at,
                           std::uint64_t most) {
    std::uint64_t end = 0;
    if (__builtin_add_overflow(at, data.size(), &end)) return Fault{EFBIG, "share: write"};
    if (end > region.size()) {
        if (auto grown = resize(region, end, most); !grown) return grown;
    }
    while (!data.empty()) {
        ssize_t done = ::pwrite(region.memory(), data.data(), data.size(), static_cast<off_t>(at));
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) return errno_fault("share: write");
        data = data.subspan(static_cast<std::size_t>(done));
        at += static_cast<std::uint64_t>(done);
    }
    if (region.revoked()) return Fault{ESTALE, "share: the region was revoked"};
    region.modified_ = clock_.realtime();
    return {};
}

// The region can no longer be written or resized. Moves its memory to `into`.
Result<Shares::Taken> Shares::empty_out(Region& region, Fd into) {
    std::scoped_lock hold(region.resizing_);
    region.revoked_.store(true, std::memory_order_release);
    Taken taken;
    taken.size = region.size();
    taken.memory = std::move(into);
    if (auto moved = payload::move_content(region.memory(), taken.memory.get(), taken.size);
        !moved) {
        return moved.error();
    }
    // Writers that still have the old memory must not make it longer.
    ::fcntl(region.memory(), F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK);
    taken.charge = std::move(region.charge_);
    region.size_ = 0;
    return taken;
}

Result<void> Shares::revoke(std::uint64_t channel, std::string_view name) {
    RegionPtr old, fresh;
    {
        std::scoped_lock hold(mutex_);
        auto at = names_.find({channel, name});
        if (at == names_.end()) return not_there();
        auto made = make(channel);
        if (!made) return made.error();
        fresh = std::move(*made);
        fresh->resizing_.lock();  // nobody else knows it; opened meanwhile, it waits to be filled
        auto entry = regions_.extract(at->second);
        old = std::exchange(entry.mapped().region, fresh);
        entry.mapped().last = fresh;
        entry.key() = at->second = fresh->id;
        regions_.insert(std::move(entry));
    }
    Result<void> done;
    // Clients' kernels may hold unwritten data of the content.
    if (on_revoked_) on_revoked_(old->id);
    Fd into(::fcntl(fresh->memory(), F_DUPFD_CLOEXEC, 3));
    auto taken = into ? empty_out(*old, std::move(into))
                      : Result<Taken>(errno_fault("share: duplicate a descriptor"));
    if (taken) {
        fresh->size_ = taken->size;
        fresh->charge_ = std::move(taken->charge);
        fresh->modified_ = clock_.realtime();
    } else {
        done = taken.error();
    }
    fresh->resizing_.unlock();
    store_.counters.revocations.fetch_add(1, std::memory_order_relaxed);
    if (on_revoked_) on_revoked_(old->id);
    return done;
}

Result<Shares::Taken> Shares::take_away(std::uint64_t channel, std::string_view name) {
    decltype(regions_)::node_type entry;
    {
        std::scoped_lock hold(mutex_);
        auto at = names_.find({channel, name});
        if (at == names_.end()) return not_there();
        entry = regions_.extract(at->second);
        names_.erase(at);
    }
    const RegionPtr old = std::move(entry.mapped().region);
    if (on_revoked_) on_revoked_(old->id);
    auto into = payload::make_memory("ipcfs-handoff-" + std::to_string(old->id));
    if (!into) return into.error();
    auto taken = empty_out(*old, std::move(*into));
    if (taken) taken->attributes = std::move(entry.mapped().attributes);
    if (on_revoked_) on_revoked_(old->id);
    return taken;
}

Result<void> Shares::put_back(std::uint64_t channel, std::string_view name, Taken taken) {
    auto region = create(channel, name, std::move(taken.attributes));
    if (!region) return region.error();
    std::scoped_lock hold((*region)->resizing_);
    (*region)->memory_ = std::move(taken.memory);
    (*region)->size_ = taken.size;
    (*region)->charge_ = std::move(taken.charge);
    return {};
}

bool Shares::read(std::uint64_t id,
                  const std::function<void(const channel::Attributes&)>& use) const {
    std::scoped_lock hold(mutex_);
    auto at = regions_.find(id);
    if (at == regions_.end()) return false;
    use(at->second.attributes);
    return true;
}

bool Shares::change(std::uint64_t id, const std::function<void(channel::Attributes&)>& use) {
    std::scoped_lock hold(mutex_);
    auto at = regions_.find(id);
    if (at == regions_.end()) return false;
    uid_t before = at->second.attributes.uid;
    use(at->second.attributes);
    if (uid_t owner = at->second.attributes.uid; owner != before) {
        if (auto region = at->second.last.lock()) {
            std::scoped_lock resizing(region->resizing_);
            region->charge_ = access::Charge::force(
                ledger_.account(owner), access::Resource::kPayloadBytes, region->size());
        }
    }
    return true;
}

std::vector<payload::Usage> Shares::usage() const {
    std::map<uid_t, std::pair<std::uint64_t, std::uint64_t>> sums;
    std::scoped_lock hold(mutex_);
    for (const auto& [id, entry] : regions_) {
        auto region = entry.last.lock();
        if (!region) continue;
        auto& [count, bytes] = sums[entry.attributes.uid];
        ++count;
        bytes += region->size();
    }
    std::vector<payload::Usage> lines;
    for (const auto& [uid, sum] : sums) {
        lines.push_back({"region", "live", uid, sum.first, sum.second});
    }
    return lines;
}

}  // namespace ipcfs::tree
