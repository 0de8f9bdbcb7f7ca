// The checkpoint thread: segments for the journal to go on in, and what is alive of full ones into
// LMDB. Everything it needs is taken under the lock and written without it. A transaction may
// know erasures, states and channels that are younger than the segment it completes: replay
// of the younger journal then finds them done. What it knows is durable in the journal before.
#include <algorithm>
#include <chrono>
#include <sys/stat.h>

#include <store/lmdb_store.hpp>

namespace ipcfs::store {

namespace {

constexpr std::size_t kBatch = 256;  // keys looked up under one lock
constexpr std::size_t kMostRecyclable = 3;
constexpr std::size_t kPartErased = 16;       // in one transaction when the disk is full
constexpr std::size_t kPartBytes = 32 << 10;  // of messages, likewise
constexpr auto kRetry = std::chrono::milliseconds(50);

}  // namespace

// What one transaction, or several small ones, are to tell LMDB. What has been told is taken out.
struct LmdbStore::Work {
    struct Moving {
        Key key;
        Lsn at;
        StateBody state;
    };
    struct Changed {
        Key key;
        StateBody state;
    };
    struct Channel {
        ChannelBody body;
        std::vector<std::byte> record;
    };
    SegmentRef segment;
    std::vector<std::uint64_t> dropped;
    std::vector<Key> gone;
    std::vector<Channel> channels;
    std::vector<Moving> moving;
    std::vector<Changed> changed;
    std::vector<std::uint64_t> requests;
    bool started = false;  // `moving` has been taken

    // Adds what the index has to say. Under the store's lock.
    void take(Index& index) {
        auto changes = std::exchange(index.changes, {});
        dropped.insert(dropped.end(), changes.dropped.begin(), changes.dropped.end());
        gone.insert(gone.end(), changes.gone.begin(), changes.gone.end());
        for (const std::uint64_t id : changes.channels) {
            ChannelEntry* const channel = index.channel(id);
            if (channel == nullptr || !std::exchange(channel->changed, false)) continue;
            const auto length = static_cast<std::uint32_t>(channel->record.size());
            channels.push_back(
                {{id, channel->last_sequence, channel->erased ? 1U : 0U, length}, channel->record});
        }
        // LMDB is told changes only of what it has. What waits for room in it goes there as it is by
        // then, and what has gone since is not there.
        const auto absent = [&](Key key) {
            const Entry* const entry = index.find(key);
            return entry == nullptr || entry->at != 0;
        };
        std::erase_if(changed, [&](const Changed& each) { return absent(each.key); });
        for (const Key key : changes.changed) {
            Entry* const entry = index.find(key);
            if (entry == nullptr || !std::exchange(entry->changed, false)) continue;
            if (entry->at == 0) changed.push_back({key, body_of(*entry)});
        }
        std::erase_if(moving, [&](Moving& each) {
            const Entry* const entry = index.find(each.key);
            if (entry == nullptr || entry->at != each.at) return true;
            each.state = body_of(*entry);
            return false;
        });
        std::erase_if(channels,
                      [&](const Channel& each) { return index.channel(each.body.id) == nullptr; });
    }

    static StateBody body_of(const Entry& entry) {
        StateBody body = to_body(entry.state());
        body.hidden = entry.hidden ? 1 : 0;
        return body;
    }

    // Takes what is alive of the messages of `record`. Under the store's lock.
    void take(Index& index, const RecordView& record) {
        Bytes rest = record.body;
        std::uint32_t at = record.start + static_cast<std::uint32_t>(sizeof(RecordHeader));
        for (std::uint32_t i = 0; i < record.header.count; ++i) {
            const auto message = parse_message(rest);
            if (!message) return;
            const Key key = to_key(message->header.key);
            Entry* const entry = index.find(key);
            const Lsn here = make_lsn(segment->number, at);
            if (entry != nullptr && entry->at == here) {
                entry->in_table = true;  // from now on LMDB has to be told when it goes
                entry->changed = false;
                moving.push_back({key, here, body_of(*entry)});
            }
            rest = rest.subspan(message->length);
            at += static_cast<std::uint32_t>(message->length);
        }
    }

    MessageView message(const Moving& each) const {
        auto view = parse_message(segment->bytes().subspan(offset_of(each.at)));
        IPCFS_CHECK(view.has_value());
        view->header.state = each.state;
        return *view;
    }

    // Pages that LMDB may need, on the safe side.
    std::uint64_t pages() const {
        std::uint64_t bytes = 0;
        std::uint64_t large = 0;
        for (const auto& each : moving) {
            const std::uint64_t length = message(each).length + 32;
            if (length > 1900)
                large += (length + 4095 + 16) / 4096;
            else
                bytes += length;
        }
        return large + bytes * 3 / 2 / 4096 + (gone.size() + changed.size()) / 4 +
               4 * channels.size() + 32;
    }
};

bool LmdbStore::wants_spare() const {
    return journal_.spares().size() < (segment_bytes_ < (16U << 20) ? 1U : 2U);
}

Result<void> LmdbStore::prepare() {
    const std::scoped_lock one(preparing_);
    SegmentRef old;
    auto segment = std::make_shared<Segment>();
    std::uint64_t bytes = segment_bytes_;
    {
        const Lock lock(mutex_);
        if (!wants_spare()) return {};
        segment->number = next_number_++;
        for (const auto& each : journal_.used()) bytes += each->size;
        for (const auto& each : journal_.spares()) bytes += each->size;
        if (!recyclable_.empty()) {
            old = std::move(recyclable_.back());
            recyclable_.pop_back();
        }
    }
    const std::string spare = "spare-" + std::to_string(segment->number);
    const auto make = [&]() -> Result<void> {
        if (old) {
            if (auto done = medium_->rename(segment_name(old->number), spare); !done) return done;
            segment->region = std::move(old->region);
        } else {
            struct stat info {};
            const std::string file = path("lmdb/data.mdb");
            if (options_.max_bytes != 0 && ::stat(file.c_str(), &info) == 0 &&
                bytes + static_cast<std::uint64_t>(info.st_size) > options_.max_bytes)
                return Fault{ENOSPC, "the store has reached its largest size"};
            auto made = medium_->make(spare, segment_bytes_);
            if (!made) return made.error();
            segment->region = std::move(*made);
        }
        segment->size = static_cast<std::uint32_t>(segment->region->bytes().size());
        SegmentHeader header;
        header.number = segment->number;
        // Any that the file has not had before.
        header.salt = segment->number * 0x9e3779b9U ^ static_cast<std::uint32_t>(generation_ << 7);
        header.size = segment->size;
        header.generation = generation_;
        header = sealed(header);
        segment->salt = header.salt;
        std::memcpy(segment->region->bytes().data(), &header, sizeof header);
        if (auto done = segment->region->sync(); !done) return done;
        if (auto done = medium_->rename(spare, segment_name(segment->number)); !done) return done;
        return medium_->sync_names();
    };
    auto made = make();
    if (!made) {
        segment->region.reset();
        (void)medium_->remove(spare);
    }
    const Lock lock(mutex_);
    no_space_ = !made && made.error().code == ENOSPC;
    if (made) journal_.spares().push_back(segment);
    return made;
}

void LmdbStore::complain(const Fault& fault) {
    bool news = false;
    {
        const Lock lock(mutex_);
        news = trouble_ != fault.message() && !health_.failed;
        if (news) trouble_ = fault.message();
    }
    if (news) log_.error("store: ", fault.message());
}

bool LmdbStore::wait_durable(Lsn lsn) {
    Lock lock(mutex_);
    wanted_ = std::max(wanted_, lsn);
    if (std::exchange(idle_, false)) commit_wake_.notify_one();
    durable_wake_.wait(lock, [&] { return durable_ >= lsn || health_.failed || ended_; });
    return durable_ >= lsn;
}

void LmdbStore::checkpoint_loop() {
    std::optional<Work> work;  // what LMDB could not take yet
    Lock lock(mutex_);
    while (!stopping_) {
        if (!removable_payloads_.empty()) {
            const auto unused = std::exchange(removable_payloads_, {});
            lock.unlock();
            for (const std::uint64_t id : unused) payloads_->remove(id);
            lock.lock();
            continue;
        }
        bool failed = false;
        if (wants_spare() && !health_.failed) {
            lock.unlock();
            const auto made = prepare();
            if (!made && made.error().code != ENOSPC) complain(made.error());
            failed = !made;
            lock.lock();
        }
        if (!overflow_.empty()) flush_overflow();
        if (journal_.used().size() > 1 && !health_.failed && !stopping_) {
            if (!work) {
                work.emplace();
                work->segment = journal_.used().front();
            }
            lock.unlock();
            const bool done = checkpoint(*work);
            lock.lock();
            stuck_ = !done;
            failed = failed || !done;
            if (done) {
                work.reset();
                continue;
            }
        }
        if (stopping_) break;
        if (failed || !overflow_.empty() || no_space_) {
            checkpoint_wake_.wait_for(lock, kRetry);
            continue;
        }
        checkpoint_wake_.wait(lock, [this] {
            return stopping_ || !removable_payloads_.empty() || !overflow_.empty() ||
                   (!health_.failed && (wants_spare() || journal_.used().size() > 1));
        });
    }
}

// Completes one segment. False: not yet; what has been told is gone from `work`.
bool LmdbStore::checkpoint(Work& work) {
    Lsn durable = 0;
    {
        const Lock lock(mutex_);
        work.take(index_);
        work.requests = requests_;
        const auto oldest = static_cast<std::ptrdiff_t>(next_request_ % kKeptRequests);
        std::rotate(work.requests.begin(),
                    work.requests.begin() + (next_request_ == 0 ? 0 : oldest), work.requests.end());
        durable = journal_.end();
    }
    if (!wait_durable(durable)) return false;
    const Segment& segment = *work.segment;
    if (!work.started) {
        work.started = true;
        std::vector<RecordView> batch;
        const auto take = [&] {
            const Lock lock(mutex_);
            for (const auto& record : batch) work.take(index_, record);
            batch.clear();
        };
        for (std::uint32_t at = kSegmentStart; at < segment.end;) {
            // Checked as it is read: nothing that has gone bad in memory or on disk moves on.
            const auto record = parse_record(segment.bytes(), at, segment.number, segment.salt);
            if (!record) {
                complain(Fault{EIO, "segment " + std::to_string(segment.number) +
                                        " of the journal cannot be read any more"});
                work.started = false;
                work.moving.clear();
                return false;
            }
            at += record->header.length;
            if (record->header.type != static_cast<std::uint8_t>(RecordType::kPut)) continue;
            batch.push_back(*record);
            if (batch.size() == kBatch) take();
        }
        take();
    }
    auto done = apply(work);
    if (!done) {
        if (done.error().code != ENOSPC) {
            complain(done.error());
            table_.reset();
            auto opened = Table::open(path("lmdb"));
            if (opened) table_ = std::move(*opened);
        }
        return false;
    }
    recycle(work.segment);
    return true;
}

Result<void> LmdbStore::apply(Work& work) {
    if (!table_) {
        auto opened = Table::open(path("lmdb"));
        if (!opened) return opened.error();
        table_ = std::move(*opened);
    }
    bool complete = false;
    // In one go where there is room, else little by little, erasing first: that makes room.
    if (table_->secure(work.pages(), table_reserve_)) {
        auto done = apply_part(work, true, complete);
        if (done || done.error().code != ENOSPC) return done;
    }
    while (!complete) {
        if (auto done = apply_part(work, false, complete); !done) return done;
    }
    return {};
}

Result<void> LmdbStore::apply_part(Work& work, bool all, bool& complete) {
    const std::size_t most = all ? SIZE_MAX : kPartErased;
    const auto drops = std::min(work.dropped.size(), most);
    const auto goes = drops != 0 && !all ? 0 : std::min(work.gone.size(), most);
    const bool erasing = drops + goes != 0;
    const auto channels = erasing && !all ? 0 : std::min(work.channels.size(), most);
    const auto changes =
        (erasing || channels != 0) && !all ? 0 : std::min(work.changed.size(), most);
    std::size_t moves = all ? work.moving.size() : 0;
    if (!all && !erasing && channels == 0 && changes == 0) {
        std::uint64_t pages = 16;
        for (std::size_t bytes = 0; moves < work.moving.size() && bytes < kPartBytes; ++moves) {
            const std::size_t length = work.message(work.moving[moves]).length;
            bytes += length;
            pages += length / 2048 + 1;
        }
        if (moves != 0)
            if (auto room = table_->secure(pages, table_reserve_); !room) return room;
    }
    const bool last =
        all || (!erasing && channels == 0 && changes == 0 && moves == work.moving.size());
    const auto tell = [&]() -> Result<void> {
        if (auto done = table_->begin(); !done) return done;
        for (std::size_t i = 0; i < drops; ++i)
            if (auto done = table_->drop(work.dropped[i]); !done) return done;
        for (std::size_t i = 0; i < goes; ++i)
            if (auto done = table_->erase(work.gone[i]); !done) return done;
        for (std::size_t i = 0; i < channels; ++i) {
            const auto& each = work.channels[i];
            if (auto done = table_->put_channel(each.body, each.record); !done) return done;
        }
        for (std::size_t i = 0; i < moves; ++i) {
            const auto message = work.message(work.moving[i]);
            if (auto done = table_->put(message.header, message.head, message.content); !done)
                return done;
        }
        for (std::size_t i = 0; i < changes; ++i)
            if (auto done = table_->set_state(work.changed[i].key, work.changed[i].state); !done)
                return done;
        if (last && !work.requests.empty())
            if (auto done = table_->put_requests(work.requests); !done) return done;
        return table_->commit(last ? make_lsn(work.segment->number, work.segment->end)
                                   : table_->state().applied);
    };
    for (;;) {
        auto done = tell();
        if (done) break;
        if (!table_->abort()) return done;  // else the map has grown
    }
    {
        const Lock lock(mutex_);
        for (std::size_t i = 0; i < moves; ++i) {
            Entry* const entry = index_.find(work.moving[i].key);
            if (entry != nullptr && entry->at == work.moving[i].at) entry->at = 0;
        }
        ++health_.checkpoints;
    }
    const auto cut = [](auto& list, std::size_t count) {
        list.erase(list.begin(), list.begin() + static_cast<std::ptrdiff_t>(count));
    };
    cut(work.dropped, drops);
    cut(work.gone, goes);
    cut(work.channels, channels);
    cut(work.moving, moves);
    cut(work.changed, changes);
    complete = last;
    return {};
}

// LMDB has all of it: the file may be used again.
void LmdbStore::recycle(const SegmentRef& segment) {
    bool keep = false;
    {
        const Lock lock(mutex_);
        IPCFS_CHECK(journal_.used().front() == segment);
        journal_.used().pop_front();
        keep = recyclable_.size() < kMostRecyclable && segment->size == segment_bytes_;
        if (keep) recyclable_.push_back(segment);
        // Recovery compares it with LMDB's, which must not be behind.
        if (journal_.current().room() >= sizeof(RecordHeader))
            journal_.append(RecordType::kCheckpoint, table_->state().number, 0, {});
        touch();
        if (health_.failed_syncs == 0 && !health_.damaged) trouble_.clear();
    }
    if (!keep) (void)medium_->remove(segment_name(segment->number));
}

}  // namespace ipcfs::store
