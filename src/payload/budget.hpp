// Decides whether payloads may take memory: within the user's limit (EDQUOT) and what the machine
// has left (ENOSPC, before the kernel's out-of-memory killer acts). Thread-safe.
#pragma once

#include <atomic>
#include <functional>

#include <access/account.hpp>
#include <base/clock.hpp>
#include <base/result.hpp>

namespace ipcfs::payload {

class Budget {
public:
    // `available` returns how many bytes of memory the machine has left.
    explicit Budget(const Clock& clock, std::function<std::uint64_t()> available);

    // Charges `bytes` of payload memory. EDQUOT above the user's limit; ENOSPC if less than the
    // reserve would be left.
    Result<access::Charge> take(access::Account& account, std::uint64_t bytes) {
        return charge(account, bytes, bytes);
    }
    // Like take(), for memory that the client has filled already.
    Result<access::Charge> adopt(access::Account& account, std::uint64_t bytes) {
        return charge(account, bytes, 0);
    }
    // ENOSPC if less than the reserve is left when `more` bytes are used.
    Result<void> check(std::uint64_t more);

    void set_reserve(std::uint64_t bytes) noexcept { reserve_ = bytes; }
    std::uint64_t refused() const noexcept { return refused_; }

private:
    Result<access::Charge> charge(access::Account& account, std::uint64_t bytes,
                                  std::uint64_t more);

    static constexpr Nanos kCreditLifetime = 5 * kMillisecond;

    const Clock& clock_;
    std::function<std::uint64_t()> available_;
    std::atomic<std::uint64_t> reserve_{256ULL << 20};
    // Bytes that may be granted before available memory is read again, and when it was last read.
    std::atomic<std::int64_t> credit_{0};
    std::atomic<Nanos> checked_at_{0};
    std::atomic<std::uint64_t> refused_{0};
};

}  // namespace ipcfs::payload
