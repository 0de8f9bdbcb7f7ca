// Limits on payload memory. Any thread.
#include <algorithm>

#include <payload/budget.hpp>

namespace ipcfs::payload {

Budget::Budget(const Clock& clock, std::function<std::uint64_t()> available)
    : clock_(clock), available_(std::move(available)) {}

Result<void> Budget::check(std::uint64_t more) {
    // Reading the available memory costs some 30 us, so the result of one reading is used up over a
    // few milliseconds.
    Nanos now = clock_.monotonic();
    auto wanted = static_cast<std::int64_t>(std::min<std::uint64_t>(more, INT64_MAX));
    if (now - checked_at_.load(std::memory_order_relaxed) < kCreditLifetime &&
        credit_.fetch_sub(wanted, std::memory_order_relaxed) >= wanted) {
        return {};
    }
    std::uint64_t left = available_();
    std::uint64_t reserve = reserve_.load(std::memory_order_relaxed);
    if (left < reserve || left - reserve < more) {
        refused_.fetch_add(1, std::memory_order_relaxed);
        return Fault{ENOSPC,
                     "payload: too little memory is available: " + std::to_string(left >> 20) +
                         " MiB left, of which payload.reserve keeps " +
                         std::to_string(reserve >> 20) + " MiB free"};
    }
    std::uint64_t spare = left - reserve - more;
    credit_.store(static_cast<std::int64_t>(std::min<std::uint64_t>(spare, INT64_MAX)),
                  std::memory_order_relaxed);
    checked_at_.store(now, std::memory_order_relaxed);
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
