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

Result<SegmentRef> make_segment(Medium& medium, std::uint32_t number, std::uint32_t size,
                                std::uint64_t generation, const SegmentRef& old, bool fill) {
    const std::string spare = "spare-" + std::to_string(number);
    auto segment = std::make_shared<Segment>();
    segment->number = number;
    if (old) {
        if (auto done = medium.rename(segment_name(old->number), spare); !done) return done.error();
        segment->region = std::move(old->region);
    } else {
        auto made = medium.make(spare, size);
        if (!made) return made.error();
        segment->region = std::move(*made);
        if (fill) std::ranges::fill(segment->region->bytes(), std::byte{0});
    }
    segment->size = static_cast<std::uint32_t>(segment->region->bytes().size());
    SegmentHeader header;
    header.number = number;
    // A value that the file has not had before.
    header.salt = number * 0x9e3779b9U ^ static_cast<std::uint32_t>(generation << 7);
    header.size = segment->size;
    header.generation = generation;
    header = sealed(header);
    segment->salt = header.salt;
    std::memcpy(segment->region->bytes().data(), &header, sizeof header);
    auto done = segment->region->sync();
    if (done) done = medium.rename(spare, segment_name(number));
    if (done) done = medium.sync_names();
    if (done) return segment;
    (void)medium.remove(spare);
    return done.error();
}

void Journal::begin(const SegmentRef& segment, std::uint32_t previous, std::uint32_t end) {
    segment->previous = previous;
    segment->previous_end = end;
    used_.push_back(segment);
    recount();
    append(RecordType::kBegin, 0, 0, bytes_of(BeginBody{previous, end}));
}

SegmentRef Journal::take_spare() {
    SegmentRef spare = std::move(spares_.front());
    spares_.pop_front();
    return spare;
}

void Journal::recount() {
    written_ = size_ = 0;
    for (const auto& segment : used_) {
        written_ += segment->end - kSegmentStart;
        size_ += segment->size;
    }
}

// Whether copies of `keep` bytes out of the oldest segment fit into `room` bytes and the spares from
// `spares_taken` on. They fit into any spare as large as the oldest segment.
bool Journal::keeps(std::uint64_t room, std::size_t spares_taken, std::uint64_t keep) const {
    for (std::size_t i = spares_taken; i < spares_.size() && room < keep; ++i) {
        if (spares_[i]->size >= used_.front()->size) return true;
        room += most_of(spares_[i]->size);
    }
    return room >= keep;
}

Journal::Fit Journal::fit(std::size_t length, bool may_use_reserve, std::uint64_t keep) {
    const auto reserve = [&](const Segment& segment) {
        return may_use_reserve ? 0 : reserve_of(segment.size);
    };
    const Segment& now = current();
    if (length + reserve(now) <= now.room())
        return keeps(now.room() - length, 0, keep) ? Fit::kFits : Fit::kFull;
    if (spares_.empty()) return Fit::kFull;
    const Segment& then = *spares_.front();
    const std::size_t room = then.room() - sizeof(RecordHeader) - sizeof(BeginBody);
    if (length + reserve(then) > room) return Fit::kTooLong;
    if (!keeps(room - length, 1, keep)) return Fit::kFull;
    append(RecordType::kSeal, 0, 0, {});
    const std::uint32_t number = now.number;
    const std::uint32_t end = now.end;
    begin(take_spare(), number, end);
    return Fit::kFits;
}

Lsn Journal::append(RecordType type, std::uint64_t value, std::uint32_t count, Bytes body) {
    const std::size_t padding = align8(body.size()) - body.size();
    constexpr std::array<std::byte, 8> kZeros{};
    RecordHeader header;
    header.length = static_cast<std::uint32_t>(sizeof header + body.size() + padding);
    header.type = type;
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
    // Without a synced record, recovery could not tell that it had begun: the new one names the one before.
    if (broken->synced == kSegmentStart) {
        previous = broken->previous;
        end = broken->previous_end;
        used_.erase(first, used_.end());
    } else {
        broken->end = broken->synced;
        broken->cut = true;
        used_.erase(first + 1, used_.end());
    }
    begin(take_spare(), previous, end);
    return lost;
}

}  // namespace ipcfs::store
