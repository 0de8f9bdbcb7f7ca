// Finds the tree's mount point and resolves channel arguments.
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
    uid_t user = 0;     // the user who mounted it
    bool dead = false;  // its daemon is gone (ENOTCONN)
};
std::vector<Mount> mounts();

enum class Health { kMounted, kDead, kNotMounted };
Health health(const std::string& root);

// Chooses the root of the tree: `option` (--mount) if given, else $IPCFS_MOUNT, else /ipc if
// mounted, else for ordinary users the tree that this user has mounted, else /ipc. Absolute,
// without a trailing slash.
std::string choose_root(std::string_view option);

// A channel, as the user named it, and its path. `name` is empty for the root.
struct Channel {
    std::string name;
    std::string path;

    std::string file(std::string_view below) const { return path + "/" + std::string(below); }
    // Name and file for error messages, such as "jobs/ctl".
    std::string shown(std::string_view below = {}) const;
    // The path of a payload's file; a subscription's payloads are in its topic's directory.
    std::string payload(std::uint64_t id) const;
    // The `key value` lines of a file such as ctl or status; empty if it cannot be read.
    Pairs read(std::string_view name) const;
    Pairs read_or_fail(std::string_view name) const;
    // A value in such a file; empty if there is none.
    std::string find(std::string_view name, std::string_view key) const;
    // Why a write failed with `error`, in the daemon's words (`last-error`) if it gave any.
    std::string reason(int error) const;
    Channel child(const std::string& below) const {
        return {name.empty() ? below : name + "/" + below, file(below)};
    }
    // A topic's named subscriptions, sorted; and one of them, which can be used like a channel.
    std::vector<std::string> subscriptions() const;
    Channel subscription(std::string_view name) const;
};

// What kern/ipc/version says; empty if no daemon runs there.
Pairs read_version(const std::string& root);

class Tree {
public:
    // Throws a Failure with advice if nothing is mounted there.
    explicit Tree(std::string_view mount_option);

    const std::string& root() const { return root_; }
    std::string file(std::string_view below) const { return root_ + "/" + std::string(below); }
    Pairs version() const { return read_version(root_); }
    // Resolves `jobs`, `a/b`, a path below the mount, or ./x within it. Does not check whether the
    // channel exists.
    Channel locate(std::string_view argument) const;
    // Like locate(), but throws a Failure if it is not a channel.
    Channel channel(std::string_view argument) const;
    // The names of the channels directly below `parent`, sorted; skips those that disappear meanwhile.
    std::vector<std::string> children(const Channel& parent) const;

private:
    std::string root_;
};

bool is_channel(const std::string& path);
// Creates a directory; returns 0 or the errno. `mode` is octal such as 750, exact regardless of the
// umask, or empty; throws a usage Failure if it is invalid.
int make_directory(const std::string& path, const std::string& mode);
// The names in a directory, sorted, with `directories` only those of (perhaps) directories. Sets
// errno to 0, or to the error if it cannot be listed.
std::vector<std::string> names_in(const std::string& path, bool directories = false);

}  // namespace ipcfs::client
