// The index of what is alive. Under the store's lock.
#include <algorithm>

#include <store/index.hpp>

#include <base/check.hpp>

namespace ipcfs::store {

Entry* Entries::find(std::uint64_t sequence) noexcept {
    const auto block = blocks_.find(sequence / kBlock);
    if (block == blocks_.end()) return nullptr;
    const auto place = sequence % kBlock;
    return (block->second->present >> place & 1U) != 0 ? &block->second->entries[place] : nullptr;
}

Entry& Entries::add(std::uint64_t sequence) {
    auto& block = blocks_[sequence / kBlock];
    if (!block) block = std::make_unique<Block>();
    const auto place = sequence % kBlock;
    if ((block->present >> place & 1U) == 0) {
        block->present = static_cast<std::uint16_t>(block->present | 1U << place);
        block->entries[place] = Entry{};
        ++size_;
    }
    return block->entries[place];
}

void Entries::remove(std::uint64_t sequence) {
    const auto block = blocks_.find(sequence / kBlock);
    IPCFS_CHECK(block != blocks_.end());
    auto& present = block->second->present;
    present = static_cast<std::uint16_t>(present & ~(1U << sequence % kBlock));
    if (present == 0) blocks_.erase(block);
    --size_;
}

std::vector<std::uint64_t> Entries::sequences() const {
    std::vector<std::uint64_t> numbers;
    numbers.reserve(blocks_.size());
    for (const auto& [number, block] : blocks_) numbers.push_back(number);
    std::sort(numbers.begin(), numbers.end());
    std::vector<std::uint64_t> all;
    all.reserve(size_);
    for (const std::uint64_t number : numbers) {
        const std::uint16_t present = blocks_.find(number)->second->present;
        for (std::uint64_t i = 0; i < kBlock; ++i)
            if ((present >> i & 1U) != 0) all.push_back(number * kBlock + i);
    }
    return all;
}

ChannelEntry* Index::channel(std::uint64_t id) {
    const auto found = channels_.find(id);
    return found == channels_.end() ? nullptr : &found->second;
}

Entry* Index::find(Key key) {
    auto* const found = channel(key.channel);
    return found == nullptr ? nullptr : found->entries.find(key.sequence);
}

const Links& Index::links(Key key) const {
    const auto found = links_.find(key);
    IPCFS_CHECK(found != links_.end());
    return found->second;
}

void Index::touch(std::uint64_t id, ChannelEntry& channel) {
    if (!std::exchange(channel.changed, true)) changes.channels.push_back(id);
}

void Index::link(Key key, Entry& entry, const MessageHeader& header) {
    if (header.origin.channel == 0 && header.payload == 0) return;
    entry.linked = true;
    links_[key] = Links{to_key(header.origin), header.payload};
    if (header.origin.channel != 0)
        if (Entry* const origin = find(to_key(header.origin))) ++origin->references;
    if (header.payload != 0) ++payloads_[header.payload];
}

void Index::put(const MessageView& message, Lsn at) {
    const Key key = to_key(message.header.key);
    auto& channel = channels_[key.channel];
    if (key.sequence > channel.last_sequence) {
        channel.last_sequence = key.sequence;
        touch(key.channel, channel);
    }
    const bool fresh = channel.entries.find(key.sequence) == nullptr;
    Entry& entry = channel.entries.add(key.sequence);
    entry.at = at;
    entry.set(message.state);
    if (!fresh) return;
    if (message.header.state.hidden != 0)
        entry.hidden = true;
    else
        ++messages_;
    link(key, entry, message.header);
}

void Index::load(const MessageView& message) {
    const Key key = to_key(message.header.key);
    auto& channel = channels_[key.channel];
    Entry& entry = channel.entries.add(key.sequence);
    entry.set(message.state);
    entry.in_table = true;
    entry.hidden = message.header.state.hidden != 0;
    if (!entry.hidden) ++messages_;
    link(key, entry, message.header);
}

bool Index::move(Key key, const State& state) {
    Entry* const entry = find(key);
    if (entry == nullptr || entry->hidden) return false;
    entry->set(state);
    if (entry->in_table && !std::exchange(entry->changed, true)) changes.changed.push_back(key);
    return true;
}

void Index::remove(Key key, Entry& entry) {
    if (entry.in_table) changes.gone.push_back(key);
    Links links;
    if (entry.linked) {
        const auto found = links_.find(key);
        links = found->second;
        links_.erase(found);
    }
    if (!entry.hidden) --messages_;
    const auto channel = channels_.find(key.channel);
    channel->second.entries.remove(key.sequence);
    if (channel->second.erased && channel->second.entries.size() == 0) {
        changes.dropped.push_back(key.channel);
        channels_.erase(channel);
    }
    if (links.payload != 0) {
        const auto payload = payloads_.find(links.payload);
        if (payload != payloads_.end() && --payload->second == 0) {
            unused_payloads.push_back(links.payload);
            payloads_.erase(payload);
        }
    }
    if (links.origin.channel == 0) return;
    Entry* const origin = find(links.origin);
    if (origin == nullptr || origin->references == 0) return;
    if (--origin->references == 0 && origin->hidden && !replaying_) remove(links.origin, *origin);
}

void Index::erase(Key key) {
    Entry* const entry = find(key);
    if (entry == nullptr || entry->hidden) return;
    if (entry->references == 0 && !replaying_) return remove(key, *entry);
    entry->hidden = true;
    --messages_;
    if (entry->in_table && !std::exchange(entry->changed, true)) changes.changed.push_back(key);
}

void Index::forget(Key key) {
    if (Entry* const entry = find(key)) remove(key, *entry);
}

void Index::put_channel(std::uint64_t id, Bytes record) {
    auto& channel = channels_[id];
    channel.record.assign(record.begin(), record.end());
    channel.erased = false;
    touch(id, channel);
}

void Index::erase_channel(std::uint64_t id) {
    auto* const found = channel(id);
    if (found == nullptr) return;
    // At replay LMDB may know already that it is erased, and what the journal put before is not.
    found->erased = false;
    found->last_sequence = 0;
    for (const std::uint64_t sequence : found->entries.sequences()) erase({id, sequence});
    if (found->entries.size() == 0) {
        changes.dropped.push_back(id);
        channels_.erase(id);
        return;
    }
    found->erased = true;
    found->record.clear();
    touch(id, *found);
}

void Index::load_channel(std::uint64_t id, std::uint64_t last_sequence, bool erased, Bytes record) {
    auto& channel = channels_[id];
    channel.last_sequence = last_sequence;
    channel.erased = erased;
    channel.record.assign(record.begin(), record.end());
}

void Index::begin_replay() {
    replaying_ = true;
    recount();
}

void Index::recount() {
    for (auto& [id, channel] : channels_)
        for (const std::uint64_t sequence : channel.entries.sequences())
            channel.entries.find(sequence)->references = 0;
    for (const auto& [key, links] : links_)
        if (links.origin.channel != 0)
            if (Entry* const origin = find(links.origin)) ++origin->references;
}

std::set<std::uint64_t> Index::referring_channels() const {
    std::set<std::uint64_t> ids;
    for (const auto& [key, links] : links_)
        if (links.origin.channel != 0) ids.insert(key.channel);
    return ids;
}

std::vector<Key> Index::settle() {
    replaying_ = false;
    recount();
    std::vector<Key> unneeded;
    for (auto& [id, channel] : channels_) {
        for (const std::uint64_t sequence : channel.entries.sequences()) {
            const Entry& entry = *channel.entries.find(sequence);
            if (entry.hidden && entry.references == 0) unneeded.push_back({id, sequence});
        }
    }
    for (const Key key : unneeded)
        if (Entry* const entry = find(key)) remove(key, *entry);
    std::erase_if(channels_, [&](const auto& each) {
        if (!each.second.erased || each.second.entries.size() != 0) return false;
        changes.dropped.push_back(each.first);
        return true;
    });
    // Of those that are left, not before: what is erased may well miss its origin.
    std::vector<Key> orphans;
    for (const auto& [key, links] : links_)
        if (links.origin.channel != 0 && find(links.origin) == nullptr) orphans.push_back(key);
    return orphans;
}

}  // namespace ipcfs::store
