#include <algorithm>
#include <cstdio>
#include <fcntl.h>
#include <string_view>
#include <unistd.h>
#include <utility>

#include <base/fd.hpp>
#include <fuse/parked.hpp>

namespace ipcfs::fuse {

namespace {

// Whether thread `tid` waits in a way that only a fatal signal or an answer ends: state D. Not from
// /proc/<tid>/stat: during an execve(2), which may be what waits for the answer, that would wait for it.
bool waits_unkillable(pid_t tid) {
    char path[32];
    std::snprintf(path, sizeof path, "/proc/%d/status", tid);
    const Fd file(::open(path, O_RDONLY | O_CLOEXEC));
    if (!file) return false;
    char text[256];
    const ssize_t size = ::read(file.get(), text, sizeof text);
    const std::string_view status(text, size > 0 ? static_cast<std::size_t>(size) : 0);
    return status.find("\nState:\tD") != std::string_view::npos;
}

}  // namespace

bool ParkedTable::add(std::uint64_t unique, std::shared_ptr<Parked> op, pid_t tid) {
    return shard(unique).with([&](Shard& s) {
        const auto early =
            std::find_if(s.early.begin(), s.early.end(),
                         [unique](const Early& candidate) { return candidate.unique == unique; });
        if (early != s.early.end()) {
            s.early.erase(early);
            return false;
        }
        s.records[unique] = Record{std::move(op), tid};
        return true;
    });
}

void ParkedTable::remove(std::uint64_t unique) {
    std::shared_ptr<Parked> last;  // an operation's destructor must not run under the lock
    shard(unique).with([&](Shard& s) {
        const auto found = s.records.find(unique);
        if (found == s.records.end()) return;
        last = std::move(found->second.op);
        s.records.erase(found);
    });
}

std::shared_ptr<Parked> ParkedTable::find(std::uint64_t unique) {
    return shard(unique).with([&](Shard& s) {
        const auto found = s.records.find(unique);
        return found == s.records.end() ? nullptr : found->second.op;
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

std::vector<std::shared_ptr<Parked>> ParkedTable::lost_interrupts() {
    std::vector<std::pair<pid_t, std::shared_ptr<Parked>>> due;
    for (auto& part : shards_)
        part.with([&](Shard& s) {
            for (auto& [unique, record] : s.records) {
                if (record.tid == 0 || record.calls == 2) continue;
                if (++record.calls == 2) due.emplace_back(record.tid, record.op);
            }
        });
    std::vector<std::shared_ptr<Parked>> lost;
    for (auto& [tid, op] : due)
        if (waits_unkillable(tid)) lost.push_back(std::move(op));
    return lost;
}

std::vector<std::shared_ptr<Parked>> ParkedTable::operations() const {
    std::vector<std::shared_ptr<Parked>> all;
    for (const auto& part : shards_)
        part.with([&](const Shard& s) {
            for (const auto& [unique, record] : s.records) all.push_back(record.op);
        });
    return all;
}

std::size_t ParkedTable::size() const {
    std::size_t count = 0;
    for (const auto& part : shards_)
        count += part.with([](const Shard& s) { return s.records.size(); });
    return count;
}

}  // namespace ipcfs::fuse
