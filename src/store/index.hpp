// What is alive, in memory: where each message is and in what state, some 40 bytes a message (16
// neighbours in sequence share a block), and what LMDB has yet to be told of it. The same functions apply
// a change now and at replay; applying one twice, or one whose outcome is known already, is
// harmless. Guarded by the store's lock.
#pragma once

#include <array>
#include <bit>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include <boost/unordered/unordered_flat_map.hpp>
#include <store/format.hpp>

namespace ipcfs::store {

struct Entry {
    Lsn at = 0;  // segment and offset of its MessageHeader in the journal; 0: LMDB alone has it
    Nanos not_before = 0;
    std::uint32_t deliveries = 0;
    std::uint32_t references = 0;  // messages whose origin it is
    Place place = Place::kQueued;
    bool redelivered = false;
    bool hidden = false;    // erased, and only there for its references
    bool in_table = false;  // LMDB has it, or is being given it
    bool changed = false;   // LMDB has an older state, and `changed()` names it
    bool linked = false;    // `links` has its origin and payload

    State state() const { return {place, redelivered, deliveries, not_before}; }
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
    bool erased = false;   // what is left is hidden
    bool changed = false;  // LMDB has another record or last_sequence
    Entries entries;
};

class Index {
public:
    ChannelEntry* channel(std::uint64_t id);
    Entry* find(Key key);
    const Links& links(Key key) const;  // of one that is linked
    bool refers(std::uint64_t payload) const { return payloads_.contains(payload); }
    std::size_t messages() const { return messages_; }  // that are not hidden
    const std::map<std::uint64_t, ChannelEntry>& channels() const { return channels_; }
    std::map<std::uint64_t, ChannelEntry>& channels() { return channels_; }
    const boost::unordered_flat_map<std::uint64_t, std::uint32_t>& payloads() const {
        return payloads_;
    }

    // The message at `at` of the journal. One that is there already is only placed there.
    void put(const MessageView& message, Lsn at);
    // One that LMDB has.
    void load(const MessageView& message);
    bool move(Key key, const State& state);  // false: not there
    void erase(Key key);
    // As if it had never been put.
    void forget(Key key);
    void put_channel(std::uint64_t id, Bytes record);
    void erase_channel(std::uint64_t id);
    void load_channel(std::uint64_t id, std::uint64_t last_sequence, bool erased, Bytes record);
    std::set<std::uint64_t> referring_channels() const;  // with messages that have an origin
    // Once everything is loaded. What LMDB knows may be younger than what is replayed: so nothing goes
    // for want of references until `settle`, as what comes later may need it.
    void begin_replay();
    // After replay: counts references anew, ends what only references held that are gone. The keys of
    // those whose origin is missing.
    std::vector<Key> settle();

    // What LMDB does not know yet; the caller takes it, and gives it back if it could not be told.
    struct Changes {
        std::vector<Key> gone, changed;
        std::vector<std::uint64_t> dropped;   // channels with all they had
        std::vector<std::uint64_t> channels;  // new records
        bool empty() const {
            return gone.empty() && changed.empty() && dropped.empty() && channels.empty();
        }
    };
    Changes changes;
    std::vector<std::uint64_t> unused_payloads;  // nobody refers to them any more

private:
    void recount();
    void link(Key key, Entry& entry, const MessageHeader& header);
    void remove(Key key, Entry& entry);
    void touch(std::uint64_t id, ChannelEntry& channel);

    std::map<std::uint64_t, ChannelEntry> channels_;
    boost::unordered_flat_map<Key, Links, KeyHash> links_;
    boost::unordered_flat_map<std::uint64_t, std::uint32_t> payloads_;
    std::size_t messages_ = 0;
    bool replaying_ = false;
};

}  // namespace ipcfs::store
