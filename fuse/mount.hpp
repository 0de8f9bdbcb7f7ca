// Getting the FUSE device mounted, and unmounted whatever state the connection is in: by mount(2)
// for root, by fusermount3 (its _FUSE_COMMFD protocol, fuse(8)) for everybody else.
// Owned by Session; any thread, one at a time.
#pragma once

#include <cstddef>
#include <string>
#include <utility>

#include <base/fd.hpp>
#include <base/result.hpp>

namespace ipcfs::fuse {

struct MountOptions {
    std::string path;
    bool allow_other = true;  // unprivileged without user_allow_other: mounts without it, see below
    std::size_t max_read = 1 << 20;
};

class Mount {
public:
    Mount() = default;
    ~Mount() { unmount(); }
    Mount(Mount&& other) noexcept { swap(other); }
    Mount& operator=(Mount&& other) noexcept {
        swap(other);
        return *this;
    }

    // Mounts an ipcfs file system on the existing directory `options.path`.
    static Result<Mount> make(const MountOptions& options);

    // The same mount for another owner, who has a descriptor of their own; one of them unmounts it.
    Result<Mount> share() const;

    const Fd& device() const noexcept { return device_; }  // /dev/fuse of this mount
    const std::string& path() const noexcept { return path_; }
    bool allow_other() const noexcept { return allow_other_; }

    // Root: aborts the connection, too, so that every operation on it ends. Detaches the mount,
    // unless something else lies on the path by now. Returns false if that failed. Idempotent.
    bool unmount() noexcept;
    // Lets go of it, and leaves it there.
    void leave() noexcept { path_.clear(); }

private:
    void swap(Mount& other) noexcept {
        std::swap(device_, other.device_);
        std::swap(path_, other.path_);
        std::swap(number_, other.number_);
        std::swap(allow_other_, other.allow_other_);
    }

    Fd device_;
    std::string path_;    // absolute; empty: nothing is mounted
    std::string number_;  // "major:minor" of the mounted file system, empty if not found
    bool allow_other_ = false;
};

// The path of a mount point as mountinfo has it, with links resolved; what is mounted there is not touched, since it may
// be dead. Components that do not exist stay unchanged.
std::string canonical_mount(const std::string& mount);

// Detaches the topmost mount on `path` (canonical) lazily, by umount2(2) or by fusermount3; `aborts`: and ends its
// connection, as root.
bool detach_mount(const std::string& path, bool aborts);

// Detaches an ipcfs mount whose daemon is gone (ENOTCONN, ECONNABORTED) from `path`. True: there
// was one. Never touches another file system's mount, nor a living one.
Result<bool> clear_stale_mount(const std::string& path);

}  // namespace ipcfs::fuse
