// Rights for those who come without a kernel that checks them. Any thread.
#include <algorithm>
#include <sys/stat.h>

#include <access/acl.hpp>
#include <tree/tree.hpp>

namespace ipcfs::tree {

using access::kAccessAcl;
using channel::Attributes;
using channel::Endpoint;
using channel::Registry;

bool Tree::permits(NodeId node, unsigned want, uid_t uid, gid_t gid,
                   std::span<const gid_t> groups) const {
    const mode_t type = is_directory(node.kind) ? S_IFDIR : S_IFREG;
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

Result<std::shared_ptr<Endpoint>> Tree::reach(std::string_view path, Kind file, unsigned want,
                                              uid_t uid, gid_t gid,
                                              std::span<const gid_t> groups) const {
    using access::kRead, access::kSearch, access::kWrite;
    NodeId at{Registry::kRootId, Kind::kRoot};
    std::shared_ptr<Endpoint> channel;
    while (true) {
        if (!permits(at, kSearch, uid, gid, groups)) return Fault{EACCES, "no search permission"};
        path.remove_prefix(std::min(path.find_first_not_of('/'), path.size()));
        if (path.empty()) break;
        std::string_view name = path.substr(0, path.find('/'));
        path.remove_prefix(name.size());
        if (at.kind == Kind::kChannel && name == file_kind(Kind::kSubsDir)->name) {
            at.kind = Kind::kSubsDir;
            channel.reset();
            continue;
        }
        channel = registry_.child(
            at.channel, name,
            at.kind == Kind::kSubsDir ? channel::Role::kSubscription : channel::Role::kChannel);
        if (!channel) return Fault{ENOENT, "no such channel"};
        at = {channel->id(), Kind::kChannel};
    }
    if (!channel) return Fault{ENOENT, "a channel's path is expected"};
    NodeId node{channel->id(), file};
    const FileKind& row = *file_kind(file);
    const Shape now = shape_of(*channel);
    if (!row.is_shown(now)) {
        return Fault{ENOENT, std::string(row.name) + ": not in a channel of this type"};
    }
    if (((want & kRead) && !(row.reads & now)) ||
        ((want & kWrite) && !row.is_directory() && !(row.writes & now))) {
        return Fault{EACCES, std::string(row.name) + ": not in this direction"};
    }
    if (row.parent != Kind::kChannel &&
        !permits({channel->id(), row.parent}, kSearch, uid, gid, groups)) {
        return Fault{EACCES, "no search permission"};
    }
    if (!permits(node, want, uid, gid, groups)) {
        return Fault{EACCES, std::string(row.name) + ": permission denied"};
    }
    return channel;
}

// For a subscription of a topic above it: as if `stream` were opened by its path.
bool Tree::may_receive(std::uint64_t channel, const access::Identity& subscriber) const {
    using access::kRead, access::kSearch;
    auto may = [&](NodeId node, unsigned want) {
        return permits(node, want, subscriber.uid, subscriber.gid, subscriber.groups);
    };
    if (!may({channel, Kind::kStream}, kRead)) return false;
    while (channel != Registry::kRootId) {
        if (!may({channel, Kind::kChannel}, kSearch)) return false;
        channel = registry_.parent(channel);
    }
    return may({Registry::kRootId, Kind::kRoot}, kSearch);
}

}  // namespace ipcfs::tree
