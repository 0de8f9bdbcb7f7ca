// Segments in use. Under the store's lock.
#include <charconv>

#include <store/journal.hpp>

namespace ipcfs::store {

std::string segment_name(std::uint32_t number) {
    std::string digits = std::to_string(number);
    return std::string(10 - digits.size(), '0') + digits;
}

std::uint32_t segment_number(std::string_view name) {
    std::uint32_t number = 0;
    const auto read = std::from_chars(name.data(), name.data() + name.size(), number);
    return read.ec == std::errc{} && segment_name(number) == name ? number : 0;
}

void Journal::begin(const SegmentRef& segment, std::uint32_t previous, std::uint32_t end) {
    segment->previous = previous;
    segment->previous_end = end;
    used_.push_back(segment);
    append(RecordType::kBegin, 0, 0, bytes_of(BeginBody{previous, end}));
}

void Journal::begin_first(Lsn applied) {
    const SegmentRef first = std::move(spares_.front());
    spares_.pop_front();
    begin(first, segment_of(applied), offset_of(applied));
}

Journal::Fit Journal::fit(std::size_t length, bool may_use_reserve) {
    const auto holds = [&](const Segment& segment) {
        const std::size_t reserve = may_use_reserve ? 0 : reserve_of(segment.size);
        return length + reserve <= segment.room();
    };
    if (holds(current())) return Fit::kFits;
    constexpr std::size_t kBegin = sizeof(RecordHeader) + sizeof(BeginBody);
    if (spares_.empty()) {
        const Segment& now = current();
        const std::size_t most = now.size - kSegmentStart - kBegin - sizeof(RecordHeader) -
                                 (may_use_reserve ? 0 : reserve_of(now.size));
        return length > most ? Fit::kTooLong : Fit::kFull;
    }
    if (length + kBegin + (may_use_reserve ? 0 : reserve_of(spares_.front()->size)) >
        spares_.front()->room())
        return Fit::kTooLong;
    append(RecordType::kSeal, 0, 0, {});
    const std::uint32_t number = current().number;
    const std::uint32_t end = current().end;
    const SegmentRef next = std::move(spares_.front());
    spares_.pop_front();
    begin(next, number, end);
    return Fit::kFits;
}

Lsn Journal::append(RecordType type, std::uint64_t value, std::uint32_t count, Bytes body) {
    const std::size_t padding = align8(body.size()) - body.size();
    constexpr std::array<std::byte, 8> kZeros{};
    RecordHeader header;
    header.length = static_cast<std::uint32_t>(sizeof header + body.size() + padding);
    header.type = static_cast<std::uint8_t>(type);
    header.value = value;
    header.count = count;
    const std::uint32_t crc = crc32c(Bytes(kZeros).first(padding), crc32c(body));
    return append(header, crc, [&](std::byte* to) {
        if (!body.empty()) std::memcpy(to, body.data(), body.size());
        std::memset(to + body.size(), 0, padding);
    });
}

Bytes Journal::read(Lsn at) const {
    const auto found = std::lower_bound(
        used_.begin(), used_.end(), segment_of(at),
        [](const SegmentRef& segment, std::uint32_t number) { return segment->number < number; });
    IPCFS_CHECK(found != used_.end() && (*found)->number == segment_of(at));
    return (*found)->bytes().subspan(offset_of(at));
}

std::vector<Journal::Unsynced> Journal::unsynced() const {
    std::vector<Unsynced> all;
    for (const auto& segment : used_)
        if (segment->synced < segment->end && !segment->cut) all.push_back({segment, segment->end});
    return all;
}

std::vector<Journal::Lost> Journal::divert(const SegmentRef& broken) {
    IPCFS_CHECK(!spares_.empty());
    std::vector<Lost> lost;
    const auto first = std::find(used_.begin(), used_.end(), broken);
    IPCFS_CHECK(first != used_.end());
    for (auto each = first; each != used_.end(); ++each)
        lost.push_back({*each, each == first ? broken->synced : kSegmentStart, (*each)->end});
    std::uint32_t previous = broken->number;
    std::uint32_t end = broken->synced;
    // One of which nothing is on disk cannot be named: nobody could tell that it began.
    if (broken->synced == kSegmentStart) {
        previous = broken->previous;
        end = broken->previous_end;
        used_.erase(first, used_.end());
    } else {
        broken->end = broken->synced;
        broken->cut = true;
        used_.erase(first + 1, used_.end());
    }
    const SegmentRef next = std::move(spares_.front());
    spares_.pop_front();
    begin(next, previous, end);
    return lost;
}

}  // namespace ipcfs::store
