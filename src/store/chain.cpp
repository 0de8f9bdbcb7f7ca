// Reading the journal: which segments count, where each ends, and whether what is not there is missed.
// An invalid record is the end of what was being written when the power failed, unless a later one
// proves that it had been durable: then it is damage. One thread, at the start.
#include <algorithm>

#include <store/found.hpp>

namespace ipcfs::store {

namespace {

bool is_newer(const SegmentHeader& header) {
    return header.version > kFormatVersion;
}

}  // namespace

// The files of the journal and what their headers say.
void LmdbStore::read_segments(Found& found) {
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
            if (is_newer(*header)) found.newer = true;
            file.header = *header;
            const auto first =
                parse_record(file.bytes(), kSegmentStart, header->number, header->salt);
            if (first && first->header.type == static_cast<std::uint8_t>(RecordType::kBegin) &&
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
};

// What is valid in a segment from `at` on, whatever lies between.
Behind look_behind(Bytes segment, std::uint32_t at, std::uint32_t number, std::uint32_t salt) {
    Behind behind;
    while (at + sizeof(RecordHeader) <= segment.size()) {
        // No record begins with zeros, which is what most of it is.
        if (load<std::uint64_t>(segment.subspan(at)) == 0) {
            at += 8;
            continue;
        }
        const auto record = parse_record(segment, at, number, salt);
        if (!record) {
            at += 8;
            continue;
        }
        behind.anything = true;
        if (record->header.type == static_cast<std::uint8_t>(RecordType::kMark))
            behind.synced = std::max(behind.synced, record->header.value);
        at += record->header.length;
    }
    return behind;
}

}  // namespace

// Which segments count, and where each ends.
void LmdbStore::find_chain(Found& found) {
    const Lsn applied = table_->state().applied;
    const EpochSlot& epoch = epoch_->last();
    const bool clean = epoch_->intact() && epoch.clean != 0;
    const bool same_boot = !epoch.clean && std::string(epoch.boot.data()) == options_.boot;

    // Those that LMDB contains, and those that never got beyond their name.
    std::erase_if(found.files, [&](const Found::File& file) {
        // One with a younger header was being made ready again when the power failed.
        const bool again = file.header.number > file.number;
        if (file.number > segment_of(applied) && !again) return false;
        found.leftovers.push_back(segment_name(file.number));
        return true;
    });
    Found::File* last = nullptr;
    for (auto& file : found.files) {
        const std::string name = "segment " + std::to_string(file.number);
        if (file.header.number != file.number)
            return found.damaged("the header of " + name + " is damaged");
        if (file.bytes().size() < file.header.size)
            return found.damaged(name + " is shorter than it should be");
        if (file.used) last = &file;
    }
    if (last == nullptr) {
        const bool begun = epoch.generation != 0 && (!clean || epoch.end != 0);
        if (begun) found.damaged("the journal is missing");
        return;
    }
    for (Found::File* each = last;;) {
        each->chain = true;
        const BeginBody begin = each->begin;
        if (begin.previous == segment_of(applied)) {
            if (begin.end != offset_of(applied) && applied != 0)
                found.damaged("the journal does not go on where LMDB ends");
            break;
        }
        Found::File* previous = nullptr;
        for (auto& file : found.files)
            if (file.number == begin.previous && file.used) previous = &file;
        if (previous == nullptr || previous >= each)
            return found.damaged("segment " + std::to_string(begin.previous) + " is missing");
        previous->end = begin.end;
        each = previous;
    }

    // Forward until something is not there. Is it missed?
    Lsn end = 0;
    bool stopped = false;
    bool reopened = false;
    Behind behind;
    for (auto& file : found.files) {
        if (!file.chain) {
            // Prepared and not begun; or replaced, if one behind it counts.
            const auto rest =
                look_behind(file.bytes(), kSegmentStart, file.number, file.header.salt);
            file.dirty = rest.anything;
            if (&file > last) {
                behind.anything = behind.anything || rest.anything;
                behind.synced = std::max(behind.synced, rest.synced);
            }
            continue;
        }
        std::uint32_t at = kSegmentStart;
        bool sealed = false;
        if (!stopped) {
            while (&file == last || at < file.end) {
                const auto record = parse_record(file.bytes(), at, file.number, file.header.salt);
                if (!record) break;
                at += record->header.length;
                sealed = record->header.type == static_cast<std::uint8_t>(RecordType::kSeal);
            }
            end = make_lsn(file.number, at);
        }
        const bool complete = !stopped && &file != last && at == file.end;
        if (complete) continue;
        const auto rest = look_behind(file.bytes(), at, file.number, file.header.salt);
        behind.anything = behind.anything || rest.anything;
        behind.synced = std::max(behind.synced, rest.synced);
        if (!stopped && sealed && &file == &found.files.back())
            found.damaged("the segment behind " + std::to_string(file.number) + " is missing");
        if (stopped) {
            file.chain = false;
            continue;
        }
        if (sealed) {
            // Nothing came to be behind it: it is open again.
            at -= static_cast<std::uint32_t>(sizeof(RecordHeader));
            end = make_lsn(file.number, at);
            reopened = true;
        }
        file.end = at;
        stopped = true;
    }
    if (behind.synced > end || (same_boot && behind.anything))
        found.damaged("a record of segment " + std::to_string(segment_of(end)) + " at " +
                      std::to_string(offset_of(end)) + " is damaged");
    if (clean && end < epoch.end) found.damaged("the journal is shorter than when it was closed");
    if (clean && table_->state().number < epoch.checkpoint)
        found.damaged("LMDB is older than when it was closed");
    found.torn = behind.anything || reopened;
}

void LmdbStore::replay(Found& found, bool tolerant) {
    for (const auto& file : found.files) {
        if (!found.damage.empty() && !tolerant) return;
        if (!file.chain) continue;
        Segment segment;
        segment.number = file.number;
        const auto most =
            static_cast<std::uint32_t>(std::min<std::size_t>(file.bytes().size(), UINT32_MAX));
        const std::uint32_t end = file.end != 0 ? std::min(file.end, most) : most;
        for (std::uint32_t at = kSegmentStart; at < end;) {
            const auto record = parse_record(file.bytes(), at, file.number, file.header.salt);
            if (!record) {
                at += 8;  // only tolerantly: else all up to the end is valid
                continue;
            }
            replay(*record, segment, found, tolerant);
            at += record->header.length;
        }
    }
}

void LmdbStore::replay(const RecordView& record, const Segment& segment, Found& found,
                       bool tolerant) {
    const auto& header = record.header;
    const auto wrong = [&] {
        if (!tolerant)
            found.damaged("a record of segment " + std::to_string(segment.number) +
                          " makes no sense");
    };
    switch (static_cast<RecordType>(header.type)) {
        case RecordType::kPut: {
            Bytes rest = record.body;
            std::uint32_t at = record.start + static_cast<std::uint32_t>(sizeof header);
            for (std::uint32_t i = 0; i < header.count; ++i) {
                auto message = parse_message(rest);
                if (!message) return wrong();
                if (tolerant) message->state.redelivered = true;
                index_.put(*message, make_lsn(segment.number, at));
                rest = rest.subspan(message->length);
                at += static_cast<std::uint32_t>(message->length);
            }
            if (header.value != 0) found.requests.push_back(header.value);
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
        case RecordType::kChannel:
            if (header.count > record.body.size()) return wrong();
            return index_.put_channel(header.value, record.body.first(header.count));
        case RecordType::kEraseChannel: return index_.erase_channel(header.value);
        case RecordType::kCheckpoint:
            found.checkpoint = std::max(found.checkpoint, header.value);
            return;
        case RecordType::kBegin:
        case RecordType::kSeal:
        case RecordType::kMark: return;
    }
    wrong();
}

}  // namespace ipcfs::store
