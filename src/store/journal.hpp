// The segments of the log: those in use, of which the last is written to, and spares. Segments are numbered.
// Each begins with the number of the segment before it and where that one ended; so the highest number that
// has a beginning is the end of the chain of valid segments. The oldest segment is the first to be
// freed. Guarded by the store's lock.
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
    bool cut = false;  // a sync failed: it ends at `synced`, and what is behind does not count
    std::unique_ptr<Region> region;

    Bytes bytes() const { return region->bytes(); }
    std::uint32_t room() const {  // without what a seal takes
        const std::uint32_t most = size - std::uint32_t{sizeof(RecordHeader)};
        return end < most ? most - end : 0;
    }
    bool complete() const { return cut || synced == end; }  // all of it is on disk
};
using SegmentRef = std::shared_ptr<Segment>;

std::string segment_name(std::uint32_t number);
// The number in such a name; 0: it is not one.
std::uint32_t segment_number(std::string_view name);

// Makes a segment of `size` bytes, or reuses the file of `old`. Its header is on disk before it gets its
// name. `fill`: writes all of it once, which takes as long as that many bytes; otherwise the first sync of each
// page takes twice as long, since the file system has to note that it was written. Blocks. ENOSPC.
Result<SegmentRef> make_segment(Medium& medium, std::uint32_t number, std::uint32_t size,
                                std::uint64_t generation, const SegmentRef& old, bool fill);

class Journal {
public:
    // Continues the last of `segments`, which are in order, oldest first.
    void start(std::deque<SegmentRef> segments) {
        used_ = std::move(segments);
        recount();
    }
    // Begins the first segment of a new log, out of the spares.
    void begin_first() { begin(take_spare(), 0, 0); }

    // The bytes of a segment that puts leave to records that must not fail.
    static std::uint32_t reserve_of(std::uint32_t size) {
        return std::min<std::uint32_t>(size / 8, 256U << 10);
    }
    // The longest record in a segment of `size` that leaves the reserve.
    static std::uint32_t most_of(std::uint32_t size) {
        return size - kSegmentStart - kOverhead - reserve_of(size);
    }

    enum class Fit { kFits, kFull, kTooLong /* for the spares */ };
    // Makes room for a record of that length in the current segment, or begins a new one. `keep` bytes
    // stay free for copies out of the oldest segment.
    Fit fit(std::size_t length, bool may_use_reserve, std::uint64_t keep);
    // After kFits. `fill(to)` writes the body, whose checksum is given. Returns the record's end.
    template <class F>
    Lsn append(RecordHeader header, std::uint32_t crc_of_body, F&& fill);
    Lsn append(RecordType type, std::uint64_t value, std::uint32_t count, Bytes body);

    Segment& current() { return *used_.back(); }
    Lsn end() const { return make_lsn(used_.back()->number, used_.back()->end); }
    std::deque<SegmentRef>& used() { return used_; }
    const std::deque<SegmentRef>& used() const { return used_; }
    std::deque<SegmentRef>& spares() { return spares_; }
    const std::deque<SegmentRef>& spares() const { return spares_; }
    // The log from `at` to the end of that segment.
    Bytes read(Lsn at) const;
    std::uint64_t written() const { return written_; }  // bytes of records, alive or not
    std::uint64_t size() const { return size_; }        // of the files
    void free_oldest() {
        used_.pop_front();
        recount();
    }

    struct Unsynced {
        SegmentRef segment;
        std::uint32_t end;
    };
    std::vector<Unsynced> unsynced() const;

    // After a failed sync of `broken`: cuts it where it is synced and continues in a spare. Returns
    // what was not durable yet, in order; those parts are not in the log any more.
    struct Lost {
        SegmentRef segment;
        std::uint32_t from, to;
    };
    std::vector<Lost> divert(const SegmentRef& broken);

private:
    // The records that each segment needs for itself.
    static constexpr std::uint32_t kOverhead = 2 * sizeof(RecordHeader) + sizeof(BeginBody);
    void begin(const SegmentRef& segment, std::uint32_t previous, std::uint32_t end);
    SegmentRef take_spare();
    void recount();
    bool keeps(std::uint64_t room, std::size_t spares_taken, std::uint64_t keep) const;

    std::deque<SegmentRef> used_;  // oldest first; the last is written to
    std::deque<SegmentRef> spares_;
    std::uint64_t written_ = 0, size_ = 0;  // of those in use
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
    written_ += header.length;
    return header.lsn;
}

}  // namespace ipcfs::store
