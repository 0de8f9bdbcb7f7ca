// Under the channel's lock.
#include <algorithm>

#include <queue/leases.hpp>

namespace ipcfs::queue {

std::uint64_t Leases::add(MessageRef message, Nanos deadline, pid_t holder) {
    // Numbers of their own: nobody can name a delayed one.
    const std::uint64_t id = holder == kNobody ? ~++last_delayed_ : ++last_;
    Lease& lease = leases_[id];
    lease.id = id;
    lease.deadline = deadline;
    lease.holder = holder;
    ++total(lease).count;
    total(lease).bytes += message->size();
    lease.message = std::move(message);
    by_deadline_.insert(lease);
    return id;
}

const Leases::Lease* Leases::find(std::uint64_t id) const noexcept {
    auto at = leases_.find(id);
    return at == leases_.end() ? nullptr : &at->second;
}

void Leases::extend(std::uint64_t id, Nanos deadline) noexcept {
    Lease& lease = leases_.at(id);
    by_deadline_.erase(by_deadline_.iterator_to(lease));
    lease.deadline = deadline;
    by_deadline_.insert(lease);
}

MessageRef Leases::end(std::uint64_t id) noexcept {
    auto at = leases_.find(id);
    if (at == leases_.end()) return nullptr;
    Lease& lease = at->second;
    by_deadline_.erase(by_deadline_.iterator_to(lease));
    MessageRef message = std::move(lease.message);
    --total(lease).count;
    total(lease).bytes -= message->size();
    leases_.erase(at);
    return message;
}

void Leases::end_due(Nanos now, std::vector<MessageRef>& leased, std::vector<MessageRef>& delayed) {
    while (earliest() <= now) {
        const Lease& first = *by_deadline_.begin();
        auto& to = first.holder == kNobody ? delayed : leased;
        to.push_back(end(first.id));
    }
}

std::vector<pid_t> Leases::holders() const {
    std::vector<pid_t> all;
    all.reserve(leases_.size());
    for (const auto& [id, lease] : leases_) all.push_back(lease.holder);
    std::sort(all.begin(), all.end());
    all.erase(std::unique(all.begin(), all.end()), all.end());
    return all;
}

std::vector<MessageRef> Leases::clear() noexcept {
    return end_if([](pid_t) { return true; });
}

}  // namespace ipcfs::queue
