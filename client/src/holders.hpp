// Who has memory of the tree open or mapped: a look into /proc/*/maps and /proc/*/fd of all
// processes that may be looked into. Nothing found there is opened or touched, since a file of
// somebody's may hang; what a process closes meanwhile is passed over. One thread.
#pragma once

#include <cstdint>
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

// A file of payload/ or share/, an open `put`, or a memfd with a name of ours.
struct Held {
    bool memory = false;  // a memfd
    bool known = false;   // the daemon has that memfd, too: it belongs to this tree
    std::uint64_t inode = 0;
    std::string name;        // below the mount; of a memfd its name, as "ipcfs-pool"
    bool nameless = false;   // the file has gone from the tree
    std::uint64_t size = 0;  // of a memfd; 0: could not be found out
    std::vector<Holder> holders;
};

struct Survey {
    std::vector<Held> held;
    bool daemon_seen = false;  // else nothing is `known`
    std::uint64_t unseen = 0;  // processes that may not be looked into
};

// `root`: the mount point; `daemon` is left out.
Survey survey(const std::string& root, pid_t daemon);

}  // namespace ipcfs::client
