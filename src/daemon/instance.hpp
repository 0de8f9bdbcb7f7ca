// One daemon a mount point: the instance lock, the mount point, and removal of dead mounts. Called from
// main before anything else runs; single-threaded.
//
// The lock file of a mount point is DIR/NAME.lock:
//   DIR   as root                                      /run/ipcfs
//         else if XDG_RUNTIME_DIR is an absolute path  $XDG_RUNTIME_DIR/ipcfs
//         else                                         /tmp/ipcfs-UID, a directory of that user, 0700
//   NAME  the canonical path of the mount point (symbolic links resolved, without touching what is
//         mounted there), with '/' written as '!', and '!' and '%' as "%21" and "%25":
//         /ipc is "!ipc", /run/user/1000/ipc is "!run!user!1000!ipc".
// While a daemon serves the mount, it holds flock(LOCK_EX) on that file, which contains its pid in
// decimal and a newline. A file that is not locked means nothing, whatever it contains.
#pragma once

#include <string>
#include <string_view>
#include <sys/types.h>

#include <base/fd.hpp>
#include <base/result.hpp>
#include <fuse/mount.hpp>

namespace ipcfs::daemon {

using fuse::canonical_mount;  // which names the instance; see above

// The lock file of `mount` (canonical) for user `uid`; `runtime_dir` is XDG_RUNTIME_DIR, or empty.
std::string lock_path(const std::string& mount, uid_t uid, std::string_view runtime_dir);

// The lock, held while the daemon lives. Its destructor removes the file, while still locked.
class InstanceLock {
public:
    // Takes the lock and writes the pid; creates the directory if needed. EBUSY if another process
    // holds it, with its pid in `*holder`. EPERM if the directory is not safe to use.
    static Result<InstanceLock> take(const std::string& lock_file, pid_t* holder);

    // Call in a forked child: leaves the lock to the parent alone.
    void release_to_parent() noexcept { fd_.reset(); }

    InstanceLock(InstanceLock&&) = default;
    InstanceLock& operator=(InstanceLock&&) = delete;
    ~InstanceLock();

private:
    InstanceLock(Fd fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}
    Fd fd_;
    std::string path_;
};

// Unmounts all layers that killed daemons left on `mount` (canonical); returns how many. Call with
// the lock held. EBUSY if a live ipcfs is mounted there whose daemon does not hold this lock
// (another user's, or one in another container).
Result<int> clear_dead_mounts(const std::string& mount);

// Whether a file system of type fuse.ipcfs is mounted on `mount` (canonical).
bool ipcfs_mounted(const std::string& mount);

// Creates `path`, with `mode`, and its parents. Succeeds if it exists.
Result<void> ensure_directory(const std::string& path, mode_t mode);

// Whether /etc/fuse.conf has user_allow_other, which an unprivileged daemon needs to show its tree
// to other users.
bool fuse_conf_allows_other();

}  // namespace ipcfs::daemon
