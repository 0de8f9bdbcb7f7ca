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

namespace {

constexpr std::uint32_t kRecord = sizeof(RecordHeader);

std::int64_t weight_of(const Entry& entry) {
    return entry.length + kRecord;
}
std::int64_t weight_of(const ChannelEntry& channel) {
    return static_cast<std::int64_t>(kRecord + sizeof(ChannelBody) + align8(channel.record.size()));
}

}  // namespace

std::uint64_t Index::live(std::uint32_t segment) const {
    const auto found = live_.find(segment);
    return found == live_.end() ? 0 : found->second;
}

std::vector<std::uint64_t> Index::channels_up_to(std::uint32_t segment) const {
    std::vector<std::uint64_t> ids;
    for (const auto& [oldest, id] : by_segment_) {
        if (oldest > segment) break;
        ids.push_back(id);
    }
    return ids;
}

void Index::weigh(std::uint32_t segment, std::int64_t bytes) {
    auto& live = live_[segment];
    live += static_cast<std::uint64_t>(bytes);
    live_sum_ += static_cast<std::uint64_t>(bytes);
    if (live == 0) live_.erase(segment);
}

void Index::place(Entry& entry, Lsn at) {
    if (entry.at != 0) weigh(segment_of(entry.at), -weight_of(entry));
    entry.at = at;
    weigh(segment_of(at), weight_of(entry));
}

void Index::note(std::uint64_t id, ChannelEntry& channel) {
    const std::uint32_t oldest = std::min(channel.record_at, channel.sequence_at);
    if (oldest == channel.oldest) return;
    by_segment_.erase({channel.oldest, id});
    channel.oldest = oldest;
    by_segment_.insert({oldest, id});
}

void Index::drop(std::map<std::uint64_t, ChannelEntry>::iterator channel) {
    if (channel->second.record_at != 0)
        weigh(channel->second.record_at, -weight_of(channel->second));
    by_segment_.erase({channel->second.oldest, channel->first});
    channels_.erase(channel);
}

void Index::link(Key key, Entry& entry, const MessageHeader& header) {
    if (header.origin.channel == 0 && header.payload == 0) return;
    entry.linked = true;
    links_[key] = Links{header.origin, header.payload};
    if (header.origin.channel != 0)
        if (Entry* const origin = find(header.origin)) ++origin->references;
    if (header.payload != 0) ++payloads_[header.payload];
}

void Index::put(const MessageView& message, Lsn at) {
    const Key key = message.header.key;
    auto& channel = channels_[key.channel];
    const bool hidden = message.header.state.hidden != 0;
    if (!hidden && key.sequence >= channel.last_sequence) {
        channel.last_sequence = key.sequence;
        channel.sequence_at = segment_of(at);
        note(key.channel, channel);
    }
    const bool fresh = channel.entries.find(key.sequence) == nullptr;
    Entry& entry = channel.entries.add(key.sequence);
    if (fresh) entry.length = static_cast<std::uint32_t>(message.length);
    place(entry, at);
    entry.set(message.state);
    if (!fresh) return;
    entry.hidden = hidden;
    if (!hidden) ++messages_;
    link(key, entry, message.header);
}

bool Index::move(Key key, const State& state) {
    Entry* const entry = find(key);
    if (entry == nullptr || entry->hidden) return false;
    entry->set(state);
    return true;
}

void Index::remove(Key key, Entry& entry) {
    Links links;
    if (entry.linked) {
        const auto found = links_.find(key);
        links = found->second;
        links_.erase(found);
    }
    if (!entry.hidden) --messages_;
    weigh(segment_of(entry.at), -weight_of(entry));
    const auto channel = channels_.find(key.channel);
    channel->second.entries.remove(key.sequence);
    if (channel->second.erased && channel->second.entries.size() == 0) drop(channel);
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
}

void Index::forget(Key key) {
    if (Entry* const entry = find(key)) remove(key, *entry);
}

void Index::put_channel(std::uint64_t id, const ChannelBody& body, Bytes record,
                        std::uint32_t segment) {
    auto& channel = channels_[id];
    if (channel.record_at != 0) weigh(channel.record_at, -weight_of(channel));
    channel.record.assign(record.begin(), record.end());
    channel.erased = body.erased != 0;
    channel.record_at = segment;
    weigh(segment, weight_of(channel));
    if (body.last_sequence >= channel.last_sequence) {
        channel.last_sequence = body.last_sequence;
        channel.sequence_at = segment;
    }
    note(id, channel);
}

void Index::erase_channel(std::uint64_t id, std::uint32_t segment) {
    const auto found = channels_.find(id);
    if (found == channels_.end()) {
        // Copies of what is hidden of it may come later.
        if (replaying_) put_channel(id, {0, 1, 0}, {}, segment);
        return;
    }
    auto& channel = found->second;
    channel.erased = false;  // so that it stays for as long as this takes
    for (const std::uint64_t sequence : channel.entries.sequences()) erase({id, sequence});
    if (channel.entries.size() == 0 && !replaying_) return drop(found);
    channel.last_sequence = 0;
    channel.sequence_at = segment;
    put_channel(id, {0, 1, 0}, {}, segment);
}

std::set<std::uint64_t> Index::referring_channels() const {
    std::set<std::uint64_t> ids;
    for (const auto& [key, links] : links_)
        if (links.origin.channel != 0) ids.insert(key.channel);
    return ids;
}

std::vector<Key> Index::settle() {
    replaying_ = false;
    std::vector<Key> hidden;
    for (auto& [id, channel] : channels_) {
        for (const std::uint64_t sequence : channel.entries.sequences()) {
            Entry& entry = *channel.entries.find(sequence);
            entry.references = 0;
            if (entry.hidden) hidden.push_back({id, sequence});
        }
    }
    for (const auto& [key, links] : links_)
        if (links.origin.channel != 0)
            if (Entry* const origin = find(links.origin)) ++origin->references;
    for (const Key key : hidden)
        if (Entry* const entry = find(key); entry != nullptr && entry->references == 0)
            remove(key, *entry);
    for (auto each = channels_.begin(); each != channels_.end();) {
        const auto channel = each++;
        if (channel->second.erased && channel->second.entries.size() == 0) drop(channel);
    }
    // Of those that are left, not before: what is erased may well miss its origin.
    std::vector<Key> orphans;
    for (const auto& [key, links] : links_)
        if (links.origin.channel != 0 && find(links.origin) == nullptr) orphans.push_back(key);
    return orphans;
}

}  // namespace ipcfs::store
