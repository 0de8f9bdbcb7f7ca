// What this machine's kernel and libfuse offer, for the daemon's start-up report and for the choice
// of transport. Reads /proc and /sys only. Any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace ipcfs::fuse {

struct KernelFacts {
    std::string release;  // uname -r
    std::optional<bool>
        uring_enabled;  // /sys/module/fuse/parameters/enable_uring; none: no such kernel
    // fs.fuse.*_request_timeout in seconds, 0: none. A set one ends the connection when an
    // operation waits for longer, which waiting readers do.
    std::uint64_t default_request_timeout = 0;
    std::uint64_t max_request_timeout = 0;
};

KernelFacts probe_kernel();

struct MountEntry {
    std::string device;  // "major:minor"
    std::string type;    // "fuse.ipcfs"
};

// The mount that a look-up of `path` (absolute, as in mountinfo) ends in, if one is mounted there.
std::optional<MountEntry> top_mount_at(const std::string& path);

// How many queues the kernel expects: one for each possible CPU, configured or not.
unsigned possible_cpus();

}  // namespace ipcfs::fuse
