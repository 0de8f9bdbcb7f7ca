// A channel's place in the registry. Private to src/channel; under the registry's lock.
#pragma once

#include <boost/unordered/unordered_flat_map.hpp>

#include <channel/registry.hpp>

namespace ipcfs::channel {

struct Registry::Children {
    // Open addressing: with thousands of channels a look-up is a matter of cache misses. Keys are the
    // entries' own names.
    boost::unordered_flat_map<std::string_view, Entry*> by_name;
    std::map<std::uint64_t, Entry*> by_id;
};

// What a look-up touches comes first, in one cache line.
struct alignas(64) Registry::Entry {
    std::string name;
    std::shared_ptr<Channel> channel;
    std::unique_ptr<Children> children;
    std::unique_ptr<Children> subscriptions;
    std::uint64_t id = 0;
    Entry* parent = nullptr;
    Attributes made;                                           // of the channel when it was made
    std::vector<std::pair<std::uint8_t, Attributes>> changed;  // files that differ
    access::Charge charge;
    bool going = false;  // being removed: nothing may be made in it
    bool kept = false;   // the store has its record

    Role role() const { return channel ? channel->role() : Role::kChannel; }
    std::unique_ptr<Children>& of(Role wanted) {
        return wanted == Role::kSubscription ? subscriptions : children;
    }
    const std::unique_ptr<Children>& of(Role wanted) const {
        return wanted == Role::kSubscription ? subscriptions : children;
    }
    // Null when there is none.
    Entry* child(Role wanted, std::string_view called) const {
        const auto& all = of(wanted);
        if (!all) return nullptr;
        auto at = all->by_name.find(called);
        return at == all->by_name.end() ? nullptr : at->second;
    }
    std::size_t count(Role wanted) const { return of(wanted) ? of(wanted)->by_id.size() : 0; }
    // What its path has after its parent's.
    std::size_t length() const {
        return name.size() + (role() == Role::kSubscription ? kSubs.size() + 1 : 0);
    }
    static constexpr std::string_view kSubs = "subs";
};

}  // namespace ipcfs::channel
