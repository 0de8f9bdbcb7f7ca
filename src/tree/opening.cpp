// Opening, and the texts that files show and take. Any thread.
#include <channel/subscription.hpp>
#include <tree/lease_file.hpp>
#include <tree/memory_file.hpp>
#include <tree/notify_file.hpp>
#include <tree/put_file.hpp>
#include <tree/stream_file.hpp>
#include <tree/text_file.hpp>
#include <tree/tree.hpp>

namespace ipcfs::tree {

using channel::Channel;
using channel::Registry;

namespace {

// Directories whose entries depend on the type.
constexpr Kind kRelisted[] = {Kind::kChannel, Kind::kFramedDir};

}  // namespace

std::string Tree::text_of(Kind kind, const std::shared_ptr<Channel>& channel) const {
    switch (kind) {
        case Kind::kPeek: return peek_text(*channel, queue::Lane::kMain);
        case Kind::kDeadPeek: return peek_text(*channel, queue::Lane::kDead);
        case Kind::kFilter: return channel->subscription()->filter();
        case Kind::kCtl: return channel::print(channel->settings());
        case Kind::kStatus:
            return status_text(*channel, system_.degraded ? system_.degraded() : std::string());
        case Kind::kStats: return stats_text(*channel);
        case Kind::kStatsMessages: return messages_text(registry_);
        case Kind::kStatsChannels: return channels_text(registry_);
        case Kind::kStatsNotifications: return notifications_text(registry_);
        case Kind::kStatsMappings: return mappings();
        case Kind::kStatsResources: return resources_text(ledger_, system_);
        case Kind::kConfig: return system_.config ? system_.config() : std::string();
        case Kind::kVersion: return system_.version ? system_.version() : std::string();
        default: return {};
    }
}

std::string Tree::mappings() const {
    auto usage = payloads_.usage();
    auto regions = shares_.usage();
    usage.insert(usage.begin(), regions.begin(), regions.end());
    return mappings_text(usage);
}

Result<std::shared_ptr<OpenFile>> Tree::open_region(const RegionPtr& region, OpenMode mode,
                                                    const access::Subject& subject) {
    auto channel = registry_.find(region->channel);
    if (!channel) return Fault{ESTALE, "open: the channel is gone"};
    auto charge =
        access::Charge::take(ledger_.account(subject.uid), access::Resource::kOpenFiles, 1);
    if (!charge) return Fault{EDQUOT, "open: the user's limit of open files is reached"};
    return std::shared_ptr<OpenFile>(std::make_shared<RegionFile>(
        region, shares_, std::move(channel), mode, std::move(*charge)));
}

// The names that a text for `ctl` would revoke: all of them, or it is not taken at all.
Result<std::vector<std::string>> Tree::revocations(const Channel& channel,
                                                   std::string_view text) const {
    std::vector<std::string> names;
    auto control = channel::parse_control(text, channel.settings());
    if (!control) return names;  // the channel will refuse it, and say why
    for (const channel::Command& command : control->commands) {
        if (command.kind != channel::Command::Kind::kRevoke) continue;
        if (!shares_.find(channel.id(), command.region)) {
            return Fault{EINVAL, "revoke: there is no region share/" + command.region};
        }
        names.push_back(command.region);
    }
    return names;
}

Result<std::shared_ptr<OpenFile>> Tree::open(NodeId node, OpenMode mode,
                                             const access::Subject& subject) {
    const FileSpec* spec = spec_of(node.kind);
    if (!spec || spec->directory) return Fault{EISDIR, "open"};
    if (node.kind == Kind::kPayload && mode.writes) return Fault{EROFS, "open: a sealed payload"};
    std::shared_ptr<Channel> channel;
    Shape now = kAllShapes;
    if (node.channel != Registry::kRootId) {
        auto found = channel_of(node);
        if (!found) return found.error();
        channel = *found;
        now = shape_of(*channel);
    }
    if (!spec->shown(now)) return Fault{ESTALE, "open: the channel's type does not show it"};
    if ((mode.reads && !(spec->reads & now)) || (mode.writes && !(spec->writes & now))) {
        return Fault{EACCES, std::string(spec->name) +
                                 ((spec->reads & now) != 0 ? " is only read" : " is only written")};
    }
    if (node.kind == Kind::kPayload) {
        auto payload = payloads_.find(node.channel);
        if (!payload) return Fault{ESTALE, "open: the payload is gone"};
        return PayloadFile::open(std::move(payload), payloads_, worker_, subject);
    }
    if (node.kind == Kind::kRegion) {
        auto region = shares_.find(node.channel);
        if (!region) return Fault{ESTALE, "open: the region is gone"};
        return open_region(region, mode, subject);
    }
    if (is_put(node.kind)) {
        auto file = PutFile::open(channel, node, mode, subject, payloads_);
        if (!file) return file.error();
        return std::shared_ptr<OpenFile>(std::move(*file));
    }
    if (node.kind == Kind::kLease || node.kind == Kind::kFramedLease) {
        auto file = LeaseFile::open(channel, node.kind == Kind::kFramedLease, mode, subject);
        if (!file) return file.error();
        return std::shared_ptr<OpenFile>(std::move(*file));
    }
    if (node.kind == Kind::kStream && now == kStreamShape) {
        auto file = StreamFile::open(channel, mode, subject);
        if (!file) return file.error();
        return std::shared_ptr<OpenFile>(std::move(*file));
    }
    if (is_message_file(node.kind)) {
        auto file = MessageFile::open(channel, node.kind, mode, subject, payloads_);
        if (!file) return file.error();
        return std::shared_ptr<OpenFile>(std::move(*file));
    }
    if (node.kind == Kind::kNotify) {
        auto file = NotifyFile::open(channel, mode, subject);
        if (!file) return file.error();
        return std::shared_ptr<OpenFile>(std::move(*file));
    }
    return open_text(node, channel, subject);
}

Result<std::shared_ptr<OpenFile>> Tree::open_text(NodeId node,
                                                  const std::shared_ptr<Channel>& channel,
                                                  const access::Subject& subject) {
    auto charge =
        access::Charge::take(ledger_.account(subject.uid), access::Resource::kOpenFiles, 1);
    if (!charge) return Fault{EDQUOT, "open: the user's limit of open files is reached"};
    TextFile::Take take;
    payload::Worker* worker = nullptr;
    if (node.kind == Kind::kCtl) {
        worker = &worker_;
        take = [this, channel](std::string_view text, const access::Subject& by) {
            auto done = write_ctl(channel, text, by);
            return done ? 0 : done.error().code;
        };
    } else if (node.kind == Kind::kFilter) {
        take = [this, channel](std::string_view text, const access::Subject& by) {
            auto done = channel->subscription()->set_filter(text);
            if (!done) {
                log_.info("filter of ", registry_.path(channel->id()), " by uid ", by.uid,
                          " refused: ", done.error().operation);
            }
            return done ? 0 : done.error().code;
        };
    } else if (node.kind == Kind::kConfig && system_.set_config) {
        take = [this](std::string_view text, const access::Subject& by) {
            auto done = system_.set_config(text);
            log_.info("configuration written by uid ", by.uid,
                      done ? ": taken" : ": refused: ", done ? "" : done.error().operation);
            return done ? 0 : done.error().code;
        };
    }
    return std::shared_ptr<OpenFile>(std::make_shared<TextFile>(
        [this, kind = node.kind, channel] { return text_of(kind, channel); }, std::move(take),
        std::move(*charge), worker));
}

// On the worker where it names a region, a type or `durable`.
Result<void> Tree::write_ctl(const std::shared_ptr<Channel>& channel, std::string_view text,
                             const access::Subject& by) {
    Result<void> done;
    auto names = revocations(*channel, text);
    if (!names) {
        done = names.error();
        channel->note_error(done.error().operation);
    } else {
        done = control(channel, text, true);
    }
    for (std::size_t i = 0; done && i < names->size(); ++i) {
        done = shares_.revoke(channel->id(), (*names)[i]);
        log_.info("share/", (*names)[i], " of ", registry_.path(channel->id()), " revoked by uid ",
                  by.uid);
    }
    if (!done) {
        log_.info("ctl of ", registry_.path(channel->id()), " by uid ", by.uid,
                  " refused: ", done.error().operation);
    }
    return done;
}

// ---- another type -------------------------------------------------------------------------------

Result<void> Tree::control(const std::shared_ptr<Channel>& channel, std::string_view text,
                           bool at_once) {
    const Shape before = shape_of(*channel);
    auto done = channel->control(text);
    const Shape after = shape_of(*channel);
    if (!done || after == before) return done;
    const Nanos now = registry_.environment().clock.monotonic();
    stale_.with([&](auto& stale) {
        for (Kind kind : kRelisted) stale[NodeId{channel->id(), kind}.raw()] = now;
    });
    std::vector<std::string> hidden;
    for (const FileSpec* file = first_spec(); file != end_spec(); ++file) {
        if (!file->shown(before) || file->shown(after)) continue;
        const FileSpec* above = spec_of(file->parent);
        if (above && !above->shown(after)) continue;  // goes with its directory
        hidden.push_back(
            (above ? std::string(above->name) + "/" : std::string()).append(file->name));
    }
    if (retyped_) retyped_(channel, hidden, at_once);
    return done;
}

bool Tree::relisted(NodeId directory) {
    // Who opened it just before may still fill the cache with what there was.
    constexpr Nanos kSettled = kSecond;
    return stale_.with([&](auto& stale) {
        auto at = stale.find(directory.raw());
        if (at == stale.end()) return false;
        if (registry_.environment().clock.monotonic() > at->second + kSettled) stale.erase(at);
        return true;
    });
}

void Tree::forget(std::uint64_t channel) {
    shares_.forget(channel);
    stale_.with([&](auto& stale) {
        for (Kind kind : kRelisted) stale.erase(NodeId{channel, kind}.raw());
    });
}

}  // namespace ipcfs::tree
