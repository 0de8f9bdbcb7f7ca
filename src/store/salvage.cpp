// A damaged store is renamed, and what is good in it goes into a new one. One thread, at the start.
#include <ctime>

#include <store/files.hpp>
#include <store/scan.hpp>

namespace ipcfs::store {

namespace {

std::string time_for_name() {
    const std::time_t now = std::time(nullptr);
    std::tm parts{};
    ::gmtime_r(&now, &parts);
    char text[32];
    std::strftime(text, sizeof text, "%Y-%m-%dT%H-%M-%SZ", &parts);
    return text;
}

}  // namespace

// For a damaged journal: what its segments say of each other, as far as they can be read.
void SegmentStore::Scan::link_back() {
    File* later = nullptr;
    for (auto each = files.rbegin(); each != files.rend(); ++each) {
        if (each->header.number != each->number) each->find_salt();
        each->chain = each->header.number == each->number &&
                      (later == nullptr || !later->used || later->begin.previous == each->number ||
                       !each->used);
        if (!each->chain) continue;
        each->end = later != nullptr && later->used && later->begin.previous == each->number
                        ? later->begin.end
                        : 0;
        later = &*each;
    }
}

// The header is damaged. Its salt is what is missing in the checksum of the first record.
void SegmentStore::Scan::File::find_salt() {
    constexpr std::size_t kLength = sizeof(RecordHeader) + sizeof(BeginBody);
    if (bytes().size() < kSegmentStart + kLength) return;
    const auto first = load<RecordHeader>(bytes().subspan(kSegmentStart));
    const Bytes body = bytes().subspan(kSegmentStart + sizeof first, sizeof(BeginBody));
    if (first.length != kLength || first.lsn != make_lsn(number, kSegmentStart + kLength)) return;
    header.number = number;
    header.salt = first.crc ^ record_crc(first, crc32c(body), 0);
    used = true;
    begin = load<BeginBody>(body);
}

// Writes the index's messages into new segments. Returns how many.
Result<std::uint64_t> SegmentStore::write_salvaged(const std::string& directory, Scan& scan) {
    auto medium = file_medium(directory);
    if (!medium) return medium.error();
    Journal journal;
    std::uint32_t number = 0;
    const auto ready = [&]() -> Result<void> {
        auto made = make_segment(**medium, ++number, segment_bytes_, 0, nullptr, false);
        if (!made) return made.error();
        journal.spares().push_back(*made);
        return {};
    };
    if (auto made = ready(); !made) return made.error();
    journal.begin_first();
    const auto append = [&](RecordType type, std::uint64_t value, std::uint32_t count,
                            Bytes body) -> Result<void> {
        while (journal.fit(sizeof(RecordHeader) + align8(body.size()), true, 0) !=
               Journal::Fit::kFits)
            if (auto made = ready(); !made) return made;
        journal.append(type, value, count, body);
        return {};
    };
    std::uint64_t messages = 0;
    for (auto& [id, channel] : index_.channels()) {
        if (auto done = append(RecordType::kChannel, id, 0, channel.body()); !done)
            return done.error();
        for (const std::uint64_t sequence : channel.entries.sequences()) {
            const Entry& entry = *channel.entries.find(sequence);
            const auto view = parse_message(
                scan.file(segment_of(entry.at))->bytes().subspan(offset_of(entry.at)));
            IPCFS_CHECK(view.has_value());
            StateBody state = entry.body();
            state.redelivered = 1;
            std::vector<std::byte> bytes;
            append_message(bytes, *view, state);
            if (auto done = append(RecordType::kCopy, 0, 1, bytes); !done) return done.error();
            ++messages;
        }
    }
    for (const auto& segment : journal.used())
        if (auto done = segment->region->sync(); !done) return done.error();
    return {boost::system::in_place_value, messages};
}

// Renames what is damaged, and makes a new store of what is good in it: every record whose checksum
// is right. Erasures and states may be among what is lost, so all of it counts as redelivered.
Result<void> SegmentStore::quarantine(Scan& scan) {
    const std::string& home = options_.directory;
    const std::string current = home + "/current";
    std::string aside = home + "/quarantine-" + time_for_name();
    for (int i = 2; exists(aside); ++i)
        aside = home + "/quarantine-" + time_for_name() + "-" + std::to_string(i);
    log_.critical("store: ", current, " is damaged: ", scan.damage, ". It is put aside as ", aside,
                  "; what is provably good in it goes on, all of it flagged as redelivered");
    index_ = Index();
    index_.begin_replay();
    scan.link_back();
    replay(scan, true);
    for (const Key key : index_.settle()) index_.forget(key);
    index_.settle();

    if (auto made = make_fresh(current); !made) return made;
    const std::string half = current + ".new";
    const auto written = write_salvaged(half + "/journal", scan);
    if (!written) return written.error();
    if (auto linked = payloads_->link_into(half + "/payload"); !linked)
        log_.error("store: ", linked.error().message());
    auto epoch = Epoch::open(half + "/epoch");
    if (!epoch) return epoch.error();
    EpochSlot slot;
    slot.generation = epoch_->last().generation + 2;  // one of its slots may be lost
    slot.clean = 1;
    if (auto done = epoch->write(slot); !done) return done;
    const std::string text = "the store was damaged (" + scan.damage + ") and was put aside as " +
                             aside + "; " + std::to_string(*written) + " messages were saved";
    if (auto done = replace_file(half + "/salvaged", std::as_bytes(std::span(text))); !done)
        return done;
    if (auto done = rename_file(current, aside); !done) return done;
    if (auto done = rename_file(half, current); !done) return done;
    if (auto done = sync_directory(home); !done) return done;
    health_.quarantine = aside;
    health_.salvaged = *written;
    index_ = Index();
    next_number_ = 1;
    medium_.reset();
    return {};
}

}  // namespace ipcfs::store
