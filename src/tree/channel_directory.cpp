// Directories of channels, and of a topic's subscriptions. Any thread.
#include <optional>
#include <sys/stat.h>
#include <vector>

#include <access/acl.hpp>
#include <tree/directory.hpp>
#include <tree/tree.hpp>

namespace ipcfs::tree {

using channel::Endpoint;
using channel::Role;

namespace {

// The root and the directories of channels: channels below each other.
class ChannelDirectory : public Directory {
public:
    explicit ChannelDirectory(Tree& tree, Role role = Role::kChannel)
        : Directory(tree), role_(role) {}

    Answer<NodeId> find(NodeId at, std::string_view name) override {
        const auto channel = child(at, name);
        if (!channel) return Directory::find(at, name);
        return NodeId{channel->id(), Kind::kChannel};
    }
    Answer<NodeId> make(NodeId at, std::string_view name, const NewChannel& made) override {
        const bool needs_groups = role_ == Role::kSubscription && made.groups;
        const access::Subject& subject = made.subject;
        const access::Identity who(subject.uid, subject.gid,
                                   needs_groups ? made.groups() : std::vector<gid_t>());
        if (auto refused = refusal(at, name, who)) return std::move(*refused);
        auto attributes = tree_.attributes_below(at, made, S_IFDIR);
        if (!attributes) return attributes.error();
        auto channel = tree_.registry().create(at.channel, name, std::move(*attributes),
                                               tree_.ledger().account(subject.uid), role_, who);
        if (!channel) return channel.error();
        announce(at, channel::EventKind::kCreated, **channel);
        tree_.log().debug("channel ", tree_.registry().path((*channel)->id()), " made by uid ",
                          subject.uid);
        return NodeId{(*channel)->id(), Kind::kChannel};
    }
    Answer<void> remove(NodeId at, std::string_view name) override {
        const auto channel = child(at, name);
        if (channel && !tree_.shares().empty(channel->id())) {
            return Fault{ENOTEMPTY, "rmdir: there are regions in share/"};
        }
        auto removed = tree_.registry().remove(at.channel, name, role_);
        if (removed && channel) {
            tree_.forget(channel->id());
            announce(at, channel::EventKind::kRemoved, *channel);
            tree_.log().debug("channel ", name, " removed");
        }
        return removed;
    }
    Answer<void> rename(NodeId at, std::string_view name, NodeId to, std::string_view to_name,
                        bool keep) override {
        if (auto refused = refusal(to, to_name)) return std::move(*refused);
        return tree_.registry().rename(at.channel, name, to.channel, to_name, keep, role_);
    }
    void list(NodeId at, std::uint64_t after, const Visit& visit) const override {
        const auto show = [&](std::uint64_t id, std::string_view name) {
            return visit(id, name, {id, Kind::kChannel});
        };
        tree_.registry().list(at.channel, after, show, role_);
    }
    std::uint64_t count_directories(NodeId at) const override {
        return tree_.registry().count_children(at.channel, role_);
    }

protected:
    // Why there can be no new channel of this name; none: there can.
    virtual std::optional<Fault> refusal(NodeId at, std::string_view name,
                                         const access::Identity&) const {
        if (tree_.shape(at) == kSubscriptionShape) return Fault{EPERM, "mkdir: no channels here"};
        if (is_reserved(at.kind == Kind::kRoot, name)) {
            return Fault{EEXIST, "mkdir: the name is reserved"};
        }
        return std::nullopt;
    }
    // The same for moving a channel there.
    virtual std::optional<Fault> refusal(NodeId to, std::string_view to_name) const {
        if (to.kind == Kind::kSubsDir) {
            return Fault{EXDEV, "rename: a subscription stays at its topic"};
        }
        if (!has_channels(to.kind) || tree_.shape(to) == kSubscriptionShape) {
            return Fault{EPERM, "rename: no channels here"};
        }
        if (is_reserved(to.kind == Kind::kRoot, to_name)) {
            return Fault{EEXIST, "rename: the name is reserved"};
        }
        return std::nullopt;
    }

private:
    ChannelPtr child(NodeId at, std::string_view name) const {
        return tree_.registry().child(at.channel, name, role_);
    }
    void announce(NodeId at, channel::EventKind what, const Endpoint& of) const {
        if (auto above = tree_.registry().find(at.channel)) above->announce(what, of.id());
    }

    const Role role_;
};

class SubsDirectory final : public ChannelDirectory {
public:
    explicit SubsDirectory(Tree& tree) : ChannelDirectory(tree, Role::kSubscription) {}

private:
    std::optional<Fault> refusal(NodeId at, std::string_view,
                                 const access::Identity& who) const override {
        if (tree_.permits({at.channel, Kind::kStream}, access::kRead, who)) return std::nullopt;
        return Fault{EACCES, "mkdir: a subscription is for who may read the topic's `stream`"};
    }
    std::optional<Fault> refusal(NodeId to, std::string_view) const override {
        if (to.kind == Kind::kSubsDir) return std::nullopt;
        return Fault{EXDEV, "rename: a subscription stays at its topic"};
    }
};

}  // namespace

std::shared_ptr<Directory> make_channel_directory(Tree& tree) {
    return std::make_shared<ChannelDirectory>(tree);
}

std::shared_ptr<Directory> make_subs_directory(Tree& tree) {
    return std::make_shared<SubsDirectory>(tree);
}

}  // namespace ipcfs::tree
