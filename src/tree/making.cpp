// What comes and goes by name: channels, subscriptions, regions. Any thread.
#include <sys/stat.h>

#include <access/acl.hpp>
#include <tree/attributes.hpp>
#include <tree/memory_file.hpp>
#include <tree/tree.hpp>

namespace ipcfs::tree {

using access::kDefaultAcl;
using channel::Attributes;

namespace {

channel::Role role_in(NodeId parent) {
    return parent.kind == Kind::kSubsDir ? channel::Role::kSubscription : channel::Role::kChannel;
}

}  // namespace

Result<NodeInfo> Tree::make_channel(NodeId parent, std::string_view name, const NewChannel& made) {
    const bool subscribes = parent.kind == Kind::kSubsDir;
    if (!subscribes && (!has_channels(parent.kind) || shape(parent) == kSubscriptionShape)) {
        return Fault{EPERM, "mkdir: no channels here"};
    }
    if (name.size() > kLongestName) return Fault{ENAMETOOLONG, "mkdir"};
    if (!subscribes && is_reserved(parent.kind == Kind::kRoot, name)) {
        return Fault{EEXIST, "mkdir: the name is reserved"};
    }
    const auto groups = subscribes && made.groups ? made.groups() : std::vector<gid_t>();
    if (subscribes && !permits({parent.channel, Kind::kStream}, access::kRead, made.subject.uid,
                               made.subject.gid, groups)) {
        return Fault{EACCES, "mkdir: a subscription is for who may read the topic's `stream`"};
    }
    Attributes attributes;
    attributes.uid = made.subject.uid;
    attributes.gid = made.subject.gid;
    attributes.mode = made.mode & ~made.umask & 01777;
    attributes.changed = registry_.environment().clock.realtime();
    bool found = read_attributes(parent, [&](const Attributes& above) {
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
                                    ledger_.account(made.subject.uid), role_in(parent),
                                    access::Identity(made.subject.uid, made.subject.gid, groups));
    if (!channel) return channel.error();
    if (auto above = registry_.find(parent.channel)) {
        above->announce(channel::EventKind::kCreated, (*channel)->id());
    }
    log_.debug(subscribes ? "subscription " : "channel ", registry_.path((*channel)->id()),
               " made by uid ", made.subject.uid);
    return describe({(*channel)->id(), Kind::kChannel});
}

Result<void> Tree::remove_channel(NodeId parent, std::string_view name) {
    if (file_kind(parent.kind, name)) return Fault{EPERM, "rmdir: part of the channel"};
    if (!has_channels(parent.kind) && parent.kind != Kind::kSubsDir) {
        return Fault{EPERM, "rmdir: no channels here"};
    }
    auto channel = child(parent, name);
    if (channel && !shares_.empty(channel->id())) {
        return Fault{ENOTEMPTY, "rmdir: there are regions in share/"};
    }
    auto removed = registry_.remove(parent.channel, name, role_in(parent));
    if (removed && channel) {
        forget(channel->id());
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
    const bool subscription = parent.kind == Kind::kSubsDir;
    if (subscription != (to_parent.kind == Kind::kSubsDir)) {
        return Fault{EXDEV, "rename: a subscription stays at its topic"};
    }
    if (!subscription && (!has_channels(parent.kind) || !has_channels(to_parent.kind) ||
                          shape(to_parent) == kSubscriptionShape)) {
        return Fault{EPERM, "rename: no channels here"};
    }
    if (file_kind(parent.kind, name)) return Fault{EPERM, "rename: part of the channel"};
    if (to_name.size() > kLongestName) return Fault{ENAMETOOLONG, "rename"};
    if (!subscription && is_reserved(to_parent.kind == Kind::kRoot, to_name)) {
        return Fault{EEXIST, "rename: the name is reserved"};
    }
    return registry_.rename(parent.channel, name, to_parent.channel, to_name, keep,
                            role_in(parent));
}

Result<std::pair<NodeInfo, std::shared_ptr<OpenFile>>> Tree::create(NodeId parent,
                                                                    std::string_view name,
                                                                    OpenMode mode,
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
    if (!region) return region.error();
    const NodeId node{(*region)->id, Kind::kRegion};
    auto file = open(node, mode, made.subject);
    if (!file) return file.error();
    auto info = describe(node);
    if (!info) return info.error();
    return std::pair{*info, std::move(*file)};
}

Result<void> Tree::unlink(NodeId parent, std::string_view name) {
    if (parent.kind != Kind::kShareDir) return Fault{EPERM, "unlink: only regions of share/"};
    return shares_.unlink(parent.channel, name);
}

}  // namespace ipcfs::tree
