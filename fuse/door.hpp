// The FUSE door: turns the kernel's requests into calls on the tree, and completions into replies.
// It knows nodes and open files only. Its handlers run on the session's threads and never wait: what
// would wait becomes an operation that is parked with the session.
#pragma once

#include <functional>
#include <memory>
#include <span>

#include <fuse/backing.hpp>
#include <fuse/session.hpp>
#include <tree/tree.hpp>

namespace ipcfs::fuse {

struct DoorConfig {
    Nanos entry_timeout = 3600 * kSecond;
    Nanos attr_timeout = 3600 * kSecond;
    // Where open files are noted for a successor; null: nowhere, and requests have no id.
    Inheritance* inheritance = nullptr;
    // Whether a write (FLUSH of put, send by ioctl) with this queue::Batch::request was done by a
    // predecessor that had no time to say so: then it is answered as done, and not done again.
    std::function<bool(std::uint64_t request)> already_done;
};

struct Handle;

// Of an open, for a successor.
struct Noted {
    std::uint64_t node = 0;   // raw
    std::uint32_t flags = 0;  // open(2)'s
    access::Subject opener;
    std::uint64_t unique = 0;  // of the request
};

class Door {
public:
    Door(tree::Tree& tree, Logger& log, DoorConfig config);
    // Closes what clients held open when the connection ended. After Session::stop(), before ~Session.
    ~Door();
    Door(const Door&) = delete;
    Door& operator=(const Door&) = delete;

    // The operations, to be given to Session::open with this as `user`.
    static const FileSystem& operations() noexcept;
    // Raw INIT flags to ask for.
    static std::uint64_t init_flags() noexcept;

    // Open files of the kernel's, from OPEN to RELEASE. add() gives it the number that the kernel is
    // to know it by; ENFILE when there is none left.
    int add(std::unique_ptr<Handle> handle, const Noted& noted) noexcept;
    void remove(Handle& handle) noexcept;
    // Null: it is not open (a RELEASE that comes again).
    Handle* find(std::uint64_t number) noexcept;

    // For SessionConfig::on_take_over: opens again what clients have open since the time of a
    // predecessor. What has vanished with it answers ESTALE from now on.
    void take_over(Session& session, std::span<const LeftRequest> left);
    // After Session::start() of a successor: who polls is to look again. Any thread.
    void wake_pollers(Session& session) noexcept;
    struct TakenOver {
        std::size_t reopened = 0, lost = 0;
    };
    TakenOver taken_over() const noexcept { return taken_over_; }

    // The id of a request as queue::Batch has it, 0 where no successor can be given it again; and whether a
    // predecessor has done it.
    std::uint64_t request_id(const Request& request) const noexcept;
    bool already_done(const Request& request) const noexcept;
    // Notes what a successor must know of an open file, before request `unique` is answered.
    void note(Handle& handle, std::uint64_t unique) noexcept;

    tree::Tree& tree() noexcept { return tree_; }
    Backings& backings() noexcept { return backings_; }
    Logger& log() noexcept { return log_; }
    Nanos entry_timeout() const noexcept { return config_.entry_timeout; }
    Nanos attr_timeout() const noexcept { return config_.attr_timeout; }

private:
    tree::Tree& tree_;
    Logger& log_;
    DoorConfig config_;
    TakenOver taken_over_;
    Backings backings_;  // handles have their part in it
    struct Handles;
    std::unique_ptr<Handles> handles_;
};

}  // namespace ipcfs::fuse
