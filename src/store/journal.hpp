// The segments of the journal: where the next record goes, which are waiting to be used, which have
// been filled. Segments are numbered; each begins by naming the one before it and where that ended, so
// that the one with the highest number that begins at all says what counts. Guarded by the store's
// lock; what blocks (making a segment ready, reading) is said apart.
#pragma once

#include <algorithm>
#include <atomic>
#include <deque>
#include <memory>

#include <store/medium.hpp>

#include <base/check.hpp>

namespace ipcfs::store {

struct Segment {
    std::uint32_t number = 0;
    std::uint32_t salt = 0;
    std::uint32_t size = 0;
    std::uint32_t end = kSegmentStart;     // where the next record goes
    std::uint32_t synced = kSegmentStart;  // what is on disk
    std::uint32_t previous = 0, previous_end = 0;
    bool cut = false;  // ends at `synced`, whatever it holds behind that
    std::unique_ptr<Region> region;

    Bytes bytes() const { return region->bytes(); }
    std::uint32_t room() const {  // without what a seal takes
        const std::uint32_t most = size - std::uint32_t{sizeof(RecordHeader)};
        return end < most ? most - end : 0;
    }
};
using SegmentRef = std::shared_ptr<Segment>;

std::string segment_name(std::uint32_t number);
// The number in such a name; 0: it is not one.
std::uint32_t segment_number(std::string_view name);

class Journal {
public:
    // Begins with `current`, which may be half full; `others` are older, oldest first.
    void start(std::deque<SegmentRef> segments) { used_ = std::move(segments); }
    // The very first, out of the spares: goes on where `applied` ends.
    void begin_first(Lsn applied);

    // What a put must leave of each segment to what must not fail.
    static std::uint32_t reserve_of(std::uint32_t size) {
        return std::min<std::uint32_t>(size / 8, 256U << 10);
    }

    enum class Fit { kFits, kFull, kTooLong };
    // Makes sure that a record of that length fits the current segment, perhaps a new one.
    Fit fit(std::size_t length, bool may_use_reserve);
    // After kFits. `fill(to)` writes the body; its checksum is given. Returns the end.
    template <class F>
    Lsn append(RecordHeader header, std::uint32_t crc_of_body, F&& fill);
    Lsn append(RecordType type, std::uint64_t value, std::uint32_t count, Bytes body);

    Segment& current() { return *used_.back(); }
    Lsn end() const { return make_lsn(used_.back()->number, used_.back()->end); }
    std::deque<SegmentRef>& used() { return used_; }
    std::deque<SegmentRef>& spares() { return spares_; }
    const std::deque<SegmentRef>& spares() const { return spares_; }
    // Where message bytes at `at` are.
    Bytes read(Lsn at) const;

    struct Unsynced {
        SegmentRef segment;
        std::uint32_t end;
    };
    std::vector<Unsynced> unsynced() const;

    // After a failed sync of `broken`: it ends where it is synced, and a spare takes over from there.
    // Returns what was not yet durable, in order: those segments do not count any more.
    struct Lost {
        SegmentRef segment;
        std::uint32_t from, to;
    };
    std::vector<Lost> divert(const SegmentRef& broken);

private:
    void begin(const SegmentRef& segment, std::uint32_t previous, std::uint32_t end);

    std::deque<SegmentRef> used_;  // oldest first; the last is written to
    std::deque<SegmentRef> spares_;
};

template <class F>
Lsn Journal::append(RecordHeader header, std::uint32_t crc_of_body, F&& fill) {
    Segment& segment = current();
    IPCFS_CHECK(header.length % 8 == 0 && segment.end + header.length <= segment.size);
    std::byte* const at = segment.region->bytes().data() + segment.end;
    const std::uint32_t end = segment.end + header.length;
    header.lsn = make_lsn(segment.number, end);
    header.crc = record_crc(header, crc_of_body, segment.salt);
    fill(at + sizeof header);
    // Last: killed on the way here, there is no record, and nothing behind it.
    std::atomic_signal_fence(std::memory_order_seq_cst);
    std::memcpy(at, &header, sizeof header);
    segment.end = end;
    return header.lsn;
}

}  // namespace ipcfs::store
