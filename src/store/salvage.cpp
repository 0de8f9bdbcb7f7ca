// A damaged store is renamed, and what is good in it goes into a new one. One thread, at the start.
#include <ctime>

#include <store/files.hpp>
#include <store/found.hpp>
#include <store/walk.hpp>

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
    index_.begin_replay();
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
                        from =
                            found.file(segment_of(entry.at))->bytes().subspan(offset_of(entry.at));
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
            auto done = fill();
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
