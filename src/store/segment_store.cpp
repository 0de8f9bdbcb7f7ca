// Appending: what callers do, under the store's lock. Any thread.
#include <algorithm>
#include <bit>

#include <store/files.hpp>
#include <store/segment_store.hpp>

namespace ipcfs::store {

namespace {

constexpr std::array<std::byte, 8> kZeros{};

MessageHeader header_of(const Put& put) {
    MessageHeader header;
    header.key = put.key;
    header.state = to_body(put.state);
    header.origin = put.origin;
    header.payload = put.payload;
    header.head = static_cast<std::uint32_t>(put.head.size());
    header.content = static_cast<std::uint32_t>(put.content.size());
    return header;
}

// Calls use(bytes) for the parts of a message, padding included.
template <class F>
void for_each_part(const Put& put, F&& use) {
    const MessageHeader header = header_of(put);
    use(bytes_of(header));
    for (const Bytes part : {put.head, put.content}) {
        use(part);
        use(Bytes(kZeros).first(align8(part.size()) - part.size()));
    }
}

}  // namespace

SegmentStore::SegmentStore(Options options, Logger& log) : options_(std::move(options)), log_(log) {
    if (options_.boot.empty()) options_.boot = boot_id();
}

SegmentStore::~SegmentStore() {
    close();
}

Result<void> SegmentStore::gate(const char* operation) const {
    if (closed_) return Fault{EIO, std::string(operation) + ": the store is closed"};
    if (health_.failed) return Fault{EIO, std::string(operation) + ": " + trouble_};
    return {};
}

// Room for a record. One that may fail leaves the reserve alone, and what the cleaner needs; for another there may be
// none. Where no segment is ready although the disk has room, makes one: an append waits only when the
// cleaner has been left behind.
Result<void> SegmentStore::make_room(Lock& lock, const char* operation, std::size_t length,
                                     bool may_fail) {
    for (;;) {
        if (auto open = gate(operation); !open) return open;
        if (may_fail && length > Journal::most_of(segment_bytes_))
            return Fault{segment_bytes_ < kLargestSegment ? ENOSPC : EMSGSIZE,
                         std::string(operation) + ": more than a segment holds"};
        // What must not fail goes first, in a burst of erasing into the next segment.
        if (!overflow_.empty()) flush_overflow();
        const auto fit =
            overflow_.empty() ? journal_.fit(length, !may_fail, keep()) : Journal::Fit::kFull;
        if (fit == Journal::Fit::kFits) {
            if (wants_spare()) clean_wake_.notify_one();
            return {};
        }
        if (no_space_) {
            clean_wake_.notify_one();
            if (!may_fail) return {};
            return Fault{ENOSPC, std::string(operation) + ": no room in " + options_.directory};
        }
        if (fit == Journal::Fit::kTooLong)
            discard_small_spares(static_cast<std::uint32_t>(std::bit_ceil(length + length / 4)));
        // Puts come faster than segments get ready: fewer and larger ones.
        wanted_size_ =
            std::max(wanted_size_, std::min(4 * journal_.current().size, segment_bytes_));
        if (auto made = add_spare(lock); !made) return made;
    }
}

Result<Lsn> SegmentStore::put(std::span<const Put> together, std::uint64_t request) {
    // The checksum before the lock, the copy under it.
    RecordHeader header;
    header.type = RecordType::kPut;
    header.count = static_cast<std::uint32_t>(together.size());
    header.value = request;
    std::size_t length = sizeof header;
    std::uint32_t crc = 0;
    for (const Put& each : together) {
        length += message_length(each.head.size(), each.content.size());
        for_each_part(each, [&](Bytes part) { crc = crc32c(part, crc); });
    }
    Lock lock(mutex_);
    if (auto room = make_room(lock, "put", length, true); !room) return room.error();
    for (const Put& each : together) {
        const auto* const channel = index_.channel(each.key.channel);
        if (channel == nullptr || channel->erased) return Fault{ENOENT, "put: unknown channel"};
        if (index_.find(each.key) != nullptr) return Fault{EEXIST, "put: the key is there"};
        if (each.origin.channel == 0 || index_.find(each.origin) != nullptr) continue;
        if (std::none_of(together.begin(), together.end(),
                         [&](const Put& other) { return other.key == each.origin; }))
            return Fault{ENOENT, "put: unknown origin"};
    }
    header.length = static_cast<std::uint32_t>(length);
    const std::uint32_t start = journal_.current().end;
    const Lsn lsn = journal_.append(header, crc, [&](std::byte* to) {
        for (const Put& each : together) {
            for_each_part(each, [&](Bytes part) {
                if (!part.empty()) std::memcpy(to, part.data(), part.size());
                to += part.size();
            });
        }
    });
    std::uint32_t at = start + static_cast<std::uint32_t>(sizeof header);
    for (const Put& each : together) {
        MessageView view;
        view.header = header_of(each);
        view.state = each.state;
        view.length = message_length(each.head.size(), each.content.size());
        index_.put(view, make_lsn(segment_of(lsn), at));
        at += static_cast<std::uint32_t>(view.length);
    }
    health_.puts += together.size();
    remember(request);
    touch();
    return appended(lsn);
}

// There is something to sync, soon if nobody waits for it.
void SegmentStore::touch() {
    if (!std::exchange(changed_, true) && idle_ && !timed_) commit_wake_.notify_one();
}

// Once what says so has been appended.
void SegmentStore::remember(std::uint64_t request) {
    if (request == 0) return;
    if (requests_.size() == kKeptRequests) requests_.pop_front();
    requests_.push_back({request, journal_.current().number});
}

// A record that does not fail: where there is room, or kept until there is some.
Lsn SegmentStore::append_small(RecordType type, std::uint64_t value, std::uint32_t count,
                               Bytes body) {
    touch();
    const std::size_t length = sizeof(RecordHeader) + align8(body.size());
    if (overflow_.empty() && journal_.fit(length, true, keep()) == Journal::Fit::kFits) {
        if (no_space_ || wants_spare() || worth_cleaning()) clean_wake_.notify_one();
        return journal_.append(type, value, count, body);
    }
    overflow_.push_back({type, value, {body.begin(), body.end()}});
    clean_wake_.notify_one();
    return journal_.end();
}

Result<Lsn> SegmentStore::move(Key key, const State& state) {
    const MoveBody body{key, to_body(state)};
    Lock lock(mutex_);
    if (auto room = make_room(lock, "move", sizeof(RecordHeader) + sizeof body, false); !room)
        return room.error();
    if (!index_.move(key, state)) return Fault{ENOENT, "move: no such message"};
    return appended(append_small(RecordType::kMove, 0, 0, bytes_of(body)));
}

Result<Lsn> SegmentStore::erase(Key key) {
    Lock lock(mutex_);
    if (auto room = make_room(lock, "erase", sizeof(RecordHeader) + sizeof key, false); !room)
        return room.error();
    const Entry* const entry = index_.find(key);
    if (entry == nullptr || entry->hidden) return appended(journal_.end());
    index_.erase(key);
    return appended(append_small(RecordType::kErase, 0, 0, bytes_of(key)));
}

Result<Lsn> SegmentStore::put_channel(std::uint64_t id, std::span<const std::byte> record) {
    if (auto made = open(); !made) return made.error();
    Lock lock(mutex_);
    const std::size_t length = sizeof(RecordHeader) + sizeof(ChannelBody) + align8(record.size());
    if (auto room = make_room(lock, "put_channel", length, true); !room) return room.error();
    const ChannelEntry* const channel = index_.channel(id);
    const ChannelBody body{channel != nullptr ? channel->last_sequence : 0, 0,
                           static_cast<std::uint32_t>(record.size())};
    const Lsn lsn = append_small(RecordType::kChannel, id, 0, channel_bytes(body, record));
    index_.put_channel(id, body, record, segment_of(lsn));
    return appended(lsn);
}

Result<Lsn> SegmentStore::erase_channel(std::uint64_t id) {
    Lock lock(mutex_);
    if (auto room = make_room(lock, "erase_channel", sizeof(RecordHeader), false); !room)
        return room.error();
    if (index_.channel(id) == nullptr) return appended(journal_.end());
    const Lsn lsn = append_small(RecordType::kEraseChannel, id, 0, {});
    index_.erase_channel(id, segment_of(lsn));
    if (worth_cleaning()) clean_wake_.notify_one();
    return appended(lsn);
}

void SegmentStore::when_durable(Lsn lsn, Completion& then) {
    Lock lock(mutex_);
    // What was in a segment that could not be synced has moved.
    for (const Replaced& each : replaced_)
        if (lsn > each.from && lsn <= each.to) lsn = each.end;
    const bool is_durable = lsn <= durable_;
    if (ended_) {
        lock.unlock();
        return then.durable(is_durable ? 0 : EIO);
    }
    (is_durable ? due_ : health_.failed ? victims_ : waiting_).add(lsn, then);
    if (!std::exchange(idle_, false)) return;
    follow();
    lock.unlock();
    commit_wake_.notify_one();
}

Result<void> SegmentStore::save_payload(std::uint64_t id, int file, std::uint64_t offset,
                                        std::uint64_t size, bool sync) {
    if (!opened_) return Fault{EIO, "save a payload: nothing is durable"};
    return payloads_->save(id, file, offset, size, sync);
}

Result<Fd> SegmentStore::open_payload(std::uint64_t id) {
    // While it recovers, which is when this is called, it is not opened yet.
    if (!payloads_) return Fault{ENOENT, "payload " + std::to_string(id) + " is not kept"};
    return payloads_->open(id);
}

void SegmentStore::drop_payload(std::uint64_t id) {
    if (!opened_) return;
    {
        const Lock lock(mutex_);
        if (index_.refers(id)) return;
    }
    payloads_->remove(id);
}

Health SegmentStore::health() {
    const Lock lock(mutex_);
    Health health = health_;
    health.full = no_space_ || stuck_ || !overflow_.empty();
    health.messages = index_.messages();
    health.journal_bytes = journal_.size();
    if (!trouble_.empty())
        health.text = trouble_;
    else if (health.full)
        health.text = "no room for more messages in " + options_.directory;
    return health;
}

void SegmentStore::close() {
    const std::scoped_lock one(opening_);
    {
        const Lock lock(mutex_);
        stopping_ = true;
        if (closed_) return;
        closed_ = true;
        idle_ = false;
    }
    commit_wake_.notify_all();
    clean_wake_.notify_all();
    durable_wake_.notify_all();
    clean_thread_.join();
    {
        const Lock lock(mutex_);
        cleaning_ = false;
        idle_ = false;
    }
    commit_wake_.notify_all();
    commit_thread_.join();  // after its last sync
    EpochSlot slot = epoch_->last();
    {
        const Lock lock(mutex_);
        slot.clean = health_.failed || !overflow_.empty() || durable_ != journal_.end() ? 0 : 1;
        slot.end = journal_.end();
    }
    if (slot.clean != 0) {
        if (auto done = epoch_->write(slot); !done)
            log_.error("store: not closed cleanly: ", done.error().message());
    }
    directory_lock_.reset();
}

}  // namespace ipcfs::store
