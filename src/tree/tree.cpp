// Names, attributes and opening. Any thread. Extended attributes are in xattrs.cpp.
#include <algorithm>
#include <charconv>
#include <sys/stat.h>

#include <access/acl.hpp>
#include <tree/memory_file.hpp>
#include <tree/notify_file.hpp>
#include <tree/put_file.hpp>
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

bool is_put(Kind kind) {
    return kind == Kind::kPut || kind == Kind::kPutAside || kind == Kind::kFramedPut;
}

// The rights of those who may read, for reading (and searching) alone.
mode_t readable(mode_t mode, bool directory) {
    mode_t read = mode & 0444;
    return directory ? read | read >> 2 : read;
}

// `queue` as payload/ and what is in it show it: those who may read it may read (and search) here.
void derive_from_queue(Attributes& attributes, bool directory) {
    auto readable = [directory](std::uint8_t bits) {
        return static_cast<std::uint8_t>(tree::readable(bits, directory));
    };
    access::Acl acl = access::acl_of(attributes.mode);
    auto kept = attributes.xattrs.find(kAccessAcl);
    if (kept != attributes.xattrs.end()) {
        if (auto parsed = access::parse_acl(std::as_bytes(std::span(kept->second)))) acl = *parsed;
    }
    acl.owner = readable(acl.owner);
    acl.group = readable(acl.group);
    acl.other = readable(acl.other);
    for (auto* named : {&acl.users, &acl.groups}) {
        for (auto& each : *named) each.permissions = readable(each.permissions);
    }
    if (acl.mask) acl.mask = readable(*acl.mask);
    attributes.mode = access::mode_of(acl);
    attributes.xattrs.clear();
    if (access::is_minimal(acl)) return;
    auto bytes = access::serialize(acl);
    attributes.xattrs.emplace(
        kAccessAcl, std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

std::optional<std::uint64_t> payload_id(std::string_view name) {
    std::uint64_t id = 0;
    auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), id);
    if (error != std::errc() || end != name.data() + name.size() || name.front() == '0') {
        return std::nullopt;
    }
    return id;
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

Tree::Tree(Registry& registry, access::Ledger& ledger, payload::Store& payloads,
           payload::Worker& worker, Logger& log, System system)
    : registry_(registry),
      ledger_(ledger),
      payloads_(payloads),
      worker_(worker),
      shares_(ledger, registry.environment().clock, payloads),
      log_(log),
      system_(std::move(system)) {
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

std::uint64_t Tree::channel_id(NodeId node) const {
    if (node.kind == Kind::kPayload) {
        auto payload = payloads_.find(node.channel);
        return payload ? payload->channel : UINT64_MAX;
    }
    if (node.kind == Kind::kRegion) {
        auto region = shares_.find(node.channel);
        return region ? region->channel : UINT64_MAX;
    }
    return node.channel;
}

bool Tree::read_attributes(NodeId node, const std::function<void(const Attributes&)>& use) const {
    switch (node.kind) {
        case Kind::kRegion: return shares_.read(node.channel, use);
        case Kind::kPayload:
        case Kind::kPayloadDir:
            return registry_.read(channel_id(node), raw(Kind::kQueue), initial(Kind::kQueue),
                                  [&](const Attributes& queue) {
                                      Attributes derived = queue;
                                      derive_from_queue(derived, node.kind == Kind::kPayloadDir);
                                      use(derived);
                                  });
        case Kind::kPutAside: node.kind = Kind::kPut; break;
        default: break;
    }
    return registry_.read(node.channel, raw(node.kind), initial(node.kind), use);
}

bool Tree::change_attributes(NodeId node, const std::function<void(Attributes&)>& use) {
    if (node.kind == Kind::kRegion) return shares_.change(node.channel, use);
    if (node.kind == Kind::kPutAside) node.kind = Kind::kPut;
    return registry_.change(node.channel, raw(node.kind), initial(node.kind), use);
}

Result<std::shared_ptr<Channel>> Tree::channel_of(NodeId node) const {
    auto channel = registry_.find(channel_id(node));
    if (!channel || channel->removed()) return Fault{ESTALE, "the channel is gone"};
    return channel;
}

Result<NodeInfo> Tree::describe(NodeId node) const {
    const FileSpec* spec = spec_of(node.kind);
    NodeInfo info;
    info.id = node;
    info.inode = NodeId{node.channel, node.kind == Kind::kPutAside ? Kind::kPut : node.kind}.raw();
    bool directory = !spec || spec->directory;
    if (node.channel == Registry::kRootId && node.kind != Kind::kRoot) {
        if (!spec) return Fault{ESTALE, "no such file"};
        bool link = node.kind == Kind::kControl;
        info.mode = (directory ? S_IFDIR : link ? S_IFLNK : S_IFREG) | spec->mask;
        if (link) info.size = system_.control.size();
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
    bool found = read_attributes(node, [&](const Attributes& attributes) {
        info.mode = (directory ? S_IFDIR : S_IFREG) | attributes.mode;
        info.uid = attributes.uid;
        info.gid = attributes.gid;
        info.accessed = info.modified = info.changed = attributes.changed;
    });
    if (!found) return Fault{ESTALE, "the channel is gone"};
    info.transient = node.kind == Kind::kPayloadDir || node.kind == Kind::kPayload ||
                     node.kind == Kind::kRegion || node.kind == Kind::kPutAside;
    if (node.kind == Kind::kPayload) {
        auto payload = payloads_.find(node.channel);
        if (!payload) return Fault{ESTALE, "the payload is gone"};
        info.size = payload->size;
        return info;
    }
    if (node.kind == Kind::kRegion) {
        auto region = shares_.find(node.channel);
        if (!region) return Fault{ESTALE, "the region is gone"};
        info.size = region->size();
        info.accessed = info.modified = region->modified();
        return info;
    }
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
    if (parent.kind == Kind::kPayloadDir) {
        auto id = payload_id(name);
        auto payload = id ? payloads_.find(*id) : nullptr;
        bool listed =
            payload && payload->channel == parent.channel &&
            (payload->kind == PayloadKind::kSealed || payload->kind == PayloadKind::kPooled);
        if (!listed) return Fault{ENOENT, "lookup"};
        return describe({*id, Kind::kPayload});
    }
    if (parent.kind == Kind::kShareDir) {
        auto region = shares_.find(parent.channel, name);
        if (!region) return Fault{ENOENT, "lookup"};
        return describe({region->id, Kind::kRegion});
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
    if (node.kind == Kind::kPayload) return {channel_id(node), Kind::kPayloadDir};
    if (node.kind == Kind::kRegion) return {channel_id(node), Kind::kShareDir};
    if (node.kind == Kind::kPutAside) node.kind = Kind::kPut;
    if (const FileSpec* spec = spec_of(node.kind)) return {node.channel, spec->parent};
    std::uint64_t above = registry_.parent(node.channel);
    return {above, above == Registry::kRootId ? Kind::kRoot : Kind::kChannel};
}

Result<NodeInfo> Tree::change(NodeId node, const Change& change) {
    bool system = node.channel == Registry::kRootId && node.kind != Kind::kRoot;
    if (change.size && node.kind == Kind::kRegion) {
        auto region = shares_.find(node.channel);
        auto channel = channel_of(node);
        if (!region || !channel) return Fault{ESTALE, "the region is gone"};
        auto sized = shares_.resize(*region, *change.size, (*channel)->settings().max_payload);
        if (!sized) {
            (*channel)->note_error(sized.error().operation);
            return sized.error();
        }
    } else if (change.size && node.kind == Kind::kPayload) {
        return Fault{EROFS, "truncate: a sealed payload"};
    } else if (change.size && *change.size != 0 && !is_put(node.kind)) {
        return Fault{EINVAL, "truncate: message files have size 0"};
    }
    if (change.mode || change.uid || change.gid) {
        if (system) return Fault{EPERM, "the system's files keep their owner and mode"};
        if (node.kind == Kind::kPayload || node.kind == Kind::kPayloadDir) {
            // What `queue` gives them already may be asked for: chmod -R of a channel goes through.
            auto now = describe(node);
            if (!now) return now;
            bool other =
                (change.uid && *change.uid != now->uid) ||
                (change.gid && *change.gid != now->gid) ||
                (change.mode && readable(*change.mode, S_ISDIR(now->mode)) != (now->mode & 07777));
            if (other) return Fault{EPERM, "payloads follow the rights of `queue`"};
            return now;
        }
        const FileSpec* spec = spec_of(node.kind);
        mode_t bits = !spec || spec->directory ? 07777 : 0777;
        bool found = change_attributes(node, [&](Attributes& attributes) {
            if (change.uid) attributes.uid = *change.uid;
            if (change.gid) attributes.gid = *change.gid;
            if (change.mode) {
                attributes.mode = *change.mode & bits;
                auto acl = attributes.xattrs.find(kAccessAcl);
                if (acl != attributes.xattrs.end()) {
                    auto parsed = access::parse_acl(std::as_bytes(std::span(acl->second)));
                    if (parsed) {
                        auto bytes = access::serialize(access::with_mode(*parsed, attributes.mode));
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
    if (channel && !shares_.empty(channel->id())) {
        return Fault{ENOTEMPTY, "rmdir: there are regions in share/"};
    }
    auto removed = registry_.remove(parent.channel, name);
    if (removed && channel) {
        shares_.forget(channel->id());
        if (auto above = registry_.find(parent.channel)) {
            above->announce(channel::EventKind::kRemoved, channel->id());
        }
        log_.debug("channel ", name, " removed");
    }
    return removed;
}

Result<void> Tree::rename(NodeId parent, std::string_view name, NodeId to_parent,
                          std::string_view to_name, bool keep) {
    if (parent == to_parent && parent.kind == Kind::kShareDir) {
        if (to_name.size() > kLongestName) return Fault{ENAMETOOLONG, "rename"};
        return shares_.rename(parent.channel, name, to_name, keep);
    }
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
    if (directory.channel != Registry::kRootId && !registry_.find(directory.channel)) {
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
    std::uint64_t after = cookie < kFirstChannelCookie ? 0 : cookie - kFirstChannelCookie;
    if (directory.kind == Kind::kPayloadDir) {
        for (std::uint64_t id : payloads_.list(directory.channel, after)) {
            if (!visit(std::to_string(id), {id, Kind::kPayload}, false, kFirstChannelCookie + id)) {
                return {};
            }
        }
    }
    if (directory.kind == Kind::kShareDir) {
        shares_.list(directory.channel, after, [&](std::uint64_t id, std::string_view name) {
            return visit(name, {id, Kind::kRegion}, false, kFirstChannelCookie + id);
        });
    }
    if (!has_channels(directory.kind)) return {};
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

// ---- shared regions -----------------------------------------------------------------------------

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

Result<std::pair<NodeInfo, std::shared_ptr<OpenFile>>> Tree::create(NodeId parent,
                                                                    std::string_view name,
                                                                    OpenMode mode, bool exclusive,
                                                                    const NewChannel& made) {
    if (parent.kind != Kind::kShareDir)
        return Fault{EPERM, "create: files are made in share/ only"};
    if (name.size() > kLongestName) return Fault{ENAMETOOLONG, "create"};
    auto channel = channel_of(parent);
    if (!channel) return channel.error();
    Attributes attributes;
    attributes.uid = made.subject.uid;
    attributes.gid = made.subject.gid;
    attributes.mode = made.mode & ~made.umask & 0777;
    attributes.changed = registry_.environment().clock.realtime();
    read_attributes(parent, [&](const Attributes& above) {
        if (auto defaults = default_acl(above))
            inherit_acl(attributes, *defaults, made.mode & 0777);
        if (above.mode & S_ISGID) attributes.gid = above.gid;
    });
    auto region = shares_.create(parent.channel, name, std::move(attributes));
    if (!region && region.error().code == EEXIST && !exclusive) {
        if (auto there = shares_.find(parent.channel, name)) region = std::move(there);
    }
    if (!region) return region.error();
    auto file = open_region(*region, mode, made.subject);
    if (!file) return file.error();
    auto info = describe({(*region)->id, Kind::kRegion});
    if (!info) return info.error();
    return std::pair{*info, std::move(*file)};
}

Result<void> Tree::unlink(NodeId parent, std::string_view name) {
    if (parent.kind != Kind::kShareDir) return Fault{EPERM, "unlink: only regions of share/"};
    return shares_.unlink(parent.channel, name);
}

Result<std::string> Tree::read_link(NodeId node) const {
    if (node.kind != Kind::kControl) return Fault{EINVAL, "readlink"};
    return system_.control;
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

// ---- access from outside the kernel -------------------------------------------------------------

bool Tree::permits(NodeId node, unsigned want, uid_t uid, gid_t gid,
                   std::span<const gid_t> groups) const {
    const FileSpec* spec = spec_of(node.kind);
    mode_t type = !spec || spec->directory ? S_IFDIR : S_IFREG;
    bool allowed = false;
    read_attributes(node, [&](const Attributes& attributes) {
        std::optional<access::Acl> acl;
        auto kept = attributes.xattrs.find(kAccessAcl);
        if (kept != attributes.xattrs.end()) {
            if (auto parsed = access::parse_acl(std::as_bytes(std::span(kept->second))))
                acl = *parsed;
        }
        allowed = access::permits(type | attributes.mode, attributes.uid, attributes.gid,
                                  acl ? &*acl : nullptr, uid, gid, groups, want);
    });
    return allowed;
}

Result<std::shared_ptr<Channel>> Tree::reach(std::string_view path, Kind file, unsigned want,
                                             uid_t uid, gid_t gid,
                                             std::span<const gid_t> groups) const {
    constexpr unsigned kSearch = 1;
    NodeId at{Registry::kRootId, Kind::kRoot};
    std::shared_ptr<Channel> channel;
    while (true) {
        if (!permits(at, kSearch, uid, gid, groups)) return Fault{EACCES, "no search permission"};
        path.remove_prefix(std::min(path.find_first_not_of('/'), path.size()));
        if (path.empty()) break;
        std::string_view name = path.substr(0, path.find('/'));
        path.remove_prefix(name.size());
        channel = registry_.child(at.channel, name);
        if (!channel) return Fault{ENOENT, "no such channel"};
        at = {channel->id(), Kind::kChannel};
    }
    if (!channel) return Fault{ENOENT, "a channel's path is expected"};
    NodeId node{channel->id(), file};
    const FileSpec* spec = spec_of(file);
    if (spec && spec->parent != Kind::kChannel &&
        !permits({channel->id(), spec->parent}, kSearch, uid, gid, groups)) {
        return Fault{EACCES, "no search permission"};
    }
    if (!permits(node, want, uid, gid, groups)) {
        return Fault{EACCES, std::string(spec ? spec->name : "channel") + ": permission denied"};
    }
    return channel;
}

// ---- opening ------------------------------------------------------------------------------------

Result<std::shared_ptr<OpenFile>> Tree::open(NodeId node, OpenMode mode,
                                             const access::Subject& subject) {
    const FileSpec* spec = spec_of(node.kind);
    if (!spec || spec->directory) return Fault{EISDIR, "open"};
    if (node.kind == Kind::kPayload && mode.writes) return Fault{EROFS, "open: a sealed payload"};
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
    auto charge =
        access::Charge::take(ledger_.account(subject.uid), access::Resource::kOpenFiles, 1);
    if (!charge) return Fault{EDQUOT, "open: the user's limit of open files is reached"};
    TextFile::Take take;
    if (node.kind == Kind::kCtl) {
        take = [this, channel](std::string_view text, const access::Subject& by) {
            Result<void> done;
            auto names = revocations(*channel, text);
            if (!names) {
                done = names.error();
                channel->note_error(done.error().operation);
            } else {
                done = channel->control(text);
            }
            for (std::size_t i = 0; done && i < names->size(); ++i) {
                done = shares_.revoke(channel->id(), (*names)[i]);
                log_.info("share/", (*names)[i], " of ", registry_.path(channel->id()),
                          " revoked by uid ", by.uid);
            }
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
        std::move(*charge), node.kind == Kind::kCtl ? &worker_ : nullptr));
}

}  // namespace ipcfs::tree
