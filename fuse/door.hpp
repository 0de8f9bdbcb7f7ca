// The FUSE door: turns the kernel's requests into calls on the tree, and completions into replies.
// It knows nodes and open files only. Its handlers run on the session's threads and never wait: what
// would wait becomes an operation that is parked with the session.
#pragma once

#include <memory>

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
    // Closes what clients held open when the connection ended. After Session::stop().
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
    Logger& log() noexcept { return log_; }
    double entry_timeout() const noexcept { return seconds(config_.entry_timeout); }
    double attr_timeout() const noexcept { return seconds(config_.attr_timeout); }

private:
    static double seconds(Nanos nanos) noexcept { return static_cast<double>(nanos) / 1e9; }
    tree::Tree& tree_;
    Logger& log_;
    DoorConfig config_;
    struct Handles;
    std::unique_ptr<Handles> handles_;
};

}  // namespace ipcfs::fuse
