// Reading the log: which segments count, where it ends, and whether what is not there is missed.
// An invalid record is the end of what was being written when the power failed, unless a later one
// proves that it had been durable: then it is damage. One thread, at the start.
#include <algorithm>

#include <store/scan.hpp>

namespace ipcfs::store {

// The files and what their headers say.
void SegmentStore::read_segments(Scan& scan) {
    auto names = medium_->list();
    if (!names) return scan.note_damage(names.error().message());
    std::sort(names->begin(), names->end());
    for (const auto& name : *names) {
        Scan::File file;
        file.number = segment_number(name);
        if (file.number == 0) {
            scan.leftovers.push_back(name);
            continue;
        }
        next_number_ = std::max(next_number_, file.number + 1);
        auto region = medium_->open(name);
        if (!region) {
            scan.note_damage(region.error().message());
            continue;
        }
        file.region = std::move(*region);
        if (const auto header = parse_segment(file.bytes())) {
            if (header->version != kFormatVersion) scan.version = header->version;
            file.header = *header;
            next_number_ = std::max(next_number_, header->number + 1);
            // One with a younger header was being made ready again when the power failed.
            if (header->number > file.number) {
                scan.leftovers.push_back(name);
                continue;
            }
            const auto first =
                parse_record(file.bytes(), kSegmentStart, header->number, header->salt);
            if (first && first->header.type == RecordType::kBegin &&
                first->body.size() == sizeof(BeginBody)) {
                file.used = true;
                file.begin = load<BeginBody>(first->body);
            }
        }
        scan.files.push_back(std::move(file));
    }
}

namespace {

struct Behind {
    bool anything = false;  // a valid record
    Lsn synced = 0;         // what one of them says was on disk

    void add(const Behind& other) {
        anything = anything || other.anything;
        synced = std::max(synced, other.synced);
    }
};

// What is valid in a segment from `at` on, whatever lies between.
Behind scan_tail(Bytes segment, std::uint32_t at, std::uint32_t number, std::uint32_t salt) {
    constexpr std::size_t kUpperLsn = offsetof(RecordHeader, lsn) + 4;  // the segment's number
    Behind behind;
    while (at + sizeof(RecordHeader) <= segment.size()) {
        const bool possible = load<std::uint32_t>(segment.subspan(at + kUpperLsn)) == number;
        const auto record =
            possible ? parse_record(segment, at, number, salt) : std::optional<RecordView>();
        if (!record) {
            at += 8;
            continue;
        }
        behind.anything = true;
        if (record->header.type == RecordType::kMark)
            behind.synced = std::max(behind.synced, record->header.value);
        at += record->header.length;
    }
    return behind;
}

}  // namespace

void SegmentStore::Scan::File::validate() {
    valid = kSegmentStart;
    while (end == 0 || valid < end) {
        const auto record = parse_record(bytes(), valid, number, header.salt);
        if (!record) break;
        valid += record->header.length;
        sealed = record->header.type == RecordType::kSeal;
        if (record->header.type == RecordType::kFree)
            needs = std::max(needs, static_cast<std::uint32_t>(record->header.value));
    }
}

// The segments from the newest that has begun back as far as each names one that is there, oldest first.
std::vector<SegmentStore::Scan::File*> SegmentStore::Scan::chain() {
    std::vector<File*> chain;
    for (auto& each : files)
        if (each.has_begun()) chain = {&each};
    while (!chain.empty()) {
        const File& later = *chain.back();
        File* const previous = file(later.begin.previous);
        if (previous == nullptr || previous->number >= later.number || !previous->has_begun())
            break;
        previous->end = later.begin.end;
        chain.push_back(previous);
    }
    std::reverse(chain.begin(), chain.end());
    for (File* const file : chain) file->validate();
    return chain;
}

// Which segments count. What says that an older one is not needed was appended when that was durable,
// and copies of what was alive in it lie before: so from the oldest that is needed on is all.
void SegmentStore::find_chain(Scan& scan) {
    auto chain = scan.chain();
    const std::uint32_t last = chain.empty() ? 0 : chain.back()->number;
    for (const auto& file : scan.files) {
        if (file.number <= last) continue;
        if (file.header.number != file.number)
            return scan.note_damage("the header of " + file.name() + " is damaged");
        if (file.bytes().size() < file.header.size)
            return scan.note_damage(file.name() + " is shorter than it should be");
    }
    if (chain.empty()) {
        if (epoch_->last().generation != 0) scan.note_damage("the journal is missing");
        return;
    }
    // What is valid in one go from chain[from] on: the oldest segment that it needs.
    const auto needs = [&](std::size_t from) {
        std::uint32_t oldest = 0;
        for (std::size_t i = from; i < chain.size(); ++i) {
            oldest = std::max(oldest, chain[i]->needs);
            if (chain[i] != chain.back() && chain[i]->valid < chain[i]->end) break;
        }
        return oldest;
    };
    // One that is not needed may be as it likes.
    std::uint32_t oldest = 0;
    for (std::size_t i = 0; i < chain.size() && oldest < chain[i]->number; ++i) {
        if (const std::uint32_t number = needs(i); number >= chain[i]->number) oldest = number;
    }
    if (oldest == 0) oldest = chain.front()->number;
    const std::uint32_t missing = chain.front()->begin.previous;
    // The one that was said to be needed may be gone, if a sync of it had failed.
    const bool freed = needs(0) > missing || oldest > chain.front()->number;
    if (missing != 0 && !freed) {
        const auto* const there = scan.file(missing);
        scan.note_damage((there != nullptr ? "the header of segment " : "segment ") +
                         std::to_string(missing) +
                         (there != nullptr ? " is damaged" : " is missing"));
        return;
    }
    for (auto* const file : chain) {
        file->chain = file->number >= oldest;
        if (file->chain && file->bytes().size() < file->header.size)
            return scan.note_damage(file->name() + " is shorter than it should be");
    }
    // Those that are not needed any more, and those that never got beyond their name.
    std::erase_if(scan.files, [&](const Scan::File& file) {
        if (file.number >= oldest) return false;
        scan.leftovers.push_back(segment_name(file.number));
        return true;
    });
    find_end(scan);
}

// Forward until something is not there. Is it missed?
void SegmentStore::find_end(Scan& scan) {
    const EpochSlot& epoch = epoch_->last();
    const bool clean = epoch_->intact() && epoch.clean != 0;
    const bool same_boot = !epoch.clean && std::string(epoch.boot.data()) == options_.boot;
    const Scan::File* last = nullptr;
    for (const auto& file : scan.files)
        if (file.chain) last = &file;
    Lsn end = 0;
    bool stopped = false;
    bool reopened = false;
    Behind behind;
    for (auto& file : scan.files) {
        const auto rest_from = [&](std::uint32_t at) {
            return scan_tail(file.bytes(), at, file.number, file.header.salt);
        };
        if (!file.chain) {
            // Prepared and not begun; or replaced, if one behind it counts.
            const Behind rest = rest_from(kSegmentStart);
            file.dirty = rest.anything;
            if (&file > last) behind.add(rest);
            continue;
        }
        if (stopped) {
            behind.add(rest_from(kSegmentStart));
            file.chain = false;
            continue;
        }
        end = make_lsn(file.number, file.valid);
        if (&file != last && file.valid == file.end) continue;
        behind.add(rest_from(file.valid));
        if (file.sealed && &file == &scan.files.back())
            scan.note_damage("the segment behind " + std::to_string(file.number) + " is missing");
        if (file.sealed) {
            // Nothing came to be behind it: it is open again.
            file.valid -= static_cast<std::uint32_t>(sizeof(RecordHeader));
            end = make_lsn(file.number, file.valid);
            reopened = true;
        }
        file.end = file.valid;
        stopped = true;
    }
    if (behind.synced > end || (same_boot && behind.anything))
        scan.note_damage("a record of segment " + std::to_string(segment_of(end)) + " at " +
                         std::to_string(offset_of(end)) + " is damaged");
    if (clean && end < epoch.end)
        scan.note_damage("the journal is shorter than when it was closed");
    scan.torn = behind.anything || reopened;
}

void SegmentStore::replay(Scan& scan, bool tolerant) {
    for (const auto& file : scan.files) {
        if (!scan.damage.empty() && !tolerant) return;
        if (!file.chain) continue;
        const auto most =
            static_cast<std::uint32_t>(std::min<std::size_t>(file.bytes().size(), UINT32_MAX));
        const std::uint32_t end = file.end != 0 ? std::min(file.end, most) : most;
        for (std::uint32_t at = kSegmentStart; at < end;) {
            const auto record = parse_record(file.bytes(), at, file.number, file.header.salt);
            if (!record) {
                at += 8;  // only tolerantly: else all up to the end is valid
                continue;
            }
            replay(*record, file.number, scan, tolerant);
            at += record->header.length;
        }
    }
}

void SegmentStore::replay(const RecordView& record, std::uint32_t segment, Scan& scan,
                          bool tolerant) {
    const auto& header = record.header;
    const auto wrong = [&] {
        if (!tolerant)
            scan.note_damage("a record of segment " + std::to_string(segment) + " makes no sense");
    };
    switch (header.type) {
        case RecordType::kPut:
        case RecordType::kCopy: {
            const auto put = [&](MessageView message, std::uint32_t at) {
                if (tolerant) message.state.redelivered = true;
                index_.put(message, make_lsn(segment, at));
            };
            if (!for_each_message(record, put)) return wrong();
            if (header.value != 0) scan.requests.push_back({header.value, segment});
            return;
        }
        case RecordType::kMove: {
            if (record.body.size() != sizeof(MoveBody)) return wrong();
            const auto body = load<MoveBody>(record.body);
            auto state = to_state(body.state);
            if (!state) return wrong();
            if (tolerant) state->redelivered = true;
            index_.move(body.key, *state);
            return;
        }
        case RecordType::kErase:
            if (record.body.size() != sizeof(Key)) return wrong();
            return index_.erase(load<Key>(record.body));
        case RecordType::kChannel: {
            if (record.body.size() < sizeof(ChannelBody)) return wrong();
            const auto body = load<ChannelBody>(record.body);
            const Bytes rest = record.body.subspan(sizeof body);
            if (body.length > rest.size()) return wrong();
            return index_.put_channel(header.value, body, rest.first(body.length), segment);
        }
        case RecordType::kEraseChannel: return index_.erase_channel(header.value, segment);
        case RecordType::kRequests:
            if (header.count * sizeof(std::uint64_t) > record.body.size()) return wrong();
            scan.requests.clear();
            for (std::uint32_t i = 0; i < header.count; ++i)
                scan.requests.push_back(
                    {load<std::uint64_t>(record.body.subspan(i * sizeof(std::uint64_t))), segment});
            return;
        case RecordType::kFree:
        case RecordType::kBegin:
        case RecordType::kSeal:
        case RecordType::kMark: return;
    }
    wrong();
}

}  // namespace ipcfs::store
