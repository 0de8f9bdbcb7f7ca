// Where the tree is mounted, and what a channel argument means in it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <vector>

#include <text.hpp>

namespace ipcfs::client {

// An ipcfs mount of this mount namespace, from /proc/self/mountinfo.
struct Mount {
    std::string path;
    uid_t user = 0;     // who mounted it
    bool dead = false;  // its daemon is gone (ENOTCONN)
};
std::vector<Mount> mounts();

enum class Health { kMounted, kDead, kNotMounted };
Health health(const std::string& root);

// The root of the tree: `option` (--mount) if given, else $IPCFS_MOUNT, else /ipc if mounted, else
// if not root the tree that this user has mounted, else /ipc. Absolute, without a slash at the end.
std::string choose_root(std::string_view option);

// A channel as the user named it and where it is. `name` is empty for the root.
struct Channel {
    std::string name;
    std::string path;

    std::string file(std::string_view below) const { return path + "/" + std::string(below); }
    // Name and file for an error message: "jobs/ctl".
    std::string shown(std::string_view below = {}) const;
    // The file of a large payload: those of a subscription are with its topic.
    std::string payload(std::uint64_t id) const;
    // A value of `ctl`, or empty.
    std::string setting(std::string_view key) const;
    // Of a topic: what is below `subs`, sorted; and one of them, which is as good as a channel.
    std::vector<std::string> subscriptions() const;
    Channel subscription(std::string_view name) const;
};

class Tree {
public:
    // Fails with advice when nothing is mounted there.
    explicit Tree(std::string_view mount_option);

    const std::string& root() const { return root_; }
    std::string file(std::string_view below) const { return root_ + "/" + std::string(below); }
    // `jobs`, `a/b`, a full path below the mount, or ./x within it. Does not look whether it
    // exists.
    Channel locate(std::string_view argument) const;
    // The same, and fails with a clear sentence unless it is a channel.
    Channel channel(std::string_view argument) const;
    // Names of the channels directly below, sorted. Those that vanish meanwhile are left out.
    std::vector<std::string> children(const Channel& parent) const;

private:
    std::string root_;
};

bool is_channel(const std::string& path);
// 0 or the errno. `mode`: octal as 750, whatever the umask, or empty; fails with a usage error.
int make_directory(const std::string& path, const std::string& mode);
// Names in a directory, sorted; none where it may not be listed.
std::vector<std::string> names_in(const std::string& path);
// status as pairs; empty when it cannot be read.
Pairs read_status(const Channel& channel);

}  // namespace ipcfs::client
