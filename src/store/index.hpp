// What is alive, in memory: where each message is and in what state, some 40 bytes a message (16
// neighbours in sequence share a block), and how many bytes of each segment that is. The same
// functions apply a change now and at replay, which may begin in the middle: what a record refers to may
// be absent, or come later as a copy. Guarded by the store's lock.
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
    bool hidden = false;  // erased, and only there for its references
    bool linked = false;  // `links` has its origin and payload

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
    std::uint32_t record_at = 0, sequence_at = 0;  // the segments that say so
    std::uint32_t oldest = 0;                      // of these two
    bool erased = false;                           // what is left is hidden
    Entries entries;
};

class Index {
public:
    ChannelEntry* channel(std::uint64_t id);
    Entry* find(Key key);
    const Links& links(Key key) const;  // of one that is linked
    bool refers(std::uint64_t payload) const { return payloads_.contains(payload); }
    std::size_t messages() const { return messages_; }  // that are not hidden
    std::map<std::uint64_t, ChannelEntry>& channels() { return channels_; }

    // Bytes of a segment, or of all, that a copy of what is alive would take at most.
    std::uint64_t live(std::uint32_t segment) const;
    std::uint64_t live() const { return live_sum_; }
    // The channels that segments up to `segment` say something about.
    std::vector<std::uint64_t> channels_up_to(std::uint32_t segment) const;

    // The message at `at`. One that is there already is only placed there, in that state.
    void put(const MessageView& message, Lsn at);
    void place(Entry& entry, Lsn at);
    bool move(Key key, const State& state);  // false: not there
    void erase(Key key);
    // As if it had never been put.
    void forget(Key key);
    // `segment`: where the record of that change is.
    void put_channel(std::uint64_t id, const ChannelBody& body, Bytes record,
                     std::uint32_t segment);
    void erase_channel(std::uint64_t id, std::uint32_t segment);
    std::set<std::uint64_t> referring_channels() const;  // with messages that have an origin
    // Until `settle` nothing goes for want of references, as what comes later may need it.
    void begin_replay() { replaying_ = true; }
    // After replay: counts references anew, ends what only references held that are gone. The keys of
    // those whose origin is missing.
    std::vector<Key> settle();

    std::vector<std::uint64_t> unused_payloads;  // nobody refers to them any more

private:
    void weigh(std::uint32_t segment, std::int64_t bytes);
    void recount();
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
