// From what is on disk to a running store. What is wrong is either the end of what was never
// durable (forgotten, nobody was told otherwise) or damage: provably durable once, and not there now.
// A damaged store is renamed, and what is good in it goes into a new one. One thread, at the start.
#include <algorithm>
#include <ctime>
#include <fcntl.h>
#include <set>
#include <sys/statvfs.h>
#include <unistd.h>

#include <store/files.hpp>
#include <store/lmdb_store.hpp>
#include <store/walk.hpp>

namespace ipcfs::store {

namespace {

constexpr std::uint32_t kMiB = 1U << 20;

// By the size of the file system: at least four segments have to fit beside LMDB.
std::uint32_t suggested_segment(const std::string& directory) {
    struct statvfs info {};
    if (::statvfs(directory.c_str(), &info) != 0) return 16 * kMiB;
    const std::uint64_t total = std::uint64_t{info.f_blocks} * info.f_frsize;
    const std::uint64_t part = total < 16 * kMiB ? total / 16 : total / 8;
    const auto size = std::clamp<std::uint64_t>(part, 64U << 10, 16 * kMiB);
    return static_cast<std::uint32_t>(size & ~std::uint64_t{4095});
}

std::string time_for_name() {
    const std::time_t now = std::time(nullptr);
    std::tm parts{};
    ::gmtime_r(&now, &parts);
    char text[32];
    std::strftime(text, sizeof text, "%Y-%m-%dT%H-%M-%SZ", &parts);
    return text;
}

bool is_newer(const SegmentHeader& header) {
    return header.version > kFormatVersion;
}

}  // namespace

struct LmdbStore::Found {
    struct File {
        std::uint32_t number = 0;
        std::vector<std::byte> bytes;  // as it is on disk
        SegmentHeader header;
        BeginBody begin;
        bool used = false;      // it begins with a valid record
        bool chain = false;     // and counts
        bool dirty = false;     // does not count, but has records
        std::uint32_t end = 0;  // of what is valid and counts
    };
    std::string damage;                  // empty: none
    std::vector<File> files;             // in order of their number; younger than LMDB has
    std::vector<std::string> leftovers;  // names of files that do not count
    std::vector<std::uint64_t> requests;
    std::uint64_t checkpoint = 0;  // the highest that the journal knows
    bool torn = false;             // behind the end something looks like records
    bool newer = false;
    bool unreadable = false;  // LMDB's file

    void damaged(std::string what) {
        if (damage.empty()) damage = std::move(what);
    }
    // For a damaged journal: what its segments say of each other, as far as they can be read.
    void link_back() {
        File* later = nullptr;
        for (auto each = files.rbegin(); each != files.rend(); ++each) {
            each->chain = each->header.number == each->number &&
                          (later == nullptr || !later->used ||
                           later->begin.previous == each->number || !each->used);
            if (!each->chain) continue;
            each->end = later != nullptr && later->used && later->begin.previous == each->number
                            ? later->begin.end
                            : 0;
            later = &*each;
        }
    }
    const File* file(std::uint32_t number) const {
        for (const auto& each : files)
            if (each.number == number) return &each;
        return nullptr;
    }
};

Result<void> LmdbStore::make_fresh(const std::string& directory) {
    const std::string half = directory + ".new";
    remove_tree(half);
    for (const char* name : {"", "/journal", "/lmdb", "/payload"})
        if (auto done = make_directory(half + name); !done) return done;
    if (auto done = Epoch::make(half + "/epoch"); !done) return done;
    auto table = Table::open(half + "/lmdb");
    if (!table) return table.error();
    if (auto done = (*table)->begin(); !done) return done;
    return (*table)->commit(0);
}

Result<void> LmdbStore::recover(Recovery& to) {
    IPCFS_CHECK(!opened_);
    opened_ = true;
    const std::string& home = options_.directory;
    const std::string current = home + "/current";
    if (auto made = make_directory(home); !made) return made;
    auto lock = open_file(home + "/lock", O_RDWR | O_CREAT);
    if (!lock) return lock.error();
    // Of this process: not flock(2), which a forked child that outlives it would go on holding.
    struct flock whole {};
    whole.l_type = F_WRLCK;
    whole.l_whence = SEEK_SET;
    if (::fcntl(lock->get(), F_SETLK, &whole) != 0)
        return Fault{errno == EAGAIN || errno == EACCES ? EBUSY : errno, "lock " + home};
    directory_lock_ = std::move(*lock);
    segment_bytes_ = options_.segment_bytes != 0 ? options_.segment_bytes : suggested_segment(home);
    table_reserve_ = std::max<std::uint64_t>(segment_bytes_ / 4, 128U << 10);

    for (bool again = false;; again = true) {
        if (!exists(current) && exists(current + ".new/salvaged")) {
            // Killed when the damaged one had been put aside.
            if (auto done = rename_file(current + ".new", current); !done) return done;
            if (auto done = sync_directory(home); !done) return done;
        }
        if (!exists(current)) {
            if (auto made = make_fresh(current); !made) return made;
            if (auto done = rename_file(current + ".new", current); !done) return done;
            if (auto done = sync_directory(home); !done) return done;
        }
        Found found;
        if (auto done = open_current(found); !done) return done;
        if (found.damage.empty()) {
            if (auto done = start_journal(found); !done) return done;
            tell(to, found);
            if (auto text = read_file(path("salvaged"))) {
                health_.damaged = true;
                trouble_.assign(reinterpret_cast<const char*>(text->data()), text->size());
                log_.critical("store: ", trouble_);
                (void)remove_file(path("salvaged"));
            }
            break;
        }
        if (again) return Fault{EIO, "a store that was just made is damaged: " + found.damage};
        if (auto done = put_aside(found); !done) return done;
    }
    closed_ = false;
    checkpointing_ = true;
    commit_thread_ = std::thread([this] { commit_loop(); });
    checkpoint_thread_ = std::thread([this] { checkpoint_loop(); });
    return {};
}

// Reads everything; what is wrong is in `found`. A fault: it could not be tried, and is as it was.
Result<void> LmdbStore::open_current(Found& found) {
    if (!exists(path("epoch"))) {
        found.damaged("its epoch file is missing");
        if (auto made = Epoch::make(path("epoch")); !made) return made;
    }
    auto epoch = Epoch::open(path("epoch"));
    if (!epoch) return epoch.error();
    epoch_.emplace(std::move(*epoch));
    if (!epoch_->readable()) {
        found.damaged("its epoch file is damaged");
    } else if (!epoch_->intact()) {
        log_.warn("store: one of the two slots of ", path("epoch"), " is damaged; using the other");
    }
    auto medium = options_.medium ? options_.medium(path("journal")) : file_medium(path("journal"));
    if (!medium) return medium.error();
    medium_ = std::move(*medium);

    const Verdict verdict = verify_in_child(path("lmdb/data.mdb"));
    if (!verdict.wrong.empty()) found.damaged("LMDB: " + verdict.wrong);
    found.unreadable = verdict.crashed;
    read_segments(found);
    if (found.newer)
        return Fault{EPROTO, path("journal") + " was written by a newer version of ipcfs"};
    payloads_ = std::make_unique<PayloadFiles>(path("payload"));
    if (auto done = make_directory(path("payload")); !done) return done;
    if (auto done = payloads_->load(); !done) return done;
    if (!found.damage.empty()) return {};

    class Loader final : public Table::Visitor {
    public:
        Loader(Index& index, Found& found) : index_(index), found_(found) {}
        void channel(const ChannelBody& body, Bytes record) override {
            index_.load_channel(body.id, body.last_sequence, body.erased != 0, record);
        }
        void message(const MessageView& message) override { index_.load(message); }
        void request(std::uint64_t id) override { found_.requests.push_back(id); }

    private:
        Index& index_;
        Found& found_;
    };
    index_ = Index();
    auto table = Table::open(path("lmdb"));
    if (!table) {
        found.damaged(table.error().message());
        return {};
    }
    table_ = std::move(*table);
    if (table_->state().version > kFormatVersion)
        return Fault{EPROTO, path("lmdb") + " was written by a newer version of ipcfs"};
    Loader loader(index_, found);
    if (auto done = table_->begin_view(loader); !done) {
        found.damaged(done.error().message());
        return {};
    }
    index_.recount();
    find_chain(found);
    replay(found, false);
    if (found.damage.empty()) {
        if (const auto orphans = index_.settle(); !orphans.empty())
            found.damaged("the content of " + std::to_string(orphans.size()) +
                          " messages is missing");
        if (table_->state().number < found.checkpoint)
            found.damaged("LMDB is older than the journal says it should be");
    }
    return {};
}

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
        auto bytes = medium_->read(name);
        if (!bytes) {
            found.damaged(bytes.error().message());
            continue;
        }
        file.bytes = std::move(*bytes);
        if (const auto header = parse_segment(file.bytes)) {
            if (is_newer(*header)) found.newer = true;
            file.header = *header;
            const auto first =
                parse_record(file.bytes, kSegmentStart, header->number, header->salt);
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
        if (file.bytes.size() < file.header.size)
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
            const auto rest = look_behind(file.bytes, kSegmentStart, file.number, file.header.salt);
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
                const auto record = parse_record(file.bytes, at, file.number, file.header.salt);
                if (!record) break;
                at += record->header.length;
                sealed = record->header.type == static_cast<std::uint8_t>(RecordType::kSeal);
            }
            end = make_lsn(file.number, at);
        }
        const bool complete = !stopped && &file != last && at == file.end;
        if (complete) continue;
        const auto rest = look_behind(file.bytes, at, file.number, file.header.salt);
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
            static_cast<std::uint32_t>(std::min<std::size_t>(file.bytes.size(), UINT32_MAX));
        const std::uint32_t end = file.end != 0 ? std::min(file.end, most) : most;
        for (std::uint32_t at = kSegmentStart; at < end;) {
            const auto record = parse_record(file.bytes, at, file.number, file.header.salt);
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

// The journal goes on where its valid part ends.
Result<void> LmdbStore::start_journal(Found& found) {
    std::deque<SegmentRef> segments;
    for (auto& file : found.files) {
        const bool ready = !file.chain && !file.used && !file.dirty &&
                           file.header.size == segment_bytes_ && recyclable_.size() < 2;
        if (!file.chain && !ready) {
            found.leftovers.push_back(segment_name(file.number));
            continue;
        }
        auto segment = std::make_shared<Segment>();
        segment->number = file.number;
        segment->salt = file.header.salt;
        segment->size = static_cast<std::uint32_t>(file.header.size);
        segment->end = segment->synced = file.end;
        segment->previous = file.begin.previous;
        segment->previous_end = file.begin.end;
        auto region = medium_->open(segment_name(file.number));
        if (!region) return region.error();
        segment->region = std::move(*region);
        if (ready)
            recyclable_.push_back(segment);  // kept: there may be no room for another
        else
            segments.push_back(segment);
    }
    // Nothing that was never durable may come to light when the journal has grown up to it.
    if (found.torn && !segments.empty()) {
        const auto& last = segments.back();
        const auto rest = last->region->bytes().subspan(last->end);
        std::fill(rest.begin(), rest.end(), std::byte{0});
        log_.info("store: what was being written when the power failed is dropped, behind ",
                  last->end, " of segment ", last->number);
    }
    // What only the page cache had until now.
    for (const auto& segment : segments)
        if (auto done = segment->region->sync(); !done) return done;
    for (const auto& name : found.leftovers)
        if (auto done = medium_->remove(name); !done) return done;
    if (!found.leftovers.empty())
        if (auto done = medium_->sync_names(); !done) return done;

    generation_ = epoch_->last().generation + (epoch_->intact() ? 1 : 2);
    may_have_lost_marks_ = epoch_->last().generation != 0 && epoch_->last().clean == 0 &&
                           std::string(epoch_->last().boot.data()) != options_.boot;
    next_number_ = std::max(next_number_, segment_of(table_->state().applied) + 1);
    journal_.start(std::move(segments));
    if (journal_.used().empty()) {
        if (auto done = prepare(); !done) return done;
        journal_.begin_first(table_->state().applied);
        if (auto done = journal_.current().region->sync(); !done) return done;
        journal_.current().synced = journal_.current().end;
    }
    durable_ = journal_.end();
    std::set<std::uint64_t> seen;  // LMDB's and the journal's overlap
    std::vector<std::uint64_t> latest;
    for (auto each = found.requests.rbegin(); each != found.requests.rend(); ++each)
        if (seen.insert(*each).second) latest.push_back(*each);
    for (auto each = latest.rbegin(); each != latest.rend(); ++each) remember(*each);

    EpochSlot slot;
    slot.generation = generation_;
    std::copy_n(options_.boot.data(), std::min(options_.boot.size(), slot.boot.size() - 1),
                slot.boot.data());
    return epoch_->write(slot);
}

void LmdbStore::tell(Recovery& to, Found& found) {
    const auto refers = [&](std::uint64_t id, ChannelEntry& channel) {
        for (const std::uint64_t sequence : channel.entries.sequences()) {
            const Entry& entry = *channel.entries.find(sequence);
            if (entry.linked && index_.links({id, sequence}).origin.channel != 0) return true;
        }
        return false;
    };
    const auto view_of = [&](Key key, const Entry& entry) {
        return entry.at != 0 ? parse_message(journal_.read(entry.at)) : table_->view(key);
    };
    std::uint64_t broken = 0;
    const auto tell_channel = [&](std::uint64_t id, ChannelEntry& channel) {
        to.channel(id, channel.record, channel.last_sequence);
        for (const std::uint64_t sequence : channel.entries.sequences()) {
            const Key key{id, sequence};
            const Entry& entry = *channel.entries.find(sequence);
            if (entry.hidden) continue;
            const auto view = view_of(key, entry);
            IPCFS_CHECK(view.has_value());
            Recovered message{key, entry.state(), view->head, view->content, {}, 0};
            if (entry.linked) {
                const Links& links = index_.links(key);
                message.origin = links.origin;
                message.payload = links.payload;
            }
            if (message.origin.channel != 0) {
                const Entry* const origin = index_.find(message.origin);
                const auto content = view_of(message.origin, *origin);
                IPCFS_CHECK(content.has_value());
                message.content = content->content;
            }
            if (message.payload != 0 && !payloads_->whole(message.payload)) ++broken;
            to.message(message);
        }
    };
    std::vector<std::uint64_t> later;
    for (auto& [id, channel] : index_.channels()) {
        if (channel.erased) continue;
        if (refers(id, channel))
            later.push_back(id);
        else
            tell_channel(id, channel);
    }
    for (const std::uint64_t id : later) tell_channel(id, *index_.channel(id));
    for (const std::uint64_t request : found.requests) to.request(request);
    table_->end_view();
    if (broken != 0) {
        health_.damaged = true;
        trouble_ = std::to_string(broken) + " messages have lost their payload";
        log_.error("store: ", trouble_, " in ", path("payload"));
    }
    for (const std::uint64_t id : payloads_->ids()) {
        if (index_.refers(id))
            first_free_payload_ = std::max(first_free_payload_, id + 1);
        else
            payloads_->remove(id);
    }
    index_.unused_payloads.clear();
}

// Renames what is damaged, and makes a new store of what is good in it: every record whose checksum
// is right. Erasures and states may be among what is lost, so all of it counts as redelivered.
Result<void> LmdbStore::put_aside(Found& found) {
    const std::string& home = options_.directory;
    const std::string current = home + "/current";
    std::string aside = home + "/quarantine-" + time_for_name();
    for (int i = 2; exists(aside); ++i)
        aside = home + "/quarantine-" + time_for_name() + "-" + std::to_string(i);
    log_.critical("store: ", current, " is damaged: ", found.damage, ". It is put aside as ", aside,
                  "; what is provably good in it goes on, all of it flagged as redelivered");
    if (table_) table_->end_view();
    table_.reset();

    index_ = Index();
    std::map<Key, Bytes> kept;  // out of LMDB
    std::optional<Salvage> salvage;
    if (!found.unreadable) {
        salvage.emplace(path("lmdb/data.mdb"));
        salvage->for_each([&](Bytes value, bool is_channel) {
            if (is_channel) {
                const auto body = load<ChannelBody>(value);
                index_.load_channel(body.id, body.last_sequence, body.erased != 0,
                                    value.subspan(sizeof body));
            } else if (const auto message = parse_message(value)) {
                index_.load(*message);
                kept.emplace(to_key(message->header.key), value);
            }
        });
    }
    index_.recount();
    found.link_back();
    replay(found, true);
    for (const Key key : index_.settle()) index_.forget(key);
    index_.settle();

    if (auto made = make_fresh(current); !made) return made;
    const std::string half = current + ".new";
    std::uint64_t count = 0;
    {
        auto table = Table::open(half + "/lmdb");
        if (!table) return table.error();
        const auto fill = [&]() -> Result<void> {
            count = 0;
            if (auto done = (*table)->begin(); !done) return done;
            for (auto& [id, channel] : index_.channels()) {
                const auto length = static_cast<std::uint32_t>(channel.record.size());
                const ChannelBody body{id, channel.last_sequence, channel.erased ? 1U : 0U, length};
                if (auto done = (*table)->put_channel(body, channel.record); !done) return done;
                for (const std::uint64_t sequence : channel.entries.sequences()) {
                    const Entry& entry = *channel.entries.find(sequence);
                    Bytes from;
                    if (entry.at == 0)
                        from = kept[{id, sequence}];
                    else
                        from = Bytes(found.file(segment_of(entry.at))->bytes)
                                   .subspan(offset_of(entry.at));
                    auto view = parse_message(from);
                    IPCFS_CHECK(view.has_value());
                    State state = entry.state();
                    state.redelivered = true;
                    view->header.state = to_body(state);
                    view->header.state.hidden = entry.hidden ? 1 : 0;
                    auto done = (*table)->put(view->header, view->head, view->content);
                    if (!done) return done;
                    ++count;
                }
            }
            return (*table)->commit(0);
        };
        for (;;) {
            const auto done = fill();
            if (done) break;
            if (!(*table)->abort()) return done;
        }
    }
    if (auto linked = payloads_->link_into(half + "/payload"); !linked)
        log_.error("store: ", linked.error().message());
    auto epoch = Epoch::open(half + "/epoch");
    if (!epoch) return epoch.error();
    EpochSlot slot;
    slot.generation = epoch_->last().generation + 2;  // one of its slots may be lost
    slot.clean = 1;
    if (auto done = epoch->write(slot); !done) return done;
    const std::string text = "the store was damaged (" + found.damage + ") and was put aside as " +
                             aside + "; " + std::to_string(count) + " messages were saved";
    if (auto done = replace_file(half + "/salvaged", std::as_bytes(std::span(text))); !done)
        return done;
    if (auto done = rename_file(current, aside); !done) return done;
    if (auto done = rename_file(half, current); !done) return done;
    if (auto done = sync_directory(home); !done) return done;
    health_.quarantine = aside;
    health_.salvaged = count;
    index_ = Index();
    next_number_ = 1;
    medium_.reset();
    return {};
}

}  // namespace ipcfs::store
