// Extended attributes: settings as user.ipcfs.*, ACLs, and whatever else users keep. Any thread.
#include <algorithm>

#include <access/guard.hpp>
#include <tree/tree.hpp>

namespace ipcfs::tree {

using access::kAccessAcl;
using access::kDefaultAcl;
using channel::Attributes;
using channel::Registry;

namespace {

constexpr std::string_view kSettings = "user.ipcfs.";
constexpr std::string_view kUser = "user.";
constexpr std::size_t kMostUserBytes = 65536;  // of names and values, a file

bool is_acl(std::string_view name) {
    return name == kDefaultAcl || name == kAccessAcl;
}

// Payloads have the rights of `queue` and no attributes of their own.
bool follows_queue(NodeId node) {
    const FileKind* row = file_kind(node.kind);
    return row && row->rights == Rights::kQueue;
}

// Of all attributes of one file; charged to its owner.
std::size_t user_bytes(const Attributes& attributes) {
    std::size_t bytes = 0;
    for (const auto& [name, value] : attributes.xattrs) bytes += name.size() + value.size();
    return bytes;
}

}  // namespace

Result<std::string> Tree::get_xattr(NodeId node, std::string_view name) const {
    if (name.starts_with(kSettings) && node.channel != Registry::kRootId) {
        auto channel = channel_of(node);
        if (!channel) return channel.error();
        std::string value = channel::get((*channel)->settings(), name.substr(kSettings.size()));
        if (value.empty()) return Fault{ENODATA, "getxattr: no such setting"};
        return value;
    }
    if (!name.starts_with(kUser) && !is_acl(name)) return Fault{ENODATA, "getxattr"};
    if (is_system(node)) return Fault{ENODATA, "getxattr"};
    std::optional<std::string> value;
    bool found = read_attributes(node, [&](const Attributes& attributes) {
        auto at = attributes.xattrs.find(name);
        if (at != attributes.xattrs.end()) value = at->second;
    });
    if (!found) return Fault{ESTALE, "getxattr: the channel is gone"};
    if (!value) return Fault{ENODATA, "getxattr"};
    return *value;
}

Result<std::vector<std::string>> Tree::list_xattrs(NodeId node) const {
    std::vector<std::string> names;
    if (is_system(node)) return names;
    if (node.kind == Kind::kChannel) {
        for (const channel::SettingRow& row : channel::setting_rows()) {
            names.push_back(std::string(kSettings).append(row.key));
        }
    }
    bool found = read_attributes(node, [&](const Attributes& attributes) {
        for (const auto& each : attributes.xattrs) names.push_back(each.first);
    });
    if (!found) return Fault{ESTALE, "listxattr: the channel is gone"};
    return names;
}

Result<void> Tree::set_setting(NodeId node, std::string_view key, std::string_view value,
                               const access::Subject& subject) {
    auto channel = channel_of(node);
    if (!channel) return channel.error();
    uid_t owner = 0;
    read_attributes({(*channel)->id(), Kind::kChannel},
                    [&](const Attributes& attributes) { owner = attributes.uid; });
    if (!access::may_change_settings(owner, subject.uid)) {
        return Fault{EPERM, "setxattr: settings are the owner's"};
    }
    if (channel::get((*channel)->settings(), key).empty() ||
        value.find_first_of("\n#") != std::string_view::npos) {
        (*channel)->note_error("xattr: no such setting, or a bad value");
        return Fault{EINVAL, "setxattr: no such setting"};
    }
    // Not at once: the caller's kernel holds locks that forgetting old names may have to wait for.
    return control(*channel, std::string(key).append(" ").append(value), false);
}

Result<void> Tree::set_acl(NodeId node, std::string_view name, std::string_view value) {
    if (name == kDefaultAcl && !is_directory(node.kind))
        return Fault{EACCES, "setxattr: no directory"};
    std::optional<access::Acl> acl;
    if (value.size() > 4) {
        auto parsed = access::parse_acl(std::as_bytes(std::span(value)));
        if (!parsed) return parsed.error();
        acl = *parsed;
    }
    bool found = change_attributes(node, [&](Attributes& attributes) {
        if (acl && name == kAccessAcl) {
            attributes.mode = (attributes.mode & 07000) | access::mode_of(*acl);
        }
        if (!acl || (name == kAccessAcl && access::is_minimal(*acl))) {
            auto at = attributes.xattrs.find(name);
            if (at != attributes.xattrs.end()) attributes.xattrs.erase(at);
        } else {
            attributes.xattrs.insert_or_assign(std::string(name), std::string(value));
        }
        attributes.changed = registry_.environment().clock.realtime();
    });
    if (!found) return Fault{ESTALE, "setxattr: the channel is gone"};
    return {};
}

Result<void> Tree::set_xattr(NodeId node, std::string_view name, std::string_view value,
                             bool create, bool replace, const access::Subject& subject) {
    if (is_system(node)) return Fault{EPERM, "setxattr: a file of the system"};
    if (name.starts_with(kSettings)) {
        if (node.channel == Registry::kRootId) return Fault{ENOTSUP, "setxattr: no channel"};
        if (create) return Fault{EEXIST, "setxattr: settings are always there"};
        return set_setting(node, name.substr(kSettings.size()), value, subject);
    }
    if (follows_queue(node)) return Fault{EPERM, "setxattr: payloads follow `queue`"};
    if (is_acl(name)) return set_acl(node, name, value);
    if (!name.starts_with(kUser)) return Fault{ENOTSUP, "setxattr"};
    Result<void> done;
    bool found = change_attributes(node, [&](Attributes& attributes) {
        auto at = attributes.xattrs.find(name);
        const bool is_there = at != attributes.xattrs.end();
        const std::size_t before = is_there ? name.size() + at->second.size() : 0;
        const std::size_t bytes = user_bytes(attributes) - before + name.size() + value.size();
        if (is_there && create) {
            done = Fault{EEXIST, "setxattr"};
        } else if (!is_there && replace) {
            done = Fault{ENODATA, "setxattr"};
        } else if (bytes > kMostUserBytes) {
            done = Fault{ENOSPC, "setxattr: 64 KiB a file at most"};
        } else if (auto charge = access::Charge::take(ledger_.account(attributes.uid),
                                                      access::Resource::kBytes, bytes);
                   !charge) {
            done = Fault{EDQUOT, "setxattr: the owner's limit of bytes is reached"};
        } else {
            attributes.held = std::make_shared<access::Charge>(std::move(*charge));
            attributes.xattrs.insert_or_assign(std::string(name), std::string(value));
            attributes.changed = registry_.environment().clock.realtime();
        }
    });
    if (!found) return Fault{ESTALE, "setxattr: the channel is gone"};
    return done;
}

Result<void> Tree::remove_xattr(NodeId node, std::string_view name) {
    if (name.starts_with(kSettings)) return Fault{EPERM, "removexattr: settings are always there"};
    if (is_system(node)) return Fault{EPERM, "removexattr: a file of the system"};
    if (follows_queue(node)) return Fault{EPERM, "removexattr: payloads follow `queue`"};
    if (is_acl(name)) return set_acl(node, name, {});
    Result<void> done;
    bool found = change_attributes(node, [&](Attributes& attributes) {
        auto at = attributes.xattrs.find(name);
        if (at == attributes.xattrs.end()) {
            done = Fault{ENODATA, "removexattr"};
            return;
        }
        attributes.xattrs.erase(at);
        attributes.held = std::make_shared<access::Charge>(access::Charge::force(
            ledger_.account(attributes.uid), access::Resource::kBytes, user_bytes(attributes)));
    });
    if (!found) return Fault{ESTALE, "removexattr: the channel is gone"};
    return done;
}

}  // namespace ipcfs::tree
