// The tree: which files there are and what is done to each, for every door alike. A door translates
// its requests into these calls and their faults into its errors; it knows no queue. Permissions of
// path look-up and open are checked by the door's kernel (default_permissions); what is not theirs to
// check (a setting through an xattr, write access to read-only files) is checked here. Any thread.
#pragma once

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <payload/payload.hpp>

#include <access/account.hpp>
#include <access/subject.hpp>
#include <base/executor.hpp>
#include <base/guarded.hpp>
#include <base/log.hpp>
#include <base/result.hpp>
#include <channel/registry.hpp>
#include <insight/table.hpp>
#include <tree/directory.hpp>
#include <tree/file_kind.hpp>
#include <tree/node.hpp>
#include <tree/open_file.hpp>
#include <tree/shares.hpp>

namespace ipcfs::tree {

// What the tree asks of the daemon for the files under kern/ipc.
struct System {
    std::function<std::string()> version;  // `key value` lines
    std::function<std::string()> config;
    std::function<Result<void>(std::string_view)> set_config;
    // More rows of stats/resources: scope, id, resource, used, limit.
    std::function<void(insight::Table&)> resources;
    std::string control;  // where the control socket is
    // What every channel's `status` should say of the daemon being short of something; empty: nothing.
    std::function<std::string()> degraded;
    uid_t uid = 0;  // who owns the root and kern/
    gid_t gid = 0;
};

// What setattr(2) and its kin change.
struct Change {
    std::optional<mode_t> mode;
    std::optional<uid_t> uid;
    std::optional<gid_t> gid;
    std::optional<std::uint64_t> size;
};

struct NewChannel {
    mode_t mode = 0777;
    mode_t umask = 022;
    access::Subject subject;
    // Supplementary ones; asked where they matter.
    std::function<std::vector<gid_t>()> groups = {};
};

class Tree {
public:
    Tree(channel::Registry& registry, access::Ledger& ledger, payload::Store& payloads,
         Executor& worker, Logger& log, System system);

    // What is done with the names in a directory of this kind.
    std::shared_ptr<Directory> directory(NodeId node) const noexcept;

    // ENOENT, ESTALE (the channel is gone).
    Answer<NodeInfo> lookup(NodeId parent, std::string_view name) const;
    // A channel, or in subs/ a subscription. EEXIST also for reserved names, EPERM below kern/ and in a
    // subscription, EDQUOT, ENAMETOOLONG; EACCES for a subscription by who may not read `stream`.
    Answer<NodeInfo> make_channel(NodeId parent, std::string_view name, const NewChannel& made);
    Answer<void> remove_channel(NodeId parent, std::string_view name);
    Answer<void> rename(NodeId parent, std::string_view name, NodeId to_parent,
                        std::string_view to_name, bool keep);
    Answer<void> unlink(NodeId parent, std::string_view name);
    // A region below share/, opened at once. EEXIST.
    Result<std::pair<NodeInfo, std::shared_ptr<OpenFile>>> create(NodeId parent,
                                                                  std::string_view name,
                                                                  OpenMode mode,
                                                                  const NewChannel& made);

    Result<NodeInfo> stat(NodeId node) const;
    Result<NodeInfo> change(NodeId node, const Change& change);
    Result<std::string> read_link(NodeId node) const;

    // The channel at `path` below the mount, with the rights checked that open(2) would check: search on
    // every directory, and `want` (r 4, w 2) on its file `file`. ENOENT, EACCES.
    Result<ChannelPtr> reach(std::string_view path, Kind file, unsigned want,
                             const access::Identity& who) const;
    // The last step of that alone.
    bool permits(NodeId node, unsigned want, const access::Identity& who) const;

    // Whether the client's kernel may cache the entries of a directory.
    enum class Listing : std::uint8_t {
        kKept,
        kOutdated,   // it may, but what it has may be old
        kNeverKept,  // they change without that kernel's knowledge
    };
    Listing listing(NodeId directory);
    // Called with a channel whose type changed and the paths of files below it that it no longer shows:
    // the kernels of clients must drop these names. `at_once`: before it returns, if that does not take
    // long; not on a thread of the door. Set before use.
    using TypeChanged = std::function<void(const ChannelPtr& channel,
                                           const std::vector<std::string>& hidden, bool at_once)>;
    void on_type_changed(TypeChanged call) { type_changed_ = std::move(call); }

    // Entries of a directory after `cookie` (0: from the start) until `visit` returns false. `visit`
    // is given the cookie of the entry; it copies, and calls nothing.
    using Visit =
        std::function<bool(std::string_view name, NodeId node, mode_t type, std::uint64_t cookie)>;
    Result<void> list(NodeId directory, std::uint64_t cookie, const Visit& visit) const;
    NodeId parent(NodeId node) const;

    // ENODATA, ENOTSUP, E2BIG, EDQUOT; EPERM for a setting by another than the owner.
    Result<std::string> get_xattr(NodeId node, std::string_view name) const;
    Result<std::vector<std::string>> list_xattrs(NodeId node) const;
    Result<void> set_xattr(NodeId node, std::string_view name, std::string_view value, bool create,
                           bool replace, const access::Subject& subject);
    Result<void> remove_xattr(NodeId node, std::string_view name);

    // EACCES where the file is not of that direction, EPIPE, EDQUOT. The file may still have to pass
    // its gate (OpenFile::try_gate).
    Result<std::shared_ptr<OpenFile>> open(NodeId node, OpenMode mode,
                                           const access::Subject& subject);

    // For directories and files:
    Shape shape(NodeId node) const;  // 0: the node is gone
    // What a new file or directory (S_IFREG, S_IFDIR) gets. ENOENT.
    Result<channel::Attributes> attributes_below(NodeId parent, const NewChannel& made,
                                                 mode_t type) const;
    void forget(std::uint64_t channel);  // which is gone
    // As Endpoint::control, and reports a new type.
    Result<void> control(const ChannelPtr& channel, std::string_view text, bool at_once);
    // Attributes of whatever kind of node. False: it is gone.
    bool read_attributes(NodeId node,
                         const std::function<void(const channel::Attributes&)>& use) const;

    // The number of channels, for statfs(2).
    std::size_t channels() const { return registry_.size(); }
    channel::Registry& registry() noexcept { return registry_; }
    access::Ledger& ledger() noexcept { return ledger_; }
    Shares& shares() noexcept { return shares_; }
    payload::Store& payloads() noexcept { return payloads_; }
    Executor& worker() noexcept { return worker_; }
    const System& system() const noexcept { return system_; }
    Logger& log() noexcept { return log_; }

private:
    static channel::Registry::Initial initial(Kind kind);
    // Below kern/: its rights are fixed.
    static bool is_system(NodeId node) noexcept {
        return node.channel == channel::Registry::kRootId && node.kind != Kind::kRoot;
    }
    bool hidden(NodeId node) const;
    Answer<NodeInfo> describe_found(const Answer<NodeId>& node) const;
    bool read_payload_attributes(std::uint64_t id, bool directory,
                                 const std::function<void(const channel::Attributes&)>& use) const;
    bool change_attributes(NodeId node, const std::function<void(channel::Attributes&)>& use);
    Directory* keeper(NodeId node) const noexcept;
    std::uint64_t channel_id(NodeId node) const;  // UINT64_MAX: the node is gone
    bool may_receive(std::uint64_t channel, const access::Identity& subscriber) const;
    Result<ChannelPtr> channel_of(NodeId node) const;
    Result<NodeInfo> describe(NodeId node) const;
    Result<void> truncate(NodeId node, Length length, std::uint64_t size);
    Result<void> set_setting(NodeId node, std::string_view key, std::string_view value,
                             const access::Subject& subject);
    Result<void> set_acl(NodeId node, std::string_view name, std::string_view value);

    channel::Registry& registry_;
    access::Ledger& ledger_;
    payload::Store& payloads_;
    Executor& worker_;
    Shares shares_;
    std::array<std::shared_ptr<Directory>, 256> directories_;  // by kind
    Logger& log_;
    System system_;
    TypeChanged type_changed_;
    // Directories by when they changed by a new type.
    Guarded<std::map<std::uint64_t, Nanos>> relisted_;
};

}  // namespace ipcfs::tree
