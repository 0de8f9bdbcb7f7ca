// Under the channel's lock.
#include <algorithm>

#include <queue/leases.hpp>

namespace ipcfs::queue {

std::uint64_t Leases::add(MessageRef message, Nanos deadline, pid_t holder) {
    // Delayed messages have numbers of their own, which no client can name.
    if (!index_) index_ = std::make_unique<Index>();
    const std::uint64_t id = holder == kNobody ? ~++index_->last_delayed : ++index_->last;
    Lease& lease = index_->by_id[id];
    lease.id = id;
    lease.deadline = deadline;
    lease.holder = holder;
    ++total(lease).count;
    total(lease).bytes += message->size();
    lease.message = std::move(message);
    index_->by_deadline.insert(lease);
    return id;
}

const Leases::Lease* Leases::find(std::uint64_t id) const noexcept {
    if (!index_) return nullptr;
    auto at = index_->by_id.find(id);
    return at == index_->by_id.end() ? nullptr : &at->second;
}

void Leases::extend(std::uint64_t id, Nanos deadline) noexcept {
    Lease& lease = index_->by_id.at(id);
    index_->by_deadline.erase(index_->by_deadline.iterator_to(lease));
    lease.deadline = deadline;
    index_->by_deadline.insert(lease);
}

MessageRef Leases::end(std::uint64_t id) noexcept {
    if (!find(id)) return nullptr;
    const auto at = index_->by_id.find(id);
    Lease& lease = at->second;
    index_->by_deadline.erase(index_->by_deadline.iterator_to(lease));
    MessageRef message = std::move(lease.message);
    --total(lease).count;
    total(lease).bytes -= message->size();
    index_->by_id.erase(at);
    return message;
}

std::vector<MessageRef> Leases::end_due(Nanos now, bool delayed) {
    std::vector<MessageRef> ended;
    if (earliest() > now) return ended;
    auto& all = index_->by_deadline;
    for (auto at = all.begin(); at != all.end() && at->deadline <= now;) {
        const Lease& lease = *at++;
        if ((lease.holder == kNobody) == delayed) ended.push_back(end(lease.id));
    }
    return ended;
}

std::vector<pid_t> Leases::holders() const {
    std::vector<pid_t> all;
    if (!index_) return all;
    for (const auto& [id, lease] : index_->by_id) all.push_back(lease.holder);
    std::sort(all.begin(), all.end());
    all.erase(std::unique(all.begin(), all.end()), all.end());
    return all;
}

}  // namespace ipcfs::queue
