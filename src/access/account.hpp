// Per-user accounts and limits. Every message, byte, channel, open file and waiting operation is a
// Charge that refunds itself (after dbus-broker's per-uid charging). A user who reaches a limit
// does not affect others: accounts share only the total of bytes. Thread-safe.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <sys/types.h>

#include <base/guarded.hpp>
#include <insight/metric.hpp>

namespace ipcfs::access {

enum class Resource : std::uint8_t {
    kMessages,
    kBytes,
    kChannels,
    kOpenFiles,
    kWaiters,
    kPayloadBytes
};
constexpr std::size_t kResources = 6;
constexpr std::array<insight::Described, kResources> kResourceRows{{
    {"messages", insight::Unit::kCount, "queued messages"},
    {"bytes", insight::Unit::kBytes, "of queued messages, and of extended attributes"},
    {"channels", insight::Unit::kCount, "channels made"},
    {"open_files", insight::Unit::kCount, "open files, signal registrations, control connections"},
    {"waiters", insight::Unit::kCount, "operations that wait"},
    {"payload_bytes", insight::Unit::kBytes, "of large messages, regions and pools"},
}};
constexpr std::uint64_t kUnlimited = UINT64_MAX;

using Limits = std::array<std::uint64_t, kResources>;
constexpr Limits kNoLimits{kUnlimited, kUnlimited, kUnlimited, kUnlimited, kUnlimited, kUnlimited};

class Ledger;

class Account {
public:
    Account(Ledger& ledger, uid_t uid, const Limits& limits) : ledger_(ledger), uid_(uid) {
        set_limits(limits);
    }

    uid_t uid() const noexcept { return uid_; }
    std::uint64_t used(Resource r) const noexcept {
        return used_[index(r)].load(std::memory_order_relaxed);
    }
    std::uint64_t limit(Resource r) const noexcept {
        return limits_[index(r)].load(std::memory_order_relaxed);
    }
    void set_limits(const Limits& limits) noexcept;

private:
    friend class Charge;
    static std::size_t index(Resource r) noexcept { return static_cast<std::size_t>(r); }
    bool take(Resource r, std::uint64_t amount, bool force) noexcept;
    void refund(Resource r, std::uint64_t amount) noexcept;

    Ledger& ledger_;
    uid_t uid_;
    std::array<std::atomic<std::uint64_t>, kResources> used_{};
    std::array<std::atomic<std::uint64_t>, kResources> limits_{};
};

// Holds `amount` of one resource until destroyed. Move-only.
class [[nodiscard]] Charge {
public:
    Charge() = default;

    // Empty if the account's limit would be exceeded, or for bytes the machine-wide total.
    static std::optional<Charge> take(Account& account, Resource r, std::uint64_t amount) noexcept;
    // Charges even beyond the limit, for what the user holds already.
    static Charge force(Account& account, Resource r, std::uint64_t amount) noexcept;

    void reset() noexcept { held_.reset(); }
    std::uint64_t amount() const noexcept { return held_ ? held_.get_deleter().amount : 0; }
    uid_t uid() const noexcept { return held_ ? held_->uid() : 0; }

private:
    struct Refund {
        std::uint64_t amount;
        Resource resource;
        void operator()(Account* account) const noexcept { account->refund(resource, amount); }
    };
    Charge(Account& account, Resource r, std::uint64_t amount)
        : held_(&account, Refund{amount, r}) {}
    std::unique_ptr<Account, Refund> held_;
};

// All accounts. Accounts live as long as the ledger, so references to them may be kept.
class Ledger {
public:
    // `limits_of` returns a user's limits. Called when a user is first seen, and by reload().
    // `total_bytes` bounds the bytes of all users together.
    explicit Ledger(
        std::function<Limits(uid_t)> limits_of = [](uid_t) { return kNoLimits; },
        std::uint64_t total_bytes = kUnlimited)
        : limits_of_(std::in_place, std::move(limits_of)), total_limit_(total_bytes) {}

    Account& account(uid_t uid);
    void reload(std::function<Limits(uid_t)> limits_of, std::uint64_t total_bytes);
    void for_each(const std::function<void(const Account&)>& visit) const;
    std::uint64_t total_bytes() const noexcept {
        return total_bytes_.load(std::memory_order_relaxed);
    }
    std::uint64_t total_limit() const noexcept {
        return total_limit_.load(std::memory_order_relaxed);
    }

private:
    friend class Account;
    Guarded<std::function<Limits(uid_t)>> limits_of_;
    Guarded<std::map<uid_t, std::unique_ptr<Account>>> accounts_;
    std::atomic<std::uint64_t> total_bytes_{0};
    std::atomic<std::uint64_t> total_limit_;
};

}  // namespace ipcfs::access
