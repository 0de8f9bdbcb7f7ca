// Making, removing and renaming: channels, subscriptions, regions. Any thread.
#include <sys/stat.h>

#include <access/acl.hpp>
#include <tree/attributes.hpp>
#include <tree/tree.hpp>

namespace ipcfs::tree {

using access::kDefaultAcl;
using channel::Attributes;

namespace {

std::optional<Fault> too_long(std::string_view name) {
    if (name.size() <= kLongestName) return std::nullopt;
    return Fault{ENAMETOOLONG, "a name has at most 255 bytes"};
}

}  // namespace

Answer<NodeInfo> Tree::describe_found(const Answer<NodeId>& node) const {
    if (!node) return Answer<NodeInfo>::failed(node);
    return describe(*node);
}

Answer<NodeInfo> Tree::lookup(NodeId parent, std::string_view name) const {
    if (auto wrong = too_long(name)) return std::move(*wrong);
    const FileKind* row = file_kind(parent.kind, name);
    if (!row) return describe_found(directory(parent)->find(parent, name));
    if (!row->is_shown(shape(parent))) return Fault{ENOENT, "lookup"};
    return describe({parent.channel, row->kind});
}

Answer<NodeInfo> Tree::make_channel(NodeId parent, std::string_view name, const NewChannel& made) {
    if (auto wrong = too_long(name)) return std::move(*wrong);
    return describe_found(directory(parent)->make(parent, name, made));
}

Result<Attributes> Tree::attributes_below(NodeId parent, const NewChannel& made,
                                          mode_t type) const {
    const mode_t bits = S_ISDIR(type) ? 01777 : 0777;
    Attributes attributes;
    attributes.uid = made.subject.uid;
    attributes.gid = made.subject.gid;
    attributes.mode = made.mode & ~made.umask & bits;
    attributes.changed = registry_.environment().clock.realtime();
    const bool found = read_attributes(parent, [&](const Attributes& above) {
        if (auto defaults = default_acl(above)) {
            inherit_acl(attributes, *defaults, made.mode & bits);
            if (S_ISDIR(type))
                attributes.xattrs.emplace(kDefaultAcl, above.xattrs.find(kDefaultAcl)->second);
        }
        if (above.mode & S_ISGID) {
            attributes.gid = above.gid;
            if (S_ISDIR(type)) attributes.mode |= S_ISGID;
        }
    });
    if (!found) return Fault{ENOENT, "the parent is gone"};
    return attributes;
}

Answer<void> Tree::remove_channel(NodeId parent, std::string_view name) {
    if (file_kind(parent.kind, name)) return Fault{EPERM, "rmdir: part of the channel"};
    return directory(parent)->remove(parent, name);
}

Answer<void> Tree::rename(NodeId parent, std::string_view name, NodeId to_parent,
                          std::string_view to_name, bool keep) {
    if (file_kind(parent.kind, name)) return Fault{EPERM, "rename: part of the channel"};
    if (auto wrong = too_long(to_name)) return std::move(*wrong);
    return directory(parent)->rename(parent, name, to_parent, to_name, keep);
}

Answer<void> Tree::unlink(NodeId parent, std::string_view name) {
    return directory(parent)->unlink(parent, name);
}

Result<std::pair<NodeInfo, std::shared_ptr<OpenFile>>> Tree::create(NodeId parent,
                                                                    std::string_view name,
                                                                    OpenMode mode,
                                                                    const NewChannel& made) {
    if (auto wrong = too_long(name)) return std::move(*wrong);
    auto node = directory(parent)->create(parent, name, made);
    if (!node) return node.error();
    auto file = open(*node, mode, made.subject);
    if (!file) return file.error();
    auto info = describe(*node);
    if (!info) return info.error();
    return std::pair{*info, std::move(*file)};
}

}  // namespace ipcfs::tree
