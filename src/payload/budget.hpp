// Whether memory may be taken for payloads: by the user's own limit (EDQUOT) and by what the machine
// has left (ENOSPC, before it runs out and the kernel kills somebody). Thread-safe.
#pragma once

#include <atomic>
#include <functional>

#include <access/account.hpp>
#include <base/clock.hpp>
#include <base/result.hpp>

namespace ipcfs::payload {

class Budget {
public:
    // `available` tells the bytes that the machine could still give.
    explicit Budget(const Clock& clock, std::function<std::uint64_t()> available);

    // A charge for `bytes` of payload memory. EDQUOT over the user's limit; ENOSPC if afterwards less
    // than the reserve would be left.
    Result<access::Charge> take(access::Account& account, std::uint64_t bytes) {
        return charge(account, bytes, bytes);
    }
    // The same for memory that a client has filled already.
    Result<access::Charge> adopt(access::Account& account, std::uint64_t bytes) {
        return charge(account, bytes, 0);
    }
    // ENOSPC if less than the reserve is left when `more` bytes are used.
    Result<void> check(std::uint64_t more);

    void set_reserve(std::uint64_t bytes) noexcept { reserve_ = bytes; }
    std::uint64_t reserve() const noexcept { return reserve_; }
    std::uint64_t refused() const noexcept { return refused_; }

private:
    Result<access::Charge> charge(access::Account& account, std::uint64_t bytes,
                                  std::uint64_t more);

    static constexpr Nanos kFresh = 5 * kMillisecond;

    const Clock& clock_;
    std::function<std::uint64_t()> available_;
    std::atomic<std::uint64_t> reserve_{256ULL << 20};
    // What may still be given before the machine is asked again, and until when that holds.
    std::atomic<std::int64_t> credit_{0};
    std::atomic<Nanos> looked_{0};
    std::atomic<std::uint64_t> refused_{0};
};

}  // namespace ipcfs::payload
