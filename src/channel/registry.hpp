// All channels by id, by name and by path, with what a file system keeps of each: owner, mode, ACLs,
// extended attributes. May change while it is iterated: ids only grow, and iteration goes by id. One
// shared lock over names and attributes. Channels are called without it, but for their settings (a record that
// goes to the store has them). Any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <unordered_map>
#include <vector>

#include <access/account.hpp>
#include <channel/channel.hpp>

namespace ipcfs::channel {

// What stat(2) tells of one file or directory, and its extended attributes.
struct Attributes {
    uid_t uid = 0;
    gid_t gid = 0;
    mode_t mode = 0;  // permission bits, with set-group-id and sticky
    Nanos changed = 0;
    std::map<std::string, std::string, std::less<>> xattrs;  // ACLs too, as the kernel passes them
    std::shared_ptr<access::Charge> held;                    // what the owner is charged for them
};

struct ChannelRecord;

class Registry {
public:
    // `prefix` bytes of every path are taken by the mount point.
    Registry(Environment& environment, const Settings& defaults, std::size_t prefix);
    ~Registry();

    static constexpr std::uint64_t kRootId = 0;

    // Makes a channel. EEXIST, ENOENT (no such parent), EDQUOT, ENAMETOOLONG (the path would pass
    // 4,000 bytes). Role subscription: a named subscription of the topic `parent` (ENOTDIR if it is
    // none), with a name space of its own, listed apart from channels; its messages are charged to
    // `owner`. A recursive one gets what `subscriber` may read (none: uid and gid of `attributes`).
    Result<std::shared_ptr<Channel>> create(std::uint64_t parent, std::string_view name,
                                            Attributes attributes, access::Account& owner,
                                            Role role = Role::kChannel,
                                            std::optional<access::Identity> subscriber = {});
    // ENOENT; ENOTEMPTY while messages, sub-channels or named subscriptions are there.
    Result<void> remove(std::uint64_t parent, std::string_view name, Role role = Role::kChannel);
    // As rename(2) does with directories: an empty channel in the way is replaced, unless `keep`
    // (EEXIST). EINVAL into itself. A subscription stays at its topic (EXDEV).
    Result<void> rename(std::uint64_t parent, std::string_view name, std::uint64_t to_parent,
                        std::string_view to_name, bool keep, Role role = Role::kChannel);

    // Null when there is none. By id: of any role.
    std::shared_ptr<Channel> find(std::uint64_t id) const;
    std::shared_ptr<Channel> child(std::uint64_t parent, std::string_view name,
                                   Role role = Role::kChannel) const;
    // By path below the mount, "a/b" or "topic/subs/name", without leading slash.
    std::shared_ptr<Channel> find_path(std::string_view path) const;

    // Path below the mount; empty for the root and for a channel that is gone.
    std::string path(std::uint64_t id) const;
    std::uint64_t parent(std::uint64_t id) const;
    // The channels above one, nearest first, each with the path from it to that one.
    std::vector<std::pair<std::shared_ptr<Channel>, std::string>> above(std::uint64_t id) const;
    std::size_t count_children(std::uint64_t id, Role role = Role::kChannel) const;
    std::size_t size() const;

    // Children with an id above `after`, in order of id, until `visit` returns false. `visit` runs
    // under the lock: it copies, and calls nothing.
    using Visit = std::function<bool(std::uint64_t id, std::string_view name)>;
    void list(std::uint64_t parent, std::uint64_t after, const Visit& visit,
              Role role = Role::kChannel) const;
    // All channels of all roles, in order of id, without any lock held.
    void for_each(const std::function<void(const std::shared_ptr<Channel>&,
                                           const std::string& path)>& visit) const;

    // Attributes of file `kind` of a channel: its own if it has been changed, else by `initial`, which
    // is given those the channel was made with. Empty when the channel is gone.
    using Initial = std::function<Attributes(const Attributes& made)>;
    bool read(std::uint64_t id, std::uint8_t kind, const Initial& initial,
              const std::function<void(const Attributes&)>& use) const;
    bool change(std::uint64_t id, std::uint8_t kind, const Initial& initial,
                const std::function<void(Attributes&)>& use);

    // The record of a durable channel, with these settings or those that it has, goes to the store, and
    // those above it; of one that is not durable any more, it goes away. ENOSPC, EIO.
    Result<void> keep_record(std::uint64_t id, const Settings* settings);
    // For recursive subscriptions: whether `who` may read messages of the channel with that id.
    // Called on any thread without locks of channels. Until one is set, nobody may.
    using MayReceive = std::function<bool(std::uint64_t channel, const access::Identity& who)>;
    void let_receive(MayReceive may) { may_receive_ = std::move(may); }
    bool may_receive(std::uint64_t channel, const access::Identity& who) const {
        return may_receive_ && may_receive_(channel, who);
    }
    // After a restart, before anybody uses them: makes a channel again, without a place in the tree yet; a
    // subscription only after its topic (ENOENT). The record was checked by decode_channel().
    Result<std::shared_ptr<Channel>> restore(std::uint64_t id, const ChannelRecord& record);
    // And gives all of them their place. What has none is put at the top, with a name that says so: one
    // line for each.
    std::vector<std::string> place_restored();

    // New channels get ids from `first` on, if it has not come further: a client's kernel may still know
    // those of the daemon before.
    void start_ids(std::uint64_t first);
    std::uint64_t next_id() const;

    Settings defaults() const;
    void set_defaults(const Settings& defaults);
    // The daemon ends: all waits end.
    void shut_down() noexcept;
    Environment& environment() const noexcept { return env_; }

private:
    struct Entry;
    struct Children;
    static constexpr std::size_t kLongestPath = 4000;

    Entry* entry(std::uint64_t id) const;
    Result<std::shared_ptr<Channel>> enter(std::uint64_t parent, std::unique_ptr<Entry> made);
    Result<void> keep(Entry& entry, const Settings& settings);
    void keep_again(Entry& entry) noexcept;
    std::string path_of(const Entry& entry) const;
    static std::size_t deepest(const Entry& entry);
    void link(Entry& parent, Entry& child);
    static void unlink(Entry& child);

    Environment& env_;
    const std::size_t prefix_;
    MayReceive may_receive_;
    mutable std::shared_mutex mutex_;
    Settings defaults_;
    std::uint64_t next_id_ = 1;
    bool down_ = false;
    std::map<std::uint64_t, std::unique_ptr<Entry>> order_;
    std::unordered_map<std::uint64_t, Entry*> entries_;
    std::unique_ptr<Entry> root_;
    std::vector<std::pair<std::uint64_t, std::uint64_t>> restored_;  // and their parents
};

}  // namespace ipcfs::channel
