// Leases and delayed messages. Under the channel's lock.
#include <algorithm>

#include <queue/leases.hpp>

namespace ipcfs::queue {

std::uint64_t Leases::add(MessageRef message, Nanos deadline, pid_t holder) {
    const std::uint64_t id = ++last_;
    Lease& lease = leases_[id];
    lease.id = id;
    lease.deadline = deadline;
    lease.holder = holder;
    bytes_ += message->size();
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
    by_deadline_.erase(by_deadline_.iterator_to(at->second));
    MessageRef message = std::move(at->second.message);
    bytes_ -= message->size();
    leases_.erase(at);
    return message;
}

std::vector<MessageRef> Leases::end_due(Nanos now) {
    std::vector<MessageRef> ended;
    while (!empty() && earliest() <= now) ended.push_back(end(by_deadline_.begin()->id));
    return ended;
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

void Delayed::add(MessageRef message, Nanos due) {
    bytes_ += message->size();
    messages_.emplace(due, std::move(message));
}

std::vector<MessageRef> Delayed::take_due(Nanos now) {
    std::vector<MessageRef> due;
    while (!empty() && earliest() <= now) {
        auto first = messages_.begin();
        bytes_ -= first->second->size();
        due.push_back(std::move(first->second));
        messages_.erase(first);
    }
    return due;
}

std::vector<MessageRef> Delayed::clear() noexcept {
    return take_due(kNever);
}

}  // namespace ipcfs::queue
