// Finds the processes that have memory of the tree open or mapped, from /proc/*/maps and
// /proc/*/fd. Opens and touches nothing found there, since another process's file may block;
// ignores what disappears meanwhile. One thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <sys/types.h>
#include <vector>

namespace ipcfs::client {

struct Holder {
    pid_t pid = 0;
    uid_t uid = 0;
    std::string command;
    bool writes = false;  // open for writing, or mapped shared and writable
    std::uint64_t opens = 0;
    std::uint64_t mapped = 0;  // bytes, in whole pages
};

// A file of payload/ or share/, an open `put`, or a memfd with one of our names.
struct Held {
    bool memory = false;  // a memfd
    bool known = false;   // the daemon has this memfd, so it belongs to this tree
    std::uint64_t inode = 0;
    std::string name;       // path below the mount; a memfd's name, such as "ipcfs-pool"
    bool nameless = false;  // the file was removed from the tree
    std::optional<std::uint64_t> size = {};  // of a memfd, if known
    std::vector<Holder> holders = {};
};

struct Survey {
    std::vector<Held> held;
    bool daemon_seen = false;  // if false, nothing is `known`
    std::uint64_t unseen = 0;  // processes that we may not inspect
};

// `root` is the mount point; the process `daemon` is excluded.
Survey survey(const std::string& root, pid_t daemon);

}  // namespace ipcfs::client
