// The commit thread: one sync for everybody who waits, and what is done when a sync fails.
#include <algorithm>
#include <chrono>
#include <sched.h>
#include <unistd.h>

#include <store/segment_store.hpp>

namespace ipcfs::store {

namespace {

constexpr unsigned kMostFailures = 3;  // of syncs in a row: more are a broken disk
constexpr unsigned kManyInARow = 16;   // commits without sleep between them

}  // namespace

// Moves the sleeping commit thread to the CPU of the caller. A wake-up on the same CPU takes a tenth of one
// across CPUs, and the ring's thread that will send the answer is on this CPU, too.
void SegmentStore::follow() {
    const int cpu = ::sched_getcpu();
    if (cpu < 0 || std::exchange(commit_cpu_, cpu) == cpu) return;
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CPU_SET(static_cast<unsigned>(cpu), &cpus);
    ::sched_setaffinity(commit_thread_id_, sizeof cpus, &cpus);
}

void SegmentStore::run_anywhere() {
    cpu_set_t cpus;
    if (std::exchange(commit_cpu_, -1) != -1 &&
        ::sched_getaffinity(::getpid(), sizeof cpus, &cpus) == 0)
        ::sched_setaffinity(0, sizeof cpus, &cpus);
}

void SegmentStore::commit_loop() {
    Lock lock(mutex_);
    commit_thread_id_ = ::gettid();
    unsigned in_a_row = 0;  // commits without sleep
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
            // A thread that is always busy must not be bound to a CPU that others use.
            if (++in_a_row == kManyInARow) run_anywhere();
            commit(lock);
            continue;
        }
        in_a_row = 0;
        if (stopping_ && !cleaning_) {
            ended_ = true;
            durable_wake_.notify_all();
            return;
        }
        if (!behind) changed_ = false;
        idle_ = true;
        timed_ = behind || (unmarked_ && !health_.failed);
        const auto wanted = [this] { return !idle_ || (stopping_ && !cleaning_); };
        if (!timed_) {
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
    // Tells recovery that what is before it was on disk; itself it goes there with this sync. Not out
    // of what the cleaner needs.
    if (std::exchange(unmarked_, false) &&
        journal_.current().room() >= sizeof(RecordHeader) + (no_space_ ? keep() : 0))
        journal_.append(RecordType::kMark, durable_, 0, {});
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
    unmarked_ = changed;
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

void SegmentStore::latch_failure(const std::string& why) {
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
    const bool needs_spare = journal_.spares().empty() && failures_ < kMostFailures;
    lock.unlock();
    log_.error("store: ", fault.message(),
               "; what waited for it has failed, a new segment goes on");
    if (needs_spare) (void)prepare(1);
    lock.lock();
    trouble_ = fault.message();
    if (failures_ >= kMostFailures || journal_.spares().empty()) {
        latch_failure("the journal cannot be written: " + fault.message());
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
        reappend(each, without);
        if (health_.failed) return;
        // Its file stays until the next start, which finds that it does not count.
    }
    if (replaced_.size() == 64) replaced_.erase(replaced_.begin());
    replaced_.push_back({from, to, journal_.end()});
}

void SegmentStore::reappend(const Journal::Lost& lost, const std::vector<Lsn>& without) {
    const Segment& from = *lost.segment;
    for (std::uint32_t at = lost.from; at < lost.to;) {
        const auto record = parse_record(from.bytes(), at, from.number, from.salt);
        if (!record) return latch_failure("what could not be written cannot be read again either");
        at += record->header.length;
        const RecordType type = record->header.type;
        const bool of_the_segment =
            type == RecordType::kBegin || type == RecordType::kSeal || type == RecordType::kMark;
        if (of_the_segment) continue;
        const bool failed = type == RecordType::kPut &&
                            std::binary_search(without.begin(), without.end(), record->header.lsn);
        std::uint32_t start = 0;
        if (!failed) {
            if (journal_.fit(record->header.length, true, 0) != Journal::Fit::kFits)
                return latch_failure("no room for what could not be written");
            start = journal_.current().end;
            journal_.append(record->header, crc32c(record->body), [&](std::byte* to) {
                std::memcpy(to, record->body.data(), record->body.size());
            });
        }
        if (!record->has_messages()) continue;
        for_each_message(*record, [&](const MessageView& message, std::uint32_t old) {
            const Key key = message.header.key;
            Entry* const entry = index_.find(key);
            if (entry == nullptr || entry->at != make_lsn(from.number, old)) return;
            if (failed) return index_.forget(key);
            index_.place(*entry,
                         make_lsn(journal_.current().number, start + (old - record->start)));
        });
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
