// Rights of callers for whom no kernel has checked them. Any thread.
#include <algorithm>
#include <sys/stat.h>

#include <access/guard.hpp>
#include <tree/attributes.hpp>
#include <tree/tree.hpp>

namespace ipcfs::tree {

using access::Identity;
using access::kRead, access::kSearch, access::kWrite;
using channel::Attributes;
using channel::Registry;

bool Tree::permits(NodeId node, unsigned want, const Identity& who) const {
    const mode_t type = is_directory(node.kind) ? S_IFDIR : S_IFREG;
    bool allowed = false;
    read_attributes(node, [&](const Attributes& attributes) {
        const auto acl = access_acl(attributes);
        allowed = access::permits(type | attributes.mode, attributes.uid, attributes.gid,
                                  acl ? &*acl : nullptr, who.uid, who.gid, who.groups, want);
    });
    return allowed;
}

Result<ChannelPtr> Tree::reach(std::string_view path, Kind file, unsigned want,
                               const Identity& who) const {
    NodeId at{Registry::kRootId, Kind::kRoot};
    ChannelPtr channel;
    while (true) {
        if (!permits(at, kSearch, who)) return Fault{EACCES, "no search permission"};
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
    if (row.parent != Kind::kChannel && !permits({channel->id(), row.parent}, kSearch, who)) {
        return Fault{EACCES, "no search permission"};
    }
    if (!permits(node, want, who)) {
        return Fault{EACCES, std::string(row.name) + ": permission denied"};
    }
    return channel;
}

// For a subscription of a topic above it: as if `stream` were opened by its path.
bool Tree::may_receive(std::uint64_t channel, const Identity& subscriber) const {
    if (!permits({channel, Kind::kStream}, kRead, subscriber)) return false;
    for (; channel != Registry::kRootId; channel = registry_.parent(channel)) {
        if (!permits({channel, Kind::kChannel}, kSearch, subscriber)) return false;
    }
    return permits({Registry::kRootId, Kind::kRoot}, kSearch, subscriber);
}

}  // namespace ipcfs::tree
