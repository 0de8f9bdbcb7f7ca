// Per-user accounting. Any thread. Charging is lock-free; only looking up an account takes a lock.
#include <access/account.hpp>
#include <base/check.hpp>

namespace ipcfs::access {
namespace {

// Adds unless the sum would exceed the limit. Uses compare-and-swap, not add-and-undo, so that a
// failing attempt cannot make a concurrent one fail.
bool add_within(std::atomic<std::uint64_t>& used, std::uint64_t amount, std::uint64_t limit) {
    std::uint64_t now = used.load(std::memory_order_relaxed);
    do {
        if (amount > limit || now > limit - amount) return false;
    } while (!used.compare_exchange_weak(now, now + amount, std::memory_order_relaxed));
    return true;
}

}  // namespace

void Account::set_limits(const Limits& limits) noexcept {
    for (std::size_t i = 0; i < kResources; ++i) {
        limits_[i].store(limits[i], std::memory_order_relaxed);
    }
}

bool Account::take(Resource r, std::uint64_t amount, bool force) noexcept {
    std::uint64_t limit = force ? kUnlimited : limits_[index(r)].load(std::memory_order_relaxed);
    if (!add_within(used_[index(r)], amount, limit)) return false;
    if (r != Resource::kBytes) return true;
    std::uint64_t total = force ? kUnlimited : ledger_.total_limit();
    if (add_within(ledger_.total_bytes_, amount, total)) return true;
    used_[index(r)].fetch_sub(amount, std::memory_order_relaxed);
    return false;
}

void Account::refund(Resource r, std::uint64_t amount) noexcept {
    std::uint64_t before = used_[index(r)].fetch_sub(amount, std::memory_order_relaxed);
    IPCFS_CHECK(before >= amount);
    if (r == Resource::kBytes) ledger_.total_bytes_.fetch_sub(amount, std::memory_order_relaxed);
}

std::optional<Charge> Charge::take(Account& account, Resource r, std::uint64_t amount) noexcept {
    if (!account.take(r, amount, false)) return std::nullopt;
    return Charge(account, r, amount);
}

Charge Charge::force(Account& account, Resource r, std::uint64_t amount) noexcept {
    account.take(r, amount, true);
    return Charge(account, r, amount);
}

Account& Ledger::account(uid_t uid) {
    Account* known = accounts_.with([&](auto& accounts) -> Account* {
        auto found = accounts.find(uid);
        return found == accounts.end() ? nullptr : found->second.get();
    });
    if (known) return *known;
    // Holds both locks, limits first: a reload between them would give the new account old limits.
    return limits_of_.with([&](auto& limits_of) -> Account& {
        Limits limits = limits_of(uid);
        return accounts_.with([&](auto& accounts) -> Account& {
            auto& slot = accounts[uid];
            if (!slot) slot = std::make_unique<Account>(*this, uid, limits);
            return *slot;
        });
    });
}

void Ledger::reload(std::function<Limits(uid_t)> limits_of, std::uint64_t total_bytes) {
    total_limit_.store(total_bytes, std::memory_order_relaxed);
    limits_of_.with([&](auto& held) {
        held = std::move(limits_of);
        accounts_.with([&](auto& accounts) {
            for (auto& [uid, account] : accounts) account->set_limits(held(uid));
        });
    });
}

void Ledger::for_each(const std::function<void(const Account&)>& visit) const {
    accounts_.with([&](const auto& accounts) {
        for (const auto& entry : accounts) visit(*entry.second);
    });
}

}  // namespace ipcfs::access
