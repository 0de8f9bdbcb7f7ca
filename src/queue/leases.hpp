// Leased messages, by lease id and by deadline, and messages whose redelivery is delayed. Not
// thread-safe: the channel's lock guards them.
#pragma once

#include <cstdint>
#include <map>
#include <sys/types.h>
#include <unordered_map>
#include <vector>

#include <boost/intrusive/set.hpp>

#include <base/clock.hpp>
#include <queue/message.hpp>

namespace ipcfs::queue {

class Leases {
public:
    struct Lease : public boost::intrusive::set_base_hook<> {
        std::uint64_t id = 0;
        MessageRef message;
        Nanos deadline = kNever;  // monotonic
        pid_t holder = 0;
    };

    Leases() = default;
    Leases(Leases&&) = delete;
    ~Leases() { clear(); }

    // Starts a lease and returns its id. Ids ascend and are never reused.
    std::uint64_t add(MessageRef message, Nanos deadline, pid_t holder);
    const Lease* find(std::uint64_t id) const noexcept;
    void extend(std::uint64_t id, Nanos deadline) noexcept;  // the lease must exist
    // Ends a lease and returns its message; null if there is no such lease.
    MessageRef end(std::uint64_t id) noexcept;
    // Ends all leases whose deadline is `now` or earlier.
    std::vector<MessageRef> end_due(Nanos now);
    // Ends all leases for which is_gone(holder) is true.
    template <class F>
    std::vector<MessageRef> end_if(F&& is_gone) {
        std::vector<MessageRef> ended;
        for (auto at = leases_.begin(); at != leases_.end();) {
            Lease& lease = (at++)->second;
            if (is_gone(lease.holder)) ended.push_back(end(lease.id));
        }
        return ended;
    }
    std::vector<pid_t> holders() const;  // each once
    template <class F>
    void for_each(F&& visit) {
        for (auto& [id, lease] : leases_) visit(*lease.message);
    }
    std::vector<MessageRef> clear() noexcept;

    std::uint64_t size() const noexcept { return leases_.size(); }
    std::uint64_t bytes() const noexcept { return bytes_; }
    bool empty() const noexcept { return leases_.empty(); }
    Nanos earliest() const noexcept {
        return by_deadline_.empty() ? kNever : by_deadline_.begin()->deadline;
    }

private:
    struct Sooner {
        bool operator()(const Lease& a, const Lease& b) const noexcept {
            return a.deadline < b.deadline;
        }
    };
    std::unordered_map<std::uint64_t, Lease> leases_;
    boost::intrusive::multiset<Lease, boost::intrusive::compare<Sooner>,
                               boost::intrusive::constant_time_size<false>>
        by_deadline_;
    std::uint64_t last_ = 0;
    std::uint64_t bytes_ = 0;
};

class Delayed {
public:
    void add(MessageRef message, Nanos due);
    std::vector<MessageRef> take_due(Nanos now);
    template <class F>
    void for_each(F&& visit) {
        for (auto& [due, message] : messages_) visit(*message);
    }
    std::vector<MessageRef> clear() noexcept;

    std::uint64_t size() const noexcept { return messages_.size(); }
    std::uint64_t bytes() const noexcept { return bytes_; }
    bool empty() const noexcept { return messages_.empty(); }
    Nanos earliest() const noexcept {
        return messages_.empty() ? kNever : messages_.begin()->first;
    }

private:
    std::multimap<Nanos, MessageRef> messages_;
    std::uint64_t bytes_ = 0;
};

}  // namespace ipcfs::queue
