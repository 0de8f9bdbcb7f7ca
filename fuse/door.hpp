// The FUSE door: turns the kernel's requests into calls on the tree, and completions into replies.
// It knows nodes and open files only. Its handlers run on the session's threads and never wait: what
// would wait becomes an operation that is parked with the session.
#pragma once

#include <memory>

#include <fuse/backing.hpp>
#include <fuse/session.hpp>
#include <tree/tree.hpp>

namespace ipcfs::fuse {

struct DoorConfig {
    Nanos entry_timeout = 3600 * kSecond;
    Nanos attr_timeout = 3600 * kSecond;
};

struct Handle;

class Door {
public:
    Door(tree::Tree& tree, Logger& log, DoorConfig config);
    // Closes what clients held open when the connection ended. After Session::stop(), before ~Session.
    ~Door();
    Door(const Door&) = delete;
    Door& operator=(const Door&) = delete;

    // The operations, to be given to Session::open with this as `user`.
    static const fuse_lowlevel_ops& operations() noexcept;
    // Raw INIT flags to ask for.
    static std::uint64_t init_flags() noexcept;

    // Open files of the kernel's, from OPEN to RELEASE.
    void add(std::unique_ptr<Handle> handle) noexcept;
    void remove(Handle& handle) noexcept;

    tree::Tree& tree() noexcept { return tree_; }
    Backings& backings() noexcept { return backings_; }
    Logger& log() noexcept { return log_; }
    Nanos entry_timeout() const noexcept { return config_.entry_timeout; }
    Nanos attr_timeout() const noexcept { return config_.attr_timeout; }

private:
    tree::Tree& tree_;
    Logger& log_;
    DoorConfig config_;
    Backings backings_;  // handles have their part in it
    struct Handles;
    std::unique_ptr<Handles> handles_;
};

}  // namespace ipcfs::fuse
