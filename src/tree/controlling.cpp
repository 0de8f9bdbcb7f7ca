// What is written to `ctl`, `filter` and `config`, and what follows when a channel gets another type:
// its directories list other names. Any thread.
#include <tree/texts.hpp>
#include <tree/tree.hpp>

namespace ipcfs::tree {

using channel::Endpoint;

namespace {

// The names that a text for `ctl` would revoke. A name that is not there refuses the whole text.
Result<std::vector<std::string>> revocations(const Shares& shares, const Endpoint& channel,
                                             std::string_view text) {
    std::vector<std::string> names;
    auto control = channel::parse_control(text, channel.settings());
    if (!control) return names;  // the channel will refuse it, and say why
    for (const channel::Command& command : control->commands) {
        if (command.kind != channel::Command::Kind::kRevoke) continue;
        if (!shares.find(channel.id(), command.region)) {
            return Fault{EINVAL, "revoke: there is no region share/" + command.region};
        }
        names.push_back(command.region);
    }
    return names;
}

// Logs a refusal.
Result<void> reported(Tree& tree, const char* file, const ChannelPtr& channel,
                      const access::Subject& by, Result<void> done) {
    if (!done) {
        tree.log().info(file, " of ", tree.registry().path(channel->id()), " by uid ", by.uid,
                        " refused: ", done.error().operation);
    }
    return done;
}

}  // namespace

// These may take long: a region's mappings, names in the kernel's cache, the store's first files.
bool is_slow_ctl(std::string_view text) {
    constexpr auto kNone = std::string_view::npos;
    return text.find("revoke") != kNone || text.find("type") != kNone ||
           text.find("durable") != kNone;
}

Result<void> take_ctl(Tree& tree, const ChannelPtr& channel, std::string_view text,
                      const access::Subject& by) {
    Result<void> done;
    auto names = revocations(tree.shares(), *channel, text);
    if (!names) {
        done = names.error();
        channel->note_error(done.error().operation);
    } else {
        done = tree.control(channel, text, true);
    }
    for (std::size_t i = 0; done && i < names->size(); ++i) {
        done = tree.shares().revoke(channel->id(), (*names)[i]);
        tree.log().info("share/", (*names)[i], " of ", tree.registry().path(channel->id()),
                        " revoked by uid ", by.uid);
    }
    return reported(tree, "ctl", channel, by, done);
}

Result<void> take_filter(Tree& tree, const ChannelPtr& channel, std::string_view text,
                         const access::Subject& by) {
    return reported(tree, "filter", channel, by, channel->set_filter(text));
}

Result<void> take_config(Tree& tree, const ChannelPtr&, std::string_view text,
                         const access::Subject& by) {
    if (!tree.system().set_config) return Fault{EACCES, "there is no configuration to change"};
    auto done = tree.system().set_config(text);
    tree.log().info("configuration written by uid ", by.uid,
                    done ? ": taken" : ": refused: ", done ? "" : done.error().operation);
    return done;
}

Result<void> Tree::control(const ChannelPtr& channel, std::string_view text, bool at_once) {
    const Shape before = shape_of(*channel);
    auto done = channel->control(text);
    const Shape after = shape_of(*channel);
    if (!done || after == before) return done;
    const Nanos now = registry_.environment().clock.monotonic();
    relisted_.with([&](auto& relisted) {
        for (const FileKind& kind : file_kinds()) {
            if (kind.is_shown(before) != kind.is_shown(after))
                relisted[NodeId{channel->id(), kind.parent}.raw()] = now;
        }
    });
    std::vector<std::string> hidden;
    for (const FileKind& kind : file_kinds()) {
        if (kind.name.empty() || !kind.is_shown(before) || kind.is_shown(after)) continue;
        const FileKind& above = *file_kind(kind.parent);
        if (!above.is_shown(after)) continue;  // its directory is hidden, too
        hidden.push_back(
            (above.name.empty() ? std::string() : std::string(above.name) + "/").append(kind.name));
    }
    if (type_changed_) type_changed_(channel, hidden, at_once);
    return done;
}

Tree::Listing Tree::listing(NodeId directory) {
    if (!this->directory(directory)->may_be_cached()) return Listing::kNeverKept;
    // A process that opened it just before may still fill the cache with names of the old type.
    constexpr Nanos kSettled = kSecond;
    return relisted_.with([&](auto& relisted) {
        auto at = relisted.find(directory.raw());
        if (at == relisted.end()) return Listing::kKept;
        if (registry_.environment().clock.monotonic() > at->second + kSettled) relisted.erase(at);
        return Listing::kOutdated;
    });
}

void Tree::forget(std::uint64_t channel) {
    shares_.forget(channel);
    relisted_.with([&](auto& relisted) {
        relisted.erase(relisted.lower_bound(NodeId{channel, Kind{0}}.raw()),
                       relisted.upper_bound(NodeId{channel, Kind{255}}.raw()));
    });
}

}  // namespace ipcfs::tree
