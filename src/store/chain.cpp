// Reading the log: which segments count, where it ends, and whether what is not there is missed.
// An invalid record is the end of what was being written when the power failed, unless a later one
// proves that it had been durable: then it is damage. One thread, at the start.
#include <algorithm>

#include <store/found.hpp>

namespace ipcfs::store {

namespace {

bool is(const RecordView& record, RecordType type) {
    return record.header.type == static_cast<std::uint8_t>(type);
}

}  // namespace

// The files and what their headers say.
void SegmentStore::read_segments(Found& found) {
    auto names = medium_->list();
    if (!names) return found.damaged(names.error().message());
    std::sort(names->begin(), names->end());
    for (const auto& name : *names) {
        Found::File file;
        file.number = segment_number(name);
        if (file.number == 0) {
            found.leftovers.push_back(name);
            continue;
        }
        next_number_ = std::max(next_number_, file.number + 1);
        auto region = medium_->open(name);
        if (!region) {
            found.damaged(region.error().message());
            continue;
        }
        file.region = std::move(*region);
        if (const auto header = parse_segment(file.bytes())) {
            if (header->version != kFormatVersion) found.version = header->version;
            file.header = *header;
            next_number_ = std::max(next_number_, header->number + 1);
            // One with a younger header was being made ready again when the power failed.
            if (header->number > file.number) {
                found.leftovers.push_back(name);
                continue;
            }
            const auto first =
                parse_record(file.bytes(), kSegmentStart, header->number, header->salt);
            if (first && is(*first, RecordType::kBegin) &&
                first->body.size() == sizeof(BeginBody)) {
                file.used = true;
                file.begin = load<BeginBody>(first->body);
            }
        }
        found.files.push_back(std::move(file));
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
Behind look_behind(Bytes segment, std::uint32_t at, std::uint32_t number, std::uint32_t salt) {
    constexpr std::size_t kUpperLsn = offsetof(RecordHeader, lsn) + 4;  // the segment's number
    Behind behind;
    while (at + sizeof(RecordHeader) <= segment.size()) {
        if (load<std::uint32_t>(segment.subspan(at + kUpperLsn)) != number) {
            at += 8;
            continue;
        }
        const auto record = parse_record(segment, at, number, salt);
        if (!record) {
            at += 8;
            continue;
        }
        behind.anything = true;
        if (is(*record, RecordType::kMark))
            behind.synced = std::max(behind.synced, record->header.value);
        at += record->header.length;
    }
    return behind;
}

}  // namespace

void SegmentStore::Found::File::scan() {
    valid = kSegmentStart;
    while (end == 0 || valid < end) {
        const auto record = parse_record(bytes(), valid, number, header.salt);
        if (!record) break;
        valid += record->header.length;
        sealed = is(*record, RecordType::kSeal);
        if (is(*record, RecordType::kFree))
            needs = std::max(needs, static_cast<std::uint32_t>(record->header.value));
    }
}

// The segments from the newest that has begun back as far as each names one that is there, oldest first.
std::vector<SegmentStore::Found::File*> SegmentStore::Found::chain() {
    std::vector<File*> chain;
    for (auto& file : files)
        if (file.used && file.number == file.header.number) chain = {&file};
    while (!chain.empty()) {
        File& later = *chain.back();
        File* previous = nullptr;
        for (auto& file : files)
            if (file.number == later.begin.previous && file.number < later.number && file.used &&
                file.number == file.header.number)
                previous = &file;
        if (previous == nullptr) break;
        previous->end = later.begin.end;
        chain.push_back(previous);
    }
    std::reverse(chain.begin(), chain.end());
    for (File* const file : chain) file->scan();
    return chain;
}

// Which segments count. What says that an older one is not needed was appended when that was durable,
// and copies of what was alive in it lie before: so from the oldest that is needed on is all.
void SegmentStore::find_chain(Found& found) {
    auto chain = found.chain();
    const std::uint32_t last = chain.empty() ? 0 : chain.back()->number;
    for (const auto& file : found.files) {
        if (file.number <= last) continue;
        if (file.header.number != file.number)
            return found.damaged("the header of " + file.name() + " is damaged");
        if (file.bytes().size() < file.header.size)
            return found.damaged(file.name() + " is shorter than it should be");
    }
    if (chain.empty()) {
        if (epoch_->last().generation != 0) found.damaged("the journal is missing");
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
    const bool freed = needs(0) >= chain.front()->number || oldest > chain.front()->number;
    if (missing != 0 && !freed) {
        const auto* const there = found.file(missing);
        found.damaged((there != nullptr ? "the header of segment " : "segment ") +
                      std::to_string(missing) + (there != nullptr ? " is damaged" : " is missing"));
        return;
    }
    for (auto* const file : chain) {
        file->chain = file->number >= oldest;
        if (file->chain && file->bytes().size() < file->header.size)
            return found.damaged(file->name() + " is shorter than it should be");
    }
    // Those that are not needed any more, and those that never got beyond their name.
    std::erase_if(found.files, [&](const Found::File& file) {
        if (file.number >= oldest) return false;
        found.leftovers.push_back(segment_name(file.number));
        return true;
    });
    find_end(found);
}

// Forward until something is not there. Is it missed?
void SegmentStore::find_end(Found& found) {
    const EpochSlot& epoch = epoch_->last();
    const bool clean = epoch_->intact() && epoch.clean != 0;
    const bool same_boot = !epoch.clean && std::string(epoch.boot.data()) == options_.boot;
    const Found::File* last = nullptr;
    for (const auto& file : found.files)
        if (file.chain) last = &file;
    Lsn end = 0;
    bool stopped = false;
    bool reopened = false;
    Behind behind;
    for (auto& file : found.files) {
        const auto rest_from = [&](std::uint32_t at) {
            return look_behind(file.bytes(), at, file.number, file.header.salt);
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
        if (file.sealed && &file == &found.files.back())
            found.damaged("the segment behind " + std::to_string(file.number) + " is missing");
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
        found.damaged("a record of segment " + std::to_string(segment_of(end)) + " at " +
                      std::to_string(offset_of(end)) + " is damaged");
    if (clean && end < epoch.end) found.damaged("the journal is shorter than when it was closed");
    found.torn = behind.anything || reopened;
}

void SegmentStore::replay(Found& found, bool tolerant) {
    for (const auto& file : found.files) {
        if (!found.damage.empty() && !tolerant) return;
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
            replay(*record, file.number, found, tolerant);
            at += record->header.length;
        }
    }
}

void SegmentStore::replay(const RecordView& record, std::uint32_t segment, Found& found,
                          bool tolerant) {
    const auto& header = record.header;
    const auto wrong = [&] {
        if (!tolerant)
            found.damaged("a record of segment " + std::to_string(segment) + " makes no sense");
    };
    switch (static_cast<RecordType>(header.type)) {
        case RecordType::kPut:
        case RecordType::kCopy: {
            Bytes rest = record.body;
            std::uint32_t at = record.start + static_cast<std::uint32_t>(sizeof header);
            for (std::uint32_t i = 0; i < header.count; ++i) {
                auto message = parse_message(rest);
                if (!message) return wrong();
                if (tolerant) message->state.redelivered = true;
                index_.put(*message, make_lsn(segment, at));
                rest = rest.subspan(message->length);
                at += static_cast<std::uint32_t>(message->length);
            }
            if (header.value != 0) found.requests.push_back({header.value, segment});
            return;
        }
        case RecordType::kMove: {
            if (record.body.size() != sizeof(MoveBody)) return wrong();
            const auto body = load<MoveBody>(record.body);
            auto state = to_state(body.state);
            if (!state) return wrong();
            if (tolerant) state->redelivered = true;
            index_.move(to_key(body.key), *state);
            return;
        }
        case RecordType::kErase:
            if (record.body.size() != sizeof(KeyBody)) return wrong();
            return index_.erase(to_key(load<KeyBody>(record.body)));
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
            found.requests.clear();
            for (std::uint32_t i = 0; i < header.count; ++i)
                found.requests.push_back(
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
