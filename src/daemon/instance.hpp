// One daemon a mount point: the lock, the mount point itself, and what a killed predecessor left.
// Called from main before anything else runs; single-threaded.
//
// The lock file of a mount point is DIR/NAME.lock:
//   DIR   as root                   /run/ipcfs
//         else, with XDG_RUNTIME_DIR set to an absolute path   $XDG_RUNTIME_DIR/ipcfs
//         else                      /tmp/ipcfs-UID, which must be a directory of that user, mode
//         0700
//   NAME  the canonical path of the mount point (symbolic links in it resolved, without touching
//   what
//         is mounted there), with '/' written as '!', and '!' and '%' as "%21" and "%25":
//         /ipc is "!ipc", /run/user/1000/ipc is "!run!user!1000!ipc".
// While a daemon serves the mount it holds flock(LOCK_EX) on that file, which contains its pid in
// decimal and a newline. A file that nobody has locked means nothing, whatever it contains.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <sys/types.h>

#include <base/fd.hpp>
#include <base/result.hpp>

namespace ipcfs::daemon {

// The path that names the instance; see above. Parts that do not exist are kept as they are.
std::string canonical_mount(const std::string& mount);

// Where the lock of `mount` (canonical) is for a user with that XDG_RUNTIME_DIR (may be empty).
std::string lock_path(const std::string& mount, uid_t uid, std::string_view runtime_dir);

// The pid of the daemon that holds the lock now: from the lock file. Empty when nobody does, 0 when
// somebody does but has not written it yet.
std::optional<pid_t> lock_holder(const std::string& lock_file);

// Held as long as the daemon lives. The file is removed at the end, while still locked.
class InstanceLock {
public:
    // Takes the lock and writes the pid, making the directory if need be. EBUSY: somebody has it,
    // `*holder` is who. EPERM: the directory is not safe to use.
    static Result<InstanceLock> take(const std::string& lock_file, pid_t* holder);

    // In a child, which has a part in it: it is the parent's alone from now on.
    void leave_to_parent() noexcept { fd_.reset(); }

    InstanceLock(InstanceLock&&) = default;
    InstanceLock& operator=(InstanceLock&&) = delete;
    ~InstanceLock();

private:
    InstanceLock(Fd fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}
    Fd fd_;
    std::string path_;
};

// Unmounts what a killed daemon left on `mount` (canonical), however many layers. Returns how many
// it were. To be called with the lock held. EBUSY: a living ipcfs is mounted there, served by a
// daemon that does not hold this lock (another user's or another container's).
Result<int> clear_dead_mounts(const std::string& mount);

// Takes the topmost mount off `mount` lazily: umount2(2) as root, fusermount3 otherwise. The last
// resort of a daemon that has to go.
Result<void> detach_mount(const std::string& mount);

// True when something of type fuse.ipcfs is mounted on `mount` (canonical).
bool ipcfs_mounted(const std::string& mount);

// Makes `path` and its parents; the last with `mode`. No fault when it is there.
Result<void> ensure_directory(const std::string& path, mode_t mode);

// True when /etc/fuse.conf has user_allow_other, without which an unprivileged daemon cannot show
// its tree to other users.
bool fuse_conf_allows_other();

}  // namespace ipcfs::daemon
