// The cleaner keeps spare segments ready and empties old ones, so that their files can be used again. The oldest
// segment is emptied first: what its records erase or change is then in the same segment, or was copied in its
// present state, so no erasure has to be copied. A segment with more than a little alive is emptied only when over half
// of all written bytes are dead: for each byte that is freed, at most one is copied on average, and up to seven
// on a full disk.
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
constexpr std::uint64_t kSmallRecords = 512;  // bytes that say that a segment is free
constexpr std::uint32_t kQuicklyFilled = 1U
                                         << 20;  // a larger segment only when another one is ready
constexpr auto kRetry = std::chrono::milliseconds(50);

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

// Little is alive in it, such as the record of a channel.
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

// For a record that does not fit the spares.
void SegmentStore::discard_small_spares(std::uint32_t size) {
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
    bool fill = false;
    {
        const Lock lock(mutex_);
        if (journal_.spares().size() >= spares) return {};
        number = next_number_++;
        size = next_size();
        bytes = journal_.size() + size;
        for (const auto& each : journal_.spares()) bytes += each->size;
        fill = size <= kQuicklyFilled || !journal_.spares().empty();
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
        made = make_segment(*medium_, number, size, generation_, old, fill);
    const Lock lock(mutex_);
    no_space_ = !made && made.error().code == ENOSPC;
    if (!made) return made.error();
    journal_.spares().push_back(*made);
    return {};
}

// One more than there are, without the lock. Where the disk has no room, `no_space_` says so.
Result<void> SegmentStore::add_spare(Lock& lock) {
    const std::size_t spares = journal_.spares().size() + 1;
    lock.unlock();
    auto made = prepare(spares);
    lock.lock();
    if (!made && made.error().code != ENOSPC) return made;
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

bool SegmentStore::wait_durable(Lock& lock, Lsn lsn) {
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
        // First what costs next to nothing: it may make a larger segment unnecessary.
        if (worth_cleaning() && (!urgent || index_.live(journal_.used().front()->number) == 0)) {
            stuck_ = failed = !clean(lock);
            if (!failed) continue;
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

// Empties the oldest segment and frees it. False: it cannot be done now.
bool SegmentStore::clean(Lock& lock) {
    const SegmentRef segment = journal_.used().front();
    // Copies only what is on disk: a put whose sync fails must not come back as a copy.
    if (!segment->complete() && !wait_durable(lock, make_lsn(segment->number, segment->end)))
        return false;
    if (journal_.used().front() != segment || !segment->complete()) return false;
    lock.unlock();
    const bool copied = copy_live(*segment) && copy_metadata(segment);
    lock.lock();
    if (!copied || !wait_durable(lock, journal_.end())) return false;
    if (journal_.used().front() == segment) recycle(lock, segment);
    return true;
}

// The messages. Each batch is read without the lock and looked up and appended under it.
bool SegmentStore::copy_live(const Segment& segment) {
    {
        const Lock lock(mutex_);
        if (index_.live(segment.number) == 0) return true;
    }
    const std::size_t most = std::min<std::size_t>(kBatchBytes, segment.size / 16);
    std::vector<RecordView> batch;
    std::size_t bytes = 0;
    for (std::uint32_t at = kSegmentStart; at < segment.end;) {
        // Checked as it is read: nothing that has gone bad in memory or on disk moves on.
        const auto record = parse_record(segment.bytes(), at, segment.number, segment.salt);
        if (!record) {
            complain(Fault{EIO, "segment " + std::to_string(segment.number) +
                                    " of the journal cannot be read any more"});
            return false;
        }
        at += record->header.length;
        if (!record->has_messages()) continue;
        if (!batch.empty() && bytes + record->header.length > most) {
            if (!copy_batch(segment, batch)) return false;
            batch.clear();
            bytes = 0;
        }
        batch.push_back(*record);
        bytes += record->header.length;
    }
    return copy_batch(segment, batch);
}

bool SegmentStore::copy_batch(const Segment& segment, std::span<const RecordView> batch) {
    struct Copied {
        Key key;
        std::size_t at;  // in the body
    };
    std::vector<std::byte> body;
    std::vector<Copied> copied;
    body.reserve(kBatchBytes);
    for (Lock lock(mutex_); index_.live(segment.number) != 0;) {
        body.clear();
        copied.clear();
        for (const auto& record : batch) {
            for_each_message(record, [&](const MessageView& message, std::uint32_t at) {
                const Key key = message.header.key;
                const Entry* const entry = index_.find(key);
                if (entry == nullptr || entry->at != make_lsn(segment.number, at)) return;
                copied.push_back({key, body.size()});
                append_message(body, message, entry->body());
            });
        }
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
        if (fit == Journal::Fit::kTooLong) discard_small_spares(segment.size);
        if (const auto made = add_spare(lock); !made) {
            lock.unlock();
            complain(made.error());
            return false;
        }
    }
    return true;
}

// Channels and requests that only that segment holds; then the record that frees it.
bool SegmentStore::copy_metadata(const SegmentRef& segment) {
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
            const auto body = index_.channel(id)->body();
            if (!append(RecordType::kChannel, id, 0, body)) return false;
            index_.put_channel(id, load<ChannelBody>(body),
                               Bytes(body).subspan(sizeof(ChannelBody)), journal_.current().number);
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

// Nothing in it is needed any more: keeps the file for another segment, or removes it.
void SegmentStore::recycle(Lock& lock, const SegmentRef& segment) {
    journal_.free_oldest();
    ++health_.cleaned;
    if (health_.failed_syncs == 0 && !health_.damaged) trouble_.clear();
    if (recyclable_.size() < kMostRecyclable && segment->size == next_size())
        return recyclable_.push_back(segment);
    lock.unlock();
    (void)medium_->remove(segment_name(segment->number));
    lock.lock();
}

}  // namespace ipcfs::store
