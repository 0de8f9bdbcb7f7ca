#include <algorithm>
#include <utility>

#include <fuse/parked.hpp>

namespace ipcfs::fuse {

bool ParkedTable::add(std::uint64_t unique, std::shared_ptr<Parked> op, RingEntry* entry) {
    return shard(unique).with([&](Shard& s) {
        const auto early =
            std::find_if(s.early.begin(), s.early.end(),
                         [unique](const Early& candidate) { return candidate.unique == unique; });
        if (early != s.early.end()) {
            s.early.erase(early);
            return false;
        }
        s.records[unique] = Record{std::move(op), entry};
        return true;
    });
}

void ParkedTable::remove_operation(std::uint64_t unique, bool keep_route) {
    std::shared_ptr<Parked> last;  // an operation's destructor must not run under the lock
    shard(unique).with([&](Shard& s) {
        const auto found = s.records.find(unique);
        if (found == s.records.end()) return;
        last = std::move(found->second.op);
        if (!keep_route) s.records.erase(found);
    });
}

RingEntry* ParkedTable::take_route(std::uint64_t unique) {
    std::shared_ptr<Parked> last;
    return shard(unique).with([&](Shard& s) -> RingEntry* {
        const auto found = s.records.find(unique);
        if (found == s.records.end()) return nullptr;
        last = std::move(found->second.op);
        RingEntry* entry = found->second.entry;
        s.records.erase(found);
        return entry;
    });
}

std::shared_ptr<Parked> ParkedTable::find_or_remember(std::uint64_t unique, Nanos now) {
    return shard(unique).with([&](Shard& s) -> std::shared_ptr<Parked> {
        const auto found = s.records.find(unique);
        if (found != s.records.end()) return found->second.op;
        while (!s.early.empty() &&
               (s.early.size() >= kMaxEarly || now - s.early.front().when > kEarlyAge))
            s.early.pop_front();
        s.early.push_back({unique, now});
        return nullptr;
    });
}

std::vector<std::shared_ptr<Parked>> ParkedTable::operations() const {
    std::vector<std::shared_ptr<Parked>> all;
    for (const auto& part : shards_)
        part.with([&](const Shard& s) {
            for (const auto& [unique, record] : s.records)
                if (record.op) all.push_back(record.op);
        });
    return all;
}

std::size_t ParkedTable::size() const {
    std::size_t count = 0;
    for (const auto& part : shards_)
        count += part.with([](const Shard& s) {
            return static_cast<std::size_t>(std::count_if(
                s.records.begin(), s.records.end(), [](const auto& r) { return !!r.second.op; }));
        });
    return count;
}

}  // namespace ipcfs::fuse
