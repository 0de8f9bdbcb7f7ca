// Limits of payload memory. Any thread.
#include <algorithm>

#include <payload/budget.hpp>

namespace ipcfs::payload {

Budget::Budget(const Clock& clock, std::function<std::uint64_t()> available)
    : clock_(clock), available_(std::move(available)) {}

Result<void> Budget::check(std::uint64_t more) {
    // A look costs some 30 us: for a few milliseconds what the last one found is used up.
    Nanos now = clock_.monotonic();
    auto wanted = static_cast<std::int64_t>(std::min<std::uint64_t>(more, INT64_MAX));
    if (now - looked_.load(std::memory_order_relaxed) < kFresh &&
        credit_.fetch_sub(wanted, std::memory_order_relaxed) >= wanted) {
        return {};
    }
    std::uint64_t left = available_();
    std::uint64_t reserve = reserve_.load(std::memory_order_relaxed);
    if (left < reserve || left - reserve < more) {
        refused_.fetch_add(1, std::memory_order_relaxed);
        return Fault{ENOSPC, "payload: the machine's memory is short; " +
                                 std::to_string(left >> 20) +
                                 " MiB are left, and payload.reserve keeps " +
                                 std::to_string(reserve >> 20)};
    }
    std::uint64_t spare = left - reserve - more;
    credit_.store(static_cast<std::int64_t>(std::min<std::uint64_t>(spare, INT64_MAX)),
                  std::memory_order_relaxed);
    looked_.store(now, std::memory_order_relaxed);
    return {};
}

Result<access::Charge> Budget::charge(access::Account& account, std::uint64_t bytes,
                                      std::uint64_t more) {
    auto taken = access::Charge::take(account, access::Resource::kPayloadBytes, bytes);
    if (!taken) {
        refused_.fetch_add(1, std::memory_order_relaxed);
        return Fault{EDQUOT, "payload: the user's limit of payload bytes is reached"};
    }
    if (auto room = check(more); !room) return room.error();
    return std::move(*taken);
}

}  // namespace ipcfs::payload
