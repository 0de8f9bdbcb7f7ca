// The cleaner: segments for the log to go on in, and old ones emptied, so that they can be used again.
// The oldest goes first: what a record erases or changes is then in its segment or behind it, or has
// been copied as it is now, so that no erasure needs to be kept for what it erased. Bounded: a segment
// with more alive than a little is emptied only when over half of all that is written is dead, so for each
// byte that is freed at most one is copied, on average; up to seven where the disk is full.
#include <algorithm>
#include <bit>
#include <chrono>

#include <store/segment_store.hpp>

namespace ipcfs::store {

namespace {

constexpr std::size_t kBatchBytes = 16 << 10;  // copied under one lock
constexpr std::size_t kBatchChannels = 64;
constexpr std::size_t kMostRecyclable = 3;
constexpr std::size_t kSpares = 2;
constexpr std::uint64_t kSmallRecords = 512;  // of what tells that a segment is free
constexpr auto kRetry = std::chrono::milliseconds(50);

bool has_messages(const RecordView& record) {
    return record.header.type == static_cast<std::uint8_t>(RecordType::kPut) ||
           record.header.type == static_cast<std::uint8_t>(RecordType::kCopy);
}

}  // namespace

bool SegmentStore::wants_spare() const {
    const Segment& now = *journal_.used().back();
    return journal_.spares().size() < kSpares && now.room() < now.size / 2;
}

std::uint32_t SegmentStore::next_size() const {
    if (options_.segment_bytes != 0) return segment_bytes_;
    const std::uint64_t grown = std::bit_ceil(std::max<std::uint64_t>(journal_.size(), 1));
    const auto size = std::max<std::uint64_t>({grown, kSmallestSegment, wanted_size_});
    return static_cast<std::uint32_t>(std::min<std::uint64_t>(size, segment_bytes_));
}

// Bytes that emptying the oldest segment may need.
std::uint64_t SegmentStore::keep() const {
    if (journal_.used().size() < 2) return 0;
    const std::uint32_t oldest = journal_.used().front()->number;
    const bool requests = !requests_.empty() && requests_.front().segment <= oldest;
    return index_.live(oldest) + kSmallRecords +
           (requests ? requests_.size() * sizeof(std::uint64_t) : 0);
}

// Next to nothing is alive in it, like the record of a channel.
bool SegmentStore::is_cheap(const Segment& segment) const {
    return index_.live(segment.number) <= segment.size / 64;
}

bool SegmentStore::worth_cleaning() const {
    if (journal_.used().size() < 2 || health_.failed) return false;
    if (is_cheap(*journal_.used().front())) return true;
    const std::uint64_t written = journal_.written();
    const std::uint64_t dead = written - std::min(written, index_.live());
    const std::uint64_t segment = journal_.used().back()->size;
    if (dead > index_.live() + 2 * segment) return true;
    return (no_space_ || !overflow_.empty()) && dead > written / 8 + segment;
}

// The segments that are ready are too small.
void SegmentStore::want_larger(std::uint32_t size) {
    wanted_size_ = std::max(wanted_size_, size);
    auto& spares = journal_.spares();
    recyclable_.insert(recyclable_.end(), spares.begin(), spares.end());
    spares.clear();
}

// Makes one more segment ready if there are fewer than `spares`.
Result<void> SegmentStore::prepare(std::size_t spares) {
    const std::scoped_lock one(preparing_);
    SegmentRef old;
    std::vector<SegmentRef> unfit;
    std::uint32_t number = 0;
    std::uint32_t size = 0;
    std::uint64_t bytes = 0;
    {
        const Lock lock(mutex_);
        if (journal_.spares().size() >= spares) return {};
        number = next_number_++;
        size = next_size();
        bytes = journal_.size() + size;
        for (const auto& each : journal_.spares()) bytes += each->size;
        for (auto& each : std::exchange(recyclable_, {})) {
            if (each->size != size)
                unfit.push_back(std::move(each));
            else if (!old)
                old = std::move(each);
            else
                recyclable_.push_back(std::move(each));
        }
    }
    for (const auto& each : unfit) (void)medium_->remove(segment_name(each->number));
    Result<SegmentRef> made = Fault{ENOSPC, "the store has reached its largest size"};
    if (old || options_.max_bytes == 0 || bytes <= options_.max_bytes)
        made = make_segment(*medium_, number, size, generation_, old);
    const Lock lock(mutex_);
    no_space_ = !made && made.error().code == ENOSPC;
    if (!made) return made.error();
    journal_.spares().push_back(*made);
    return {};
}

void SegmentStore::complain(const Fault& fault) {
    bool news = false;
    {
        const Lock lock(mutex_);
        news = trouble_ != fault.message() && !health_.failed;
        if (news) trouble_ = fault.message();
    }
    if (news) log_.error("store: ", fault.message());
}

bool SegmentStore::wait_durable(Lsn lsn) {
    Lock lock(mutex_);
    wanted_ = std::max(wanted_, lsn);
    if (std::exchange(idle_, false)) commit_wake_.notify_one();
    durable_wake_.wait(lock, [&] { return durable_ >= lsn || health_.failed || ended_; });
    return durable_ >= lsn;
}

void SegmentStore::clean_loop() {
    Lock lock(mutex_);
    while (!stopping_) {
        if (!removable_payloads_.empty()) {
            const auto unused = std::exchange(removable_payloads_, {});
            lock.unlock();
            for (const std::uint64_t id : unused) payloads_->remove(id);
            lock.lock();
            continue;
        }
        if (!overflow_.empty()) flush_overflow();
        const bool full = no_space_ || !overflow_.empty();
        const bool spare = (wants_spare() || full) && !health_.failed;
        const bool urgent = spare && !full && journal_.spares().empty();
        bool failed = false;
        // What costs next to nothing first: then the next segment need not be larger.
        if (worth_cleaning() && (!urgent || index_.live(journal_.used().front()->number) == 0)) {
            const SegmentRef oldest = journal_.used().front();
            lock.unlock();
            const bool done = clean(oldest);
            lock.lock();
            stuck_ = failed = !done;
            if (done) continue;
        } else {
            stuck_ = false;
        }
        if (spare && !stopping_) {
            const std::size_t spares = full ? journal_.spares().size() + 1 : kSpares;
            lock.unlock();
            const auto made = prepare(spares);
            if (!made && made.error().code != ENOSPC) complain(made.error());
            lock.lock();
            if (made && !failed) continue;
            failed = true;
        }
        if (stopping_) break;
        if (failed || no_space_ || !overflow_.empty()) {
            clean_wake_.wait_for(lock, kRetry);
            continue;
        }
        clean_wake_.wait(lock, [this] {
            return stopping_ || !removable_payloads_.empty() || !overflow_.empty() || no_space_ ||
                   worth_cleaning() || (wants_spare() && !health_.failed);
        });
    }
}

// Empties the oldest segment and frees it. False: not now.
bool SegmentStore::clean(const SegmentRef& segment) {
    // A put whose sync fails must not come back as a copy: so only what is on disk is copied.
    Lsn end = 0;
    {
        const Lock lock(mutex_);
        if (journal_.used().front() != segment) return true;
        if (!segment->complete()) end = make_lsn(segment->number, segment->end);
    }
    if (!wait_durable(end)) return false;
    {
        const Lock lock(mutex_);
        if (journal_.used().front() != segment || !segment->complete()) return false;
    }
    if (!copy_live(segment) || !copy_rest(segment)) return false;
    {
        const Lock lock(mutex_);
        end = journal_.end();
    }
    if (!wait_durable(end)) return false;
    recycle(segment);
    return true;
}

// The messages. Each batch is read without the lock and looked up and appended under it.
bool SegmentStore::copy_live(const SegmentRef& segment) {
    struct Copied {
        Key key;
        std::size_t at;  // in the body
    };
    const std::size_t most = std::min<std::size_t>(kBatchBytes, segment->size / 16);
    std::vector<RecordView> batch;
    std::size_t bytes = 0;
    std::vector<std::byte> body;
    std::vector<Copied> copied;
    const auto collect = [&](const RecordView& record) {
        Bytes rest = record.body;
        std::uint32_t at = record.start + static_cast<std::uint32_t>(sizeof(RecordHeader));
        for (std::uint32_t i = 0; i < record.header.count; ++i) {
            auto message = parse_message(rest);
            if (!message) return;
            const Key key = to_key(message->header.key);
            const Entry* const entry = index_.find(key);
            if (entry != nullptr && entry->at == make_lsn(segment->number, at)) {
                copied.push_back({key, body.size()});
                append_message(body, *message, entry->body());
            }
            rest = rest.subspan(message->length);
            at += static_cast<std::uint32_t>(message->length);
        }
    };
    const auto copy = [&]() -> bool {
        for (Lock lock(mutex_);;) {
            if (index_.live(segment->number) == 0) return true;
            body.clear();
            copied.clear();
            for (const auto& record : batch) collect(record);
            if (copied.empty()) return true;
            const std::size_t length = sizeof(RecordHeader) + body.size();
            auto fit = journal_.fit(length, false, 0);
            if (fit != Journal::Fit::kFits && no_space_) fit = journal_.fit(length, true, 0);
            if (fit == Journal::Fit::kFits) {
                const Lsn end = journal_.append(RecordType::kCopy, 0,
                                                static_cast<std::uint32_t>(copied.size()), body);
                for (const Copied& each : copied)
                    index_.place(*index_.find(each.key), end - body.size() + each.at);
                health_.copied_bytes += length;
                touch();
                return true;
            }
            if (no_space_ || stopping_) return false;
            if (fit == Journal::Fit::kTooLong) want_larger(segment->size);
            const std::size_t spares = journal_.spares().size() + 1;
            lock.unlock();
            if (const auto made = prepare(spares); !made && made.error().code != ENOSPC) {
                complain(made.error());
                return false;
            }
            lock.lock();
        }
    };
    {
        const Lock lock(mutex_);
        if (index_.live(segment->number) == 0) return true;
    }
    for (std::uint32_t at = kSegmentStart; at < segment->end;) {
        // Checked as it is read: nothing that has gone bad in memory or on disk moves on.
        const auto record = parse_record(segment->bytes(), at, segment->number, segment->salt);
        if (!record) {
            complain(Fault{EIO, "segment " + std::to_string(segment->number) +
                                    " of the journal cannot be read any more"});
            return false;
        }
        at += record->header.length;
        if (!has_messages(*record)) continue;
        if (!batch.empty() && bytes + record->header.length > most) {
            if (!copy()) return false;
            batch.clear();
            bytes = 0;
        }
        batch.push_back(*record);
        bytes += record->header.length;
    }
    return copy();
}

// What else only that segment says, and that it is not needed any more.
bool SegmentStore::copy_rest(const SegmentRef& segment) {
    const auto append = [&](RecordType type, std::uint64_t value, std::size_t count, Bytes body) {
        const std::size_t length = sizeof(RecordHeader) + align8(body.size());
        if (journal_.fit(length, true, 0) != Journal::Fit::kFits) return false;
        journal_.append(type, value, static_cast<std::uint32_t>(count), body);
        touch();
        return true;
    };
    for (bool more = true; more;) {
        const Lock lock(mutex_);
        auto ids = index_.channels_up_to(segment->number);
        more = ids.size() > kBatchChannels;
        if (more) ids.resize(kBatchChannels);
        for (const std::uint64_t id : ids) {
            const ChannelEntry& channel = *index_.channel(id);
            const ChannelBody body{channel.last_sequence, channel.erased ? 1U : 0U,
                                   static_cast<std::uint32_t>(channel.record.size())};
            const auto bytes = channel_bytes(body, channel.record);
            if (!append(RecordType::kChannel, id, 0, bytes)) return false;
            index_.put_channel(id, body, Bytes(bytes).subspan(sizeof body),
                               journal_.current().number);
        }
    }
    const Lock lock(mutex_);
    if (!requests_.empty() && requests_.front().segment <= segment->number) {
        std::vector<std::uint64_t> ids;
        for (const Request& each : requests_) ids.push_back(each.id);
        if (!append(RecordType::kRequests, 0, ids.size(), std::as_bytes(std::span(ids))))
            return false;
        for (Request& each : requests_) each.segment = journal_.current().number;
    }
    if (journal_.used().front() != segment || index_.live(segment->number) != 0) return false;
    return append(RecordType::kFree, journal_.used()[1]->number, 0, {});
}

// Nothing in it is needed: the file may be used again.
void SegmentStore::recycle(const SegmentRef& segment) {
    bool keep = false;
    {
        const Lock lock(mutex_);
        if (journal_.used().front() != segment) return;
        journal_.free_oldest();
        keep = recyclable_.size() < kMostRecyclable && segment->size == next_size();
        if (keep) recyclable_.push_back(segment);
        ++health_.cleaned;
        if (health_.failed_syncs == 0 && !health_.damaged) trouble_.clear();
    }
    if (!keep) (void)medium_->remove(segment_name(segment->number));
}

}  // namespace ipcfs::store
