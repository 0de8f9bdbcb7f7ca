// Names, attributes and opening. Any thread. Extended attributes are in xattrs.cpp.
#include <algorithm>
#include <sys/stat.h>

#include <access/acl.hpp>
#include <tree/notify_file.hpp>
#include <tree/text_file.hpp>
#include <tree/tree.hpp>

namespace ipcfs::tree {

using access::kAccessAcl;
using access::kDefaultAcl;
using channel::Attributes;
using channel::Channel;
using channel::Registry;

namespace {

constexpr std::uint64_t kFirstChannelCookie = 1ULL << 32;

std::uint8_t raw(Kind kind) {
    return static_cast<std::uint8_t>(kind);
}

bool has_channels(Kind kind) {
    return kind == Kind::kRoot || kind == Kind::kChannel;
}

constexpr std::size_t kLongestName = 255;  // NAME_MAX

// Directories that every directory of this kind has, and its own two links.
std::uint64_t fixed_links(Kind kind) {
    std::uint64_t links = 2;
    for (const FileSpec* file = first_spec(); file != end_spec(); ++file) {
        links += file->parent == kind && file->directory;
    }
    return links;
}

// Its times are those of arrivals and deliveries.
bool is_message_file(Kind kind) {
    switch (kind) {
        case Kind::kQueue:
        case Kind::kNext:
        case Kind::kStream:
        case Kind::kCritical:
        case Kind::kHigh:
        case Kind::kNormal:
        case Kind::kLow:
        case Kind::kFramedQueue:
        case Kind::kFramedNext:
        case Kind::kFramedStream: return true;
        default: return false;
    }
}

std::optional<access::Acl> default_acl(const Attributes& attributes) {
    auto at = attributes.xattrs.find(kDefaultAcl);
    if (at == attributes.xattrs.end()) return std::nullopt;
    auto acl = access::parse_acl(std::as_bytes(std::span(at->second)));
    if (!acl) return std::nullopt;
    return *acl;
}

void inherit_acl(Attributes& attributes, const access::Acl& defaults, mode_t mode) {
    access::Inherited got = access::inherit(defaults, mode);
    attributes.mode = got.mode;
    if (access::is_minimal(got.access)) return;
    auto bytes = access::serialize(got.access);
    attributes.xattrs.emplace(
        kAccessAcl, std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

}  // namespace

Tree::Tree(Registry& registry, access::Ledger& ledger, Logger& log, System system)
    : registry_(registry), ledger_(ledger), log_(log), system_(std::move(system)) {
    registry_.change(
        Registry::kRootId, raw(Kind::kRoot), [](const Attributes& made) { return made; },
        [&](Attributes& root) {
            root.uid = system_.uid;
            root.gid = system_.gid;
        });
}

// What a file has until it is changed.
Registry::Initial Tree::initial(Kind kind) {
    const FileSpec* spec = spec_of(kind);
    return [spec](const Attributes& made) {
        if (!spec) return made;  // the channel's directory itself
        Attributes file;
        file.uid = made.uid;
        file.gid = made.gid;
        file.changed = made.changed;
        file.mode = made.mode & spec->mask;
        if (auto defaults = default_acl(made)) inherit_acl(file, *defaults, spec->mask & 0777);
        return file;
    };
}

Result<std::shared_ptr<Channel>> Tree::channel_of(NodeId node) const {
    auto channel = registry_.find(node.channel);
    if (!channel || channel->removed()) return Fault{ESTALE, "the channel is gone"};
    return channel;
}

Result<NodeInfo> Tree::describe(NodeId node) const {
    const FileSpec* spec = spec_of(node.kind);
    NodeInfo info;
    info.id = node;
    bool directory = !spec || spec->directory;
    if (node.channel == Registry::kRootId && node.kind != Kind::kRoot) {
        if (!spec) return Fault{ESTALE, "no such file"};
        info.mode = (directory ? S_IFDIR : S_IFREG) | spec->mask;
        info.uid = system_.uid;
        info.gid = system_.gid;
        registry_.read(
            Registry::kRootId, raw(Kind::kRoot), [](const Attributes& made) { return made; },
            [&](const Attributes& root) {
                info.accessed = info.modified = info.changed = root.changed;
            });
        info.links = directory ? fixed_links(node.kind) : 1;
        return info;
    }
    bool found = registry_.read(
        node.channel, raw(node.kind), initial(node.kind), [&](const Attributes& attributes) {
            info.mode = (directory ? S_IFDIR : S_IFREG) | attributes.mode;
            info.uid = attributes.uid;
            info.gid = attributes.gid;
            info.accessed = info.modified = info.changed = attributes.changed;
        });
    if (!found) return Fault{ESTALE, "the channel is gone"};
    if (has_channels(node.kind)) {
        info.links = registry_.count_children(node.channel) + fixed_links(node.kind);
    } else if (directory) {
        info.links = fixed_links(node.kind);
    } else if (is_message_file(node.kind)) {
        auto channel = registry_.find(node.channel);
        if (!channel) return Fault{ESTALE, "the channel is gone"};
        auto [arrival, delivery] = channel->times();
        info.modified = arrival;
        info.accessed = delivery;
        if (node.kind == Kind::kQueue) {
            channel->attributes_cached.store(true, std::memory_order_relaxed);
        }
    }
    return info;
}

Result<NodeInfo> Tree::lookup(NodeId parent, std::string_view name) const {
    if (name.size() > kLongestName) return Fault{ENAMETOOLONG, "lookup"};
    if (const FileSpec* spec = spec_of(parent.kind, name)) {
        return describe({parent.channel, spec->kind});
    }
    if (!has_channels(parent.kind)) return Fault{ENOENT, "lookup"};
    auto channel = registry_.child(parent.channel, name);
    if (!channel) return Fault{ENOENT, "lookup"};
    return describe({channel->id(), Kind::kChannel});
}

Result<NodeInfo> Tree::stat(NodeId node) const {
    return describe(node);
}

NodeId Tree::parent(NodeId node) const {
    if (const FileSpec* spec = spec_of(node.kind)) return {node.channel, spec->parent};
    std::uint64_t above = registry_.parent(node.channel);
    return {above, above == Registry::kRootId ? Kind::kRoot : Kind::kChannel};
}

Result<NodeInfo> Tree::change(NodeId node, const Change& change) {
    bool system = node.channel == Registry::kRootId && node.kind != Kind::kRoot;
    if (change.size && *change.size != 0)
        return Fault{EINVAL, "truncate: message files have size 0"};
    if (change.mode || change.uid || change.gid) {
        if (system) return Fault{EPERM, "the system's files keep their owner and mode"};
        const FileSpec* spec = spec_of(node.kind);
        mode_t bits = !spec || spec->directory ? 07777 : 0777;
        bool found = registry_.change(
            node.channel, raw(node.kind), initial(node.kind), [&](Attributes& attributes) {
                if (change.uid) attributes.uid = *change.uid;
                if (change.gid) attributes.gid = *change.gid;
                if (change.mode) {
                    attributes.mode = *change.mode & bits;
                    auto acl = attributes.xattrs.find(kAccessAcl);
                    if (acl != attributes.xattrs.end()) {
                        auto parsed = access::parse_acl(std::as_bytes(std::span(acl->second)));
                        if (parsed) {
                            auto bytes =
                                access::serialize(access::with_mode(*parsed, attributes.mode));
                            acl->second.assign(reinterpret_cast<const char*>(bytes.data()),
                                               bytes.size());
                        }
                    }
                }
                attributes.changed = registry_.environment().clock.realtime();
            });
        if (!found) return Fault{ESTALE, "the channel is gone"};
    }
    return describe(node);
}

Result<NodeInfo> Tree::make_channel(NodeId parent, std::string_view name, const NewChannel& made) {
    if (!has_channels(parent.kind)) return Fault{EPERM, "mkdir: no channels here"};
    if (name.size() > kLongestName) return Fault{ENAMETOOLONG, "mkdir"};
    if (reserved(parent.kind == Kind::kRoot, name)) {
        return Fault{EEXIST, "mkdir: the name is reserved"};
    }
    Attributes attributes;
    attributes.uid = made.subject.uid;
    attributes.gid = made.subject.gid;
    attributes.mode = made.mode & ~made.umask & 01777;
    attributes.changed = registry_.environment().clock.realtime();
    bool found = registry_.read(
        parent.channel, raw(parent.kind), initial(parent.kind), [&](const Attributes& above) {
            if (auto defaults = default_acl(above)) {
                inherit_acl(attributes, *defaults, made.mode & 01777);
                attributes.xattrs.emplace(kDefaultAcl, above.xattrs.find(kDefaultAcl)->second);
            }
            if (above.mode & S_ISGID) {
                attributes.gid = above.gid;
                attributes.mode |= S_ISGID;
            }
        });
    if (!found) return Fault{ENOENT, "mkdir: the parent is gone"};
    auto channel = registry_.create(parent.channel, name, std::move(attributes),
                                    ledger_.account(made.subject.uid));
    if (!channel) return channel.error();
    if (auto above = registry_.find(parent.channel)) {
        above->announce(channel::EventKind::kCreated, (*channel)->id());
    }
    log_.debug("channel ", registry_.path((*channel)->id()), " made by uid ", made.subject.uid);
    return describe({(*channel)->id(), Kind::kChannel});
}

Result<void> Tree::remove_channel(NodeId parent, std::string_view name) {
    if (spec_of(parent.kind, name)) return Fault{EPERM, "rmdir: part of the channel"};
    if (!has_channels(parent.kind)) return Fault{EPERM, "rmdir: no channels here"};
    auto channel = registry_.child(parent.channel, name);
    auto removed = registry_.remove(parent.channel, name);
    if (removed && channel) {
        if (auto above = registry_.find(parent.channel)) {
            above->announce(channel::EventKind::kRemoved, channel->id());
        }
        log_.debug("channel ", name, " removed");
    }
    return removed;
}

Result<void> Tree::rename(NodeId parent, std::string_view name, NodeId to_parent,
                          std::string_view to_name, bool keep) {
    if (!has_channels(parent.kind) || !has_channels(to_parent.kind)) {
        return Fault{EPERM, "rename: no channels here"};
    }
    if (spec_of(parent.kind, name)) return Fault{EPERM, "rename: part of the channel"};
    if (to_name.size() > kLongestName) return Fault{ENAMETOOLONG, "rename"};
    if (reserved(to_parent.kind == Kind::kRoot, to_name)) {
        return Fault{EEXIST, "rename: the name is reserved"};
    }
    return registry_.rename(parent.channel, name, to_parent.channel, to_name, keep);
}

Result<void> Tree::list(NodeId directory, std::uint64_t cookie, const Visit& visit) const {
    const FileSpec* spec = spec_of(directory.kind);
    if (spec && !spec->directory) return Fault{ENOTDIR, "readdir"};
    if (directory.kind == Kind::kChannel && !registry_.find(directory.channel)) {
        return Fault{ENOENT, "readdir: the channel is gone"};
    }
    std::uint64_t at = 0;
    for (auto [name, node] : {std::pair{std::string_view("."), directory},
                              std::pair{std::string_view(".."), parent(directory)}}) {
        if (++at > cookie && !visit(name, node, true, at)) return {};
    }
    for (const FileSpec* file = first_spec(); file != end_spec(); ++file) {
        if (file->parent != directory.kind) continue;
        if (++at > cookie &&
            !visit(file->name, {directory.channel, file->kind}, file->directory, at)) {
            return {};
        }
    }
    if (!has_channels(directory.kind)) return {};
    std::uint64_t after = cookie < kFirstChannelCookie ? 0 : cookie - kFirstChannelCookie;
    registry_.list(directory.channel, after, [&](std::uint64_t id, std::string_view name) {
        return visit(name, {id, Kind::kChannel}, true, kFirstChannelCookie + id);
    });
    return {};
}

std::string Tree::text_of(Kind kind, const std::shared_ptr<Channel>& channel) const {
    switch (kind) {
        case Kind::kPeek: return peek_text(*channel);
        case Kind::kCtl: return channel::print(channel->settings());
        case Kind::kStatus:
            return status_text(*channel, system_.degraded ? system_.degraded() : std::string());
        case Kind::kStats: return stats_text(*channel);
        case Kind::kStatsMessages: return messages_text(registry_);
        case Kind::kStatsChannels: return channels_text(registry_);
        case Kind::kStatsNotifications: return notifications_text(registry_);
        case Kind::kStatsResources: return resources_text(ledger_, system_);
        case Kind::kConfig: return system_.config ? system_.config() : std::string();
        case Kind::kVersion: return system_.version ? system_.version() : std::string();
        default: return {};
    }
}

Result<std::shared_ptr<OpenFile>> Tree::open(NodeId node, OpenMode mode,
                                             const access::Subject& subject) {
    const FileSpec* spec = spec_of(node.kind);
    if (!spec || spec->directory) return Fault{EISDIR, "open"};
    if ((mode.reads && !spec->reads) || (mode.writes && !spec->writes)) {
        return Fault{
            EACCES, std::string(spec->name) + (spec->reads ? " is only read" : " is only written")};
    }
    std::shared_ptr<Channel> channel;
    if (node.channel != Registry::kRootId) {
        auto found = channel_of(node);
        if (!found) return found.error();
        channel = *found;
    }
    if (is_message_file(node.kind)) {
        auto file = MessageFile::open(channel, node.kind, mode, subject);
        if (!file) return file.error();
        return std::shared_ptr<OpenFile>(std::move(*file));
    }
    if (node.kind == Kind::kNotify) {
        auto file = NotifyFile::open(channel, mode, subject);
        if (!file) return file.error();
        return std::shared_ptr<OpenFile>(std::move(*file));
    }
    auto charge =
        access::Charge::take(ledger_.account(subject.uid), access::Resource::kOpenFiles, 1);
    if (!charge) return Fault{EDQUOT, "open: the user's limit of open files is reached"};
    TextFile::Take take;
    if (node.kind == Kind::kCtl) {
        take = [this, channel](std::string_view text, const access::Subject& by) {
            auto done = channel->control(text);
            if (!done) {
                log_.info("ctl of ", registry_.path(channel->id()), " by uid ", by.uid,
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
        std::move(*charge)));
}

}  // namespace ipcfs::tree
