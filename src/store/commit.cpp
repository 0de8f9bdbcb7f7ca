// The commit thread: one sync for everybody who waits, and what is done when a sync fails.
#include <algorithm>
#include <chrono>

#include <store/segment_store.hpp>

namespace ipcfs::store {

namespace {

// So many syncs in a row that fail are a broken disk.
constexpr unsigned kMostFailures = 3;

}  // namespace

void SegmentStore::commit_loop() {
    Lock lock(mutex_);
    for (;;) {
        if (!due_.empty() || (health_.failed && !victims_.empty())) {
            Waiting fine = std::exchange(due_, {});
            Waiting failed = health_.failed ? std::exchange(victims_, {}) : Waiting{};
            lock.unlock();
            fine.call(0);
            failed.call(EIO);
            lock.lock();
            continue;
        }
        const bool behind = durable_ < journal_.end() && !health_.failed;
        const bool asked = !waiting_.empty() || !victims_.empty() || wanted_ > durable_;
        if (behind && (asked || stopping_)) {
            commit(lock);
            continue;
        }
        if (stopping_ && !cleaning_) {
            ended_ = true;
            durable_wake_.notify_all();
            return;
        }
        if (!behind) changed_ = false;
        idle_ = true;
        const auto wanted = [this] { return !idle_ || (stopping_ && !cleaning_); };
        if (!behind) {
            commit_wake_.wait(lock, [&] { return wanted() || (changed_ && !health_.failed); });
        } else if (!commit_wake_.wait_for(lock, std::chrono::nanoseconds(options_.flush_after),
                                          wanted)) {
            idle_ = false;
            commit(lock);
        }
        idle_ = false;
    }
}

// Syncs what has been appended so far, without the lock, and calls those who waited for it.
void SegmentStore::commit(Lock& lock) {
    const Lsn target = journal_.end();
    const auto list = journal_.unsynced();
    const bool changed = std::exchange(changed_, false);
    auto unused = std::exchange(index_.unused_payloads, {});
    lock.unlock();
    Result<void> done;
    std::size_t synced = 0;
    for (; synced < list.size() && done; ++synced) done = list[synced].segment->region->sync();
    lock.lock();
    health_.syncs += synced;
    for (std::size_t i = 0; i + (done ? 0 : 1) < synced; ++i) {
        list[i].segment->synced = list[i].end;
        durable_ = make_lsn(list[i].segment->number, list[i].end);
    }
    if (!done) {
        index_.unused_payloads.insert(index_.unused_payloads.end(), unused.begin(), unused.end());
        return sync_failed(lock, list[synced - 1].segment, done.error());
    }
    durable_ = target;
    failures_ = 0;
    // Tells recovery that what is before it was on disk; itself it goes there with the next sync.
    // Not out of what the cleaner needs.
    if (changed && journal_.current().room() >= sizeof(RecordHeader) + (no_space_ ? keep() : 0))
        journal_.append(RecordType::kMark, durable_, 0, {});
    removable_payloads_.insert(removable_payloads_.end(), unused.begin(), unused.end());
    if (!unused.empty()) clean_wake_.notify_one();
    Waiting fine = waiting_.take(0, durable_);
    Waiting failed = std::exchange(victims_, {});
    lock.unlock();
    durable_wake_.notify_all();
    fine.call(0);
    failed.call(EIO);
    lock.lock();
}

void SegmentStore::give_up(const std::string& why) {
    health_.failed = true;
    trouble_ = why;
    victims_.join(std::exchange(waiting_, {}));
}

// The pages that could not be written may be lost, and the kernel will not say so again. So nothing
// more goes to that segment: what it holds behind its last sync is appended to a new one, without the
// puts that somebody waited for. Those are told EIO once the new one is on disk, so that they
// cannot come back.
void SegmentStore::sync_failed(Lock& lock, const SegmentRef& broken, const Fault& fault) {
    ++health_.failed_syncs;
    ++failures_;
    changed_ = true;
    lock.unlock();
    log_.error("store: ", fault.message(),
               "; what waited for it has failed, a new segment goes on");
    Result<void> made;
    {
        Lock look(mutex_);
        const bool none = journal_.spares().empty();
        look.unlock();
        if (none && failures_ < kMostFailures) made = prepare(1);
    }
    lock.lock();
    trouble_ = fault.message();
    if (failures_ >= kMostFailures || journal_.spares().empty()) {
        give_up("the journal cannot be written: " + fault.message());
        lock.unlock();
        log_.critical(
            "store: the journal cannot be written any more: nothing durable is "
            "accepted until a restart");
        durable_wake_.notify_all();
        lock.lock();
        return;
    }
    const Lsn from = make_lsn(broken->number, broken->synced);
    const Lsn to = journal_.end();
    std::vector<Lsn> without;
    waiting_.for_each([&](Lsn lsn) { without.push_back(lsn); });
    std::sort(without.begin(), without.end());
    victims_.join(waiting_.take(from, to));
    const auto lost = journal_.divert(broken);
    for (const auto& each : lost) {
        append_again(each, without);
        if (health_.failed) return;
        // Its file stays until the next start, which finds that it does not count.
    }
    if (replaced_.size() == 64) replaced_.erase(replaced_.begin());
    replaced_.push_back({from, to, journal_.end()});
}

void SegmentStore::append_again(const Journal::Lost& lost, const std::vector<Lsn>& without) {
    const Segment& from = *lost.segment;
    for (std::uint32_t at = lost.from; at < lost.to;) {
        const auto record = parse_record(from.bytes(), at, from.number, from.salt);
        if (!record) return give_up("what could not be written cannot be read again either");
        at += record->header.length;
        const auto type = static_cast<RecordType>(record->header.type);
        const bool of_the_segment =
            type == RecordType::kBegin || type == RecordType::kSeal || type == RecordType::kMark;
        if (of_the_segment) continue;
        const bool failed = type == RecordType::kPut &&
                            std::binary_search(without.begin(), without.end(), record->header.lsn);
        std::uint32_t start = 0;
        if (!failed) {
            if (journal_.fit(record->header.length, true, 0) != Journal::Fit::kFits)
                return give_up("no room for what could not be written");
            start = journal_.current().end;
            journal_.append(record->header, crc32c(record->body), [&](std::byte* to) {
                std::memcpy(to, record->body.data(), record->body.size());
            });
        }
        if (type != RecordType::kPut && type != RecordType::kCopy) continue;
        Bytes rest = record->body;
        std::uint32_t old = record->start + static_cast<std::uint32_t>(sizeof(RecordHeader));
        for (std::uint32_t i = 0; i < record->header.count; ++i) {
            const auto message = parse_message(rest);
            if (!message) break;
            const Key key = to_key(message->header.key);
            Entry* const entry = index_.find(key);
            if (entry != nullptr && entry->at == make_lsn(from.number, old)) {
                if (failed)
                    index_.forget(key);
                else
                    index_.place(
                        *entry, make_lsn(journal_.current().number, start + (old - record->start)));
            }
            rest = rest.subspan(message->length);
            old += static_cast<std::uint32_t>(message->length);
        }
    }
}

// What had no room: appended as soon as there is some, before any new put.
void SegmentStore::flush_overflow() {
    std::size_t done = 0;
    for (; done < overflow_.size(); ++done) {
        const Overflow& each = overflow_[done];
        if (journal_.fit(sizeof(RecordHeader) + align8(each.body.size()), true, keep()) !=
            Journal::Fit::kFits)
            break;
        touch();
        journal_.append(each.type, each.value, 0, each.body);
    }
    overflow_.erase(overflow_.begin(), overflow_.begin() + static_cast<std::ptrdiff_t>(done));
}

}  // namespace ipcfs::store
