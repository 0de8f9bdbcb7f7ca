// The live messages: where each is and in what state, some 40 bytes a message (16 neighbours in sequence
// share a block), and how many bytes of each segment are alive. New changes and replayed ones use the same
// functions. Replay may begin in the middle of the log, so what a record refers to may be missing, or
// follow later as a copy. Guarded by the store's lock.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include <boost/unordered/unordered_flat_map.hpp>
#include <store/format.hpp>

namespace ipcfs::store {

struct Entry {
    Lsn at = 0;  // segment and offset of its MessageHeader
    Nanos not_before = 0;
    std::uint32_t deliveries = 0;
    std::uint32_t references = 0;  // messages whose origin it is
    std::uint32_t length = 0;      // of its bytes, with padding
    Place place = Place::kQueued;
    bool redelivered = false;
    bool hidden = false;  // erased, but its content is somebody's origin
    bool linked = false;  // it has an origin or a payload, see `links`

    State state() const { return {place, redelivered, deliveries, not_before}; }
    StateBody body() const {
        StateBody body = to_body(state());
        body.hidden = hidden ? 1 : 0;
        return body;
    }
    void set(const State& state) {
        place = state.place;
        redelivered = state.redelivered;
        deliveries = state.deliveries;
        not_before = state.not_before;
    }
};

struct Links {
    Key origin;
    std::uint64_t payload = 0;
};

struct KeyHash {
    std::size_t operator()(const Key& key) const noexcept {
        return static_cast<std::size_t>((key.channel * 0x9e3779b97f4a7c15U) ^
                                        (key.sequence * 0xc2b2ae3d27d4eb4fU));
    }
};

// The live messages of a channel by sequence.
class Entries {
public:
    Entry* find(std::uint64_t sequence) noexcept;
    Entry& add(std::uint64_t sequence);  // the one that is there, or a new one
    void remove(std::uint64_t sequence);
    std::size_t size() const noexcept { return size_; }
    std::vector<std::uint64_t> sequences() const;  // ascending

private:
    static constexpr std::uint64_t kBlock = 16;
    struct Block {
        std::uint16_t present = 0;
        std::array<Entry, kBlock> entries;
    };
    boost::unordered_flat_map<std::uint64_t, std::unique_ptr<Block>> blocks_;
    std::size_t size_ = 0;
};

struct ChannelEntry {
    std::vector<std::byte> record;
    std::uint64_t last_sequence = 0;
    std::uint32_t record_at = 0, sequence_at = 0;  // the segments that hold them
    std::uint32_t oldest = 0;                      // of these two
    bool erased = false;                           // only hidden messages are left
    Entries entries;

    // Of its kChannel record.
    std::vector<std::byte> body() const {
        return channel_bytes(
            {last_sequence, erased ? 1U : 0U, static_cast<std::uint32_t>(record.size())}, record);
    }
};

class Index {
public:
    ChannelEntry* channel(std::uint64_t id);
    Entry* find(Key key);
    const Links& links(Key key) const;  // of one that is linked
    bool refers(std::uint64_t payload) const { return payloads_.contains(payload); }
    std::size_t messages() const { return messages_; }  // that are not hidden
    std::map<std::uint64_t, ChannelEntry>& channels() { return channels_; }

    // Bytes that a copy of what is alive in a segment, or in all of them, would take at most.
    std::uint64_t live(std::uint32_t segment) const;
    std::uint64_t live() const { return live_sum_; }
    // The channels of which something is only in segments up to `segment`.
    std::vector<std::uint64_t> channels_up_to(std::uint32_t segment) const;

    // Adds the message at `at`, or moves the one of that key there, in that state.
    void put(const MessageView& message, Lsn at);
    void place(Entry& entry, Lsn at);
    bool move(Key key, const State& state);  // false: not there
    void erase(Key key);
    // Removes it as if it had never been put.
    void forget(Key key);
    // `segment` holds the record of the change.
    void put_channel(std::uint64_t id, const ChannelBody& body, Bytes record,
                     std::uint32_t segment);
    void erase_channel(std::uint64_t id, std::uint32_t segment);
    std::set<std::uint64_t> referring_channels() const;  // with messages that have an origin
    // Until `settle`, messages without references stay: a later record may refer to them.
    void begin_replay() { replaying_ = true; }
    // After replay: counts references and removes hidden messages that have none. Returns the keys
    // of messages whose origin is missing.
    std::vector<Key> settle();

    std::vector<std::uint64_t> unused_payloads;  // that no message refers to any more

private:
    void weigh(std::uint32_t segment, std::int64_t bytes);
    void link(Key key, Entry& entry, const MessageHeader& header);
    void remove(Key key, Entry& entry);
    void note(std::uint64_t id, ChannelEntry& channel);
    void drop(std::map<std::uint64_t, ChannelEntry>::iterator channel);

    std::map<std::uint64_t, ChannelEntry> channels_;
    std::set<std::pair<std::uint32_t, std::uint64_t>> by_segment_;  // ChannelEntry::oldest and id
    boost::unordered_flat_map<Key, Links, KeyHash> links_;
    boost::unordered_flat_map<std::uint64_t, std::uint32_t> payloads_;
    boost::unordered_flat_map<std::uint32_t, std::uint64_t> live_;  // by segment; none is 0
    std::uint64_t live_sum_ = 0;
    std::size_t messages_ = 0;
    bool replaying_ = false;
};

}  // namespace ipcfs::store
