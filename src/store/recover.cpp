// From what is on disk to a running store; a damaged one is put aside (salvage.cpp) and what was saved
// of it is opened instead. Reading the journal is in chain.cpp. One thread, at the start.
#include <algorithm>
#include <fcntl.h>
#include <filesystem>
#include <sys/stat.h>
#include <unistd.h>

#include <store/files.hpp>
#include <store/scan.hpp>

#include <base/thread.hpp>

namespace ipcfs::store {

namespace {

// The largest that a segment may grow: several have to fit a small disk.
std::uint32_t suggested_segment(const Options& options) {
    std::error_code failed;
    std::uint64_t total = std::filesystem::space(options.directory, failed).capacity;
    if (options.max_bytes != 0) total = std::min(total, options.max_bytes);
    const auto size = std::clamp<std::uint64_t>(total / 16, 64U << 10, kLargestSegment);
    return static_cast<std::uint32_t>(size & ~std::uint64_t{4095});
}

}  // namespace

Result<void> SegmentStore::make_fresh(const std::string& directory) {
    const std::string half = directory + ".new";
    remove_tree(half);
    for (const char* name : {"", "/journal", "/payload"})
        if (auto done = make_directory(half + name); !done) return done;
    return Epoch::make(half + "/epoch");
}

bool SegmentStore::has_files() const {
    const std::string current = options_.directory + "/current";
    return exists(current) || exists(current + ".new/salvaged");
}

Result<void> SegmentStore::lock_directory() {
    const std::string& home = options_.directory;
    std::error_code failed;
    std::filesystem::create_directories(home, failed);
    if (failed) return Fault{failed.value(), "make the directory " + home};
    if (::chmod(home.c_str(), 0700) != 0) return errno_fault("make " + home + " private");
    auto lock = open_file(home + "/lock", O_RDWR | O_CREAT);
    if (!lock) return lock.error();
    // Of this process: not flock(2), which a forked child that outlives it would go on holding.
    struct flock whole {};
    whole.l_type = F_WRLCK;
    whole.l_whence = SEEK_SET;
    if (::fcntl(lock->get(), F_SETLK, &whole) != 0)
        return Fault{errno == EAGAIN || errno == EACCES ? EBUSY : errno, "lock " + home};
    directory_lock_ = std::move(*lock);
    return {};
}

Result<void> SegmentStore::recover(Recovery& to) {
    const std::scoped_lock one(opening_);
    IPCFS_CHECK(!recovered_);
    generation_ = options_.first_generation;
    if (has_files()) {
        if (auto locked = lock_directory(); !locked) return locked;
        recovered_ = true;
        return start(&to);
    }
    recovered_ = true;
    return {};
}

Result<void> SegmentStore::open() {
    if (opened_) return {};
    const std::scoped_lock one(opening_);
    if (opened_) return {};
    IPCFS_CHECK(recovered_);
    if (stopping_) return Fault{EIO, "the store is closed"};
    if (auto locked = lock_directory(); !locked) return locked;
    if (has_files()) {
        directory_lock_.reset();
        return Fault{EBUSY, options_.directory + " was made by another daemon meanwhile"};
    }
    auto done = start(nullptr);
    if (!done) undo_start();
    return done;
}

// What was made in vain goes, so that the next attempt begins anew.
void SegmentStore::undo_start() {
    payloads_.reset();
    epoch_.reset();
    {
        const Lock lock(mutex_);
        journal_ = {};
        index_ = {};
        recyclable_.clear();
        next_number_ = 1;
        no_space_ = false;
    }
    medium_.reset();
    generation_ = options_.first_generation;
    remove_tree(options_.directory + "/current.new");
    remove_tree(options_.directory + "/current");
    directory_lock_.reset();
}

Result<void> SegmentStore::start(Recovery* to) {
    const std::string& home = options_.directory;
    const std::string current = home + "/current";
    segment_bytes_ =
        options_.segment_bytes != 0 ? options_.segment_bytes : suggested_segment(options_);

    for (bool again = false;; again = true) {
        if (!exists(current)) {
            // A salvaged one is there if the process was killed after it had moved the damaged one.
            if (!exists(current + ".new/salvaged"))
                if (auto made = make_fresh(current); !made) return made;
            if (auto done = rename_file(current + ".new", current); !done) return done;
            if (auto done = sync_directory(home); !done) return done;
        }
        Scan scan;
        if (auto done = open_current(scan); !done) return done;
        if (scan.damage.empty()) {
            if (auto done = start_journal(scan); !done) return done;
            if (to != nullptr) report(*to, scan);
            if (auto text = read_file(path("salvaged"))) {
                health_.damaged = true;
                trouble_.assign(reinterpret_cast<const char*>(text->data()), text->size());
                log_.critical("store: ", trouble_);
                (void)remove_file(path("salvaged"));
            }
            break;
        }
        if (again) return Fault{EIO, "a store that was just made is damaged: " + scan.damage};
        if (auto done = quarantine(scan); !done) return done;
    }
    {
        const Lock lock(mutex_);
        closed_ = ended_ = false;
        cleaning_ = true;
    }
    commit_thread_ = start_thread("ipcfs-commit", [this] { commit_loop(); });
    clean_thread_ = start_thread("ipcfs-cleaner", [this] { clean_loop(); });
    opened_ = true;
    return {};
}

// Reads everything; what is wrong is in `scan`. A fault: it could not be tried, and is as it was.
Result<void> SegmentStore::open_current(Scan& scan) {
    if (!exists(path("epoch"))) {
        scan.note_damage("its epoch file is missing");
        if (auto made = Epoch::make(path("epoch")); !made) return made;
    }
    auto epoch = Epoch::open(path("epoch"));
    if (!epoch) return epoch.error();
    epoch_.emplace(std::move(*epoch));
    if (!epoch_->readable()) {
        scan.note_damage("its epoch file is damaged");
    } else if (!epoch_->intact()) {
        log_.warn("store: one of the two slots of ", path("epoch"), " is damaged; using the other");
    }
    auto medium = options_.medium ? options_.medium(path("journal")) : file_medium(path("journal"));
    if (!medium) return medium.error();
    medium_ = std::move(*medium);

    read_segments(scan);
    if (scan.version != kFormatVersion) return other_version(path("journal"), scan.version);
    payloads_ = std::make_unique<PayloadFiles>(path("payload"));
    if (auto done = make_directory(path("payload")); !done) return done;
    if (auto done = payloads_->load(); !done) return done;
    index_ = Index();
    if (scan.damage.empty()) find_chain(scan);
    if (!scan.damage.empty()) return {};
    index_.begin_replay();
    replay(scan, false);
    if (const auto orphans = index_.settle(); scan.damage.empty() && !orphans.empty())
        scan.note_damage("the content of " + std::to_string(orphans.size()) +
                         " messages is missing");
    return {};
}

// The journal goes on where its valid part ends.
Result<void> SegmentStore::start_journal(Scan& scan) {
    std::deque<SegmentRef> segments;
    for (auto& file : scan.files) {
        const bool ready = !file.chain && !file.used && !file.dirty && recyclable_.size() < 2;
        if (!file.chain && !ready) {
            scan.leftovers.push_back(segment_name(file.number));
            continue;
        }
        auto segment = std::make_shared<Segment>();
        segment->number = file.number;
        segment->salt = file.header.salt;
        segment->size = static_cast<std::uint32_t>(file.header.size);
        segment->end = segment->synced = file.end;
        segment->previous = file.begin.previous;
        segment->previous_end = file.begin.end;
        segment->region = std::move(file.region);
        segment_bytes_ = std::max(segment_bytes_, segment->size);
        if (ready)
            recyclable_.push_back(segment);  // kept: there may be no room for another
        else
            segments.push_back(segment);
    }
    // Nothing that was never durable may come to light when the journal has grown up to it.
    if (scan.torn && !segments.empty()) {
        const auto& last = segments.back();
        const auto rest = last->region->bytes().subspan(last->end);
        std::fill(rest.begin(), rest.end(), std::byte{0});
        log_.info("store: what was being written when the power failed is dropped, behind ",
                  last->end, " of segment ", last->number);
    }
    // What only the page cache had until now.
    for (const auto& segment : segments)
        if (auto done = segment->region->sync(); !done) return done;
    for (const auto& name : scan.leftovers)
        if (auto done = medium_->remove(name); !done) return done;
    if (!scan.leftovers.empty())
        if (auto done = medium_->sync_names(); !done) return done;

    generation_ =
        std::max(options_.first_generation, epoch_->last().generation + (epoch_->intact() ? 1 : 2));
    may_have_lost_marks_ = epoch_->last().generation != 0 && epoch_->last().clean == 0 &&
                           std::string(epoch_->last().boot.data()) != options_.boot;
    journal_.start(std::move(segments));
    if (journal_.used().empty()) {
        if (auto done = prepare(1); !done) return done;
        journal_.begin_first();
        if (auto done = journal_.current().region->sync(); !done) return done;
        journal_.current().synced = journal_.current().end;
    }
    durable_ = journal_.end();
    for (const Request& request : scan.requests) requests_.push_back(request);
    while (requests_.size() > kKeptRequests) requests_.pop_front();

    EpochSlot slot;
    slot.generation = generation_;
    std::copy_n(options_.boot.data(), std::min(options_.boot.size(), slot.boot.size() - 1),
                slot.boot.data());
    return epoch_->write(slot);
}

// A message with its content, as the log has it.
Recovered SegmentStore::recovered(Key key, const Entry& entry) {
    const auto view_of = [&](const Entry& of) {
        const auto view = parse_message(journal_.read(of.at));
        IPCFS_CHECK(view.has_value());
        return *view;
    };
    const MessageView view = view_of(entry);
    Recovered message{key, entry.state(), view.head, view.content, {}, 0};
    if (!entry.linked) return message;
    const Links& links = index_.links(key);
    message.origin = links.origin;
    message.payload = links.payload;
    if (links.origin.channel != 0) message.content = view_of(*index_.find(links.origin)).content;
    return message;
}

void SegmentStore::report(Recovery& to, const Scan& scan) {
    const auto referring = index_.referring_channels();
    std::uint64_t broken = 0;
    for (const bool later : {false, true}) {
        for (auto& [id, channel] : index_.channels()) {
            if (channel.erased || referring.contains(id) != later) continue;
            to.channel(id, channel.record, channel.last_sequence);
            for (const std::uint64_t sequence : channel.entries.sequences()) {
                const Entry& entry = *channel.entries.find(sequence);
                if (entry.hidden) continue;
                const Recovered message = recovered({id, sequence}, entry);
                if (message.payload != 0 && !payloads_->whole(message.payload)) ++broken;
                to.message(message);
            }
        }
    }
    for (const Request& request : scan.requests) to.request(request.id);
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

}  // namespace ipcfs::store
