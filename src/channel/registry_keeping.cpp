// Records of durable channels: written when they change, and read when a daemon starts. Any thread.
#include <algorithm>
#include <mutex>

#include <store/store.hpp>

#include <channel/records.hpp>
#include <channel/registry_entry.hpp>
#include <channel/subscription.hpp>

namespace ipcfs::channel {

// Parents first, so that a channel is restored where it was.
Result<void> Registry::keep(Entry& entry, const Settings& settings) {
    std::vector<Entry*> missing{&entry};
    for (Entry* up = entry.parent; up && up != root_.get() && !up->kept; up = up->parent) {
        missing.push_back(up);
    }
    for (auto at = missing.rbegin(); at != missing.rend(); ++at) {
        Entry& each = **at;
        ChannelRecord record;
        record.parent = each.parent->id;
        record.name = each.name;
        record.made = each.made;
        record.changed = each.changed;
        record.settings = &each == &entry ? settings : each.channel->settings();
        if (const Subscription* subscription = each.channel->subscription()) {
            record.subscriber = subscription->subscriber();
            record.filter = subscription->filter();
        }
        auto kept = env_.store->put_channel(each.id, encode(record));
        if (!kept) return kept.error();
        each.kept = true;
    }
    return {};
}

// Writes a changed record. Without room for it the old record stays: an erased message makes room, and the next
// change writes the record again.
void Registry::keep_again(Entry& entry) noexcept {
    if (!entry.kept || !entry.channel) return;
    try {
        if (auto kept = keep(entry, entry.channel->settings()); !kept) {
            entry.channel->note_error("store: " + kept.error().message());
        }
    } catch (const std::bad_alloc&) {
    }
}

Result<void> Registry::keep_record(std::uint64_t id, const Settings* settings) {
    if (!env_.store) return {};
    if (settings && settings->durable != Durable::kOff) {
        // Not under the registry's lock: making the store's files takes a while.
        if (auto made = env_.store->open(); !made) return made;
    }
    std::unique_lock hold(mutex_);
    Entry* at = entry(id);
    if (!at || !at->channel) return {};
    const Settings now = settings ? *settings : at->channel->settings();
    if (now.durable != Durable::kOff || at->count(Role::kChannel) ||
        at->count(Role::kSubscription)) {
        if (now.durable == Durable::kOff && !at->kept) return {};
        return keep(*at, now);
    }
    if (std::exchange(at->kept, false)) (void)env_.store->erase_channel(id);
    return {};
}

Result<std::shared_ptr<Channel>> Registry::restore(std::uint64_t id, const ChannelRecord& record) {
    auto made = std::make_unique<Entry>();
    made->id = id;
    made->name = record.name;
    made->made = record.made;
    made->changed = record.changed;
    made->kept = true;
    access::Account& owner = env_.ledger.account(record.made.uid);
    made->charge = access::Charge::force(owner, access::Resource::kChannels, 1);
    if (record.subscriber) {
        std::shared_ptr<Channel> topic = find(record.parent);
        if (!topic || !topic->is_topic()) return Fault{ENOENT, "its topic is not there"};
        made->channel = std::make_shared<Channel>(topic, id, *record.subscriber, owner, true);
        made->channel->restore_settings(record.settings);
        if (auto set = made->channel->subscription()->set_filter(record.filter); !set) {
            return set.error();
        }
        topic->attach(*made->channel->subscription(), false);
    } else {
        made->channel = std::make_shared<Channel>(env_, id, record.settings);
    }
    std::unique_lock hold(mutex_);
    if (entries_.contains(id)) return Fault{EEXIST, "two channels of one id"};
    next_id_ = std::max(next_id_, id + 1);
    restored_.emplace_back(id, record.parent);
    Entry& added = *made;
    entries_.emplace(id, &added);
    order_.emplace(id, std::move(made));
    return added.channel;
}

std::vector<std::string> Registry::place_restored() {
    std::vector<std::string> lost;
    std::unique_lock hold(mutex_);
    auto is_above = [&](const Entry* below, const Entry* candidate) {
        for (const Entry* up = candidate; up; up = up->parent) {
            if (up == below) return true;
        }
        return false;
    };
    for (auto [id, above] : restored_) {
        Entry* child = entry(id);
        Entry* parent = entry(above);
        const bool fits = parent && (above == kRootId || entries_.contains(above)) &&
                          !is_above(child, parent) && !parent->child(child->role(), child->name);
        if (!fits) {
            std::string name = "lost+" + std::to_string(id);
            lost.push_back("channel " + child->name + ": its place is gone or taken; it is " +
                           name);
            child->name = std::move(name);
            parent = root_.get();
        }
        link(*parent, *child);
    }
    restored_.clear();
    return lost;
}

}  // namespace ipcfs::channel
