// The FUSE door: turns the kernel's requests into calls on the tree, and completions into replies.
// It knows nodes and open files only. Its handlers run on the session's threads and never wait: a request that has to
// wait becomes an operation that is parked with the session.
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
    // Records open files for a successor. Null: there will be none, and requests have no id.
    Inheritance* inheritance = nullptr;
    // Whether a killed predecessor performed the write (FLUSH of put, send by ioctl) with this
    // queue::Batch::request and did not answer it. Then it is answered as done, and not repeated.
    std::function<bool(std::uint64_t request)> already_done;
};

struct Handle;
struct Opening;

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

    // Open files of the kernel's, from OPEN to RELEASE. add() gives the handle the number by which the kernel
    // will name it. ENFILE when no number is left.
    int add(std::unique_ptr<Handle> handle, const Opening& opening) noexcept;
    void remove(Handle& handle) noexcept;
    // Null if it is not open (a resent RELEASE).
    Handle* find(std::uint64_t number) noexcept;

    // For SessionConfig::on_take_over: reopens the files that clients opened while a predecessor ran. A file that
    // cannot be reopened answers ESTALE to everything.
    void take_over(Session& session, std::span<const LeftRequest> left);
    // Makes all pollers poll again. Call after Session::start() of a successor. Any thread.
    void wake_pollers(Session& session) noexcept;
    struct TakenOver {
        std::size_t reopened = 0, lost = 0;
    };
    TakenOver taken_over() const noexcept { return taken_over_; }

    // The id of a request as queue::Batch has it, 0 if it cannot be resent to a successor; and whether a
    // predecessor has done it.
    std::uint64_t request_id(const Request& request) const noexcept;
    bool already_done(const Request& request) const noexcept;
    // Records what a successor must know of an open file. Call before request `unique` is answered.
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
