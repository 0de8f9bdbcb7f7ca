// Messages that come back at a deadline, if nothing ends that before: on lease to a process, or delayed, which is a
// lease to nobody. Not thread-safe: the channel's lock guards them.
#pragma once

#include <cstdint>
#include <memory>
#include <sys/types.h>
#include <unordered_map>
#include <vector>

#include <boost/intrusive/set.hpp>

#include <base/clock.hpp>
#include <queue/message.hpp>

namespace ipcfs::queue {

class Leases {
public:
    static constexpr pid_t kNobody = -1;  // the holder of a delayed message
    struct Total {
        std::uint64_t count = 0, bytes = 0;
    };
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
    // Ends all on lease, or all delayed ones, whose deadline is `now` or earlier.
    std::vector<MessageRef> end_due(Nanos now, bool delayed);
    // Ends all for which is_gone(holder) is true.
    template <class F>
    std::vector<MessageRef> end_if(F&& is_gone) {
        std::vector<MessageRef> ended;
        if (!index_) return ended;
        for (auto at = index_->by_id.begin(); at != index_->by_id.end();) {
            Lease& lease = (at++)->second;
            if (is_gone(lease.holder)) ended.push_back(end(lease.id));
        }
        return ended;
    }
    std::vector<pid_t> holders() const;  // each once
    template <class F>
    void for_each(F&& visit) {
        if (!index_) return;
        for (auto& [id, lease] : index_->by_id) visit(*lease.message);
    }
    std::vector<MessageRef> clear() noexcept {
        return end_if([](pid_t) { return true; });
    }

    const Total& leased() const noexcept { return leased_; }
    const Total& delayed() const noexcept { return delayed_; }
    Nanos earliest() const noexcept {
        return leased_.count + delayed_.count == 0 ? kNever : index_->by_deadline.begin()->deadline;
    }

private:
    struct Sooner {
        bool operator()(const Lease& a, const Lease& b) const noexcept {
            return a.deadline < b.deadline;
        }
    };
    struct Index {
        std::unordered_map<std::uint64_t, Lease> by_id;
        boost::intrusive::multiset<Lease, boost::intrusive::compare<Sooner>,
                                   boost::intrusive::constant_time_size<false>>
            by_deadline;
        std::uint64_t last = 0, last_delayed = 0;
    };
    Total& total(const Lease& lease) noexcept {
        return lease.holder == kNobody ? delayed_ : leased_;
    }
    std::unique_ptr<Index> index_;  // most channels never need one
    Total leased_, delayed_;
};

}  // namespace ipcfs::queue
