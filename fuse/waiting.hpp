// Operations of the tree that wait for a FUSE request, and the handle behind fi->fh. Private to fuse/.
#pragma once

#include <linux/fuse.h>

#include <boost/intrusive/list.hpp>

#include <fuse/door.hpp>
#include <fuse/operations.hpp>
#include <fuse/session.hpp>
#include <tree/operation.hpp>

namespace ipcfs::fuse {

// What fi->fh points at, from OPEN to RELEASE.
struct Handle : boost::intrusive::list_base_hook<> {
    std::shared_ptr<tree::OpenFile> file;
    std::shared_ptr<tree::OpenFile> source;  // in place of `file` for reads, if not null
    Backings::Use use;                       // ends before `file` does
    std::atomic<bool> nonblocking{false};
    bool cached = false;            // by the kernel, in pages
    std::uint32_t reply_flags = 0;  // FOPEN_*, and the backing, that OPEN was answered with
    std::int32_t backing = 0;
    HandleSlot* slot = nullptr;  // where it is noted for a successor; null: nowhere
    std::uint64_t number = 0;    // what the kernel calls it
    // Counts answers to requests that used it. What was done before them is over for whoever releases it
    // after: the kernel says so, this tells the compiler and its sanitizer.
    std::atomic<std::uint32_t> answers{0};
};

// An open that is going to be answered.
struct Opening {
    tree::NodeId node;
    access::Subject opener;
    bool nonblocking = false;
    Backings::Use claim;
    std::optional<fuse_entry_out> created;  // the answer is that of CREATE
    std::uint32_t flags = 0;                // open(2)'s
    std::uint64_t unique = 0;               // of the request
};

access::Subject subject_of(fuse_req_t req) noexcept;

// Sends a read's parts or its error. False: the requester is gone.
bool send(fuse_req_t req, const tree::Delivery& delivery) noexcept;
// Answers OPEN with a new handle for `file`. False: the requester is gone.
bool send_open(fuse_req_t req, std::shared_ptr<tree::OpenFile> file, Opening opening) noexcept;

class WaitingRead final : public tree::ReadOperation, public Parked {
public:
    // The handle is not released before the answer is out.
    WaitingRead(fuse_req_t req, std::shared_ptr<tree::OpenFile> file, Handle& handle,
                const tree::ReadRequest& request)
        : ReadOperation(std::move(file), request), req_(req), handle_(handle) {}
    void interrupt(int error) noexcept override { cancel(error); }
    ParkTicket ticket;

private:
    bool reply(const tree::Delivery& delivery) noexcept override {
        if (handle_.slot) door_of(req_).note(handle_, ticket.unique);
        handle_.answers.fetch_add(1, std::memory_order_release);
        Session::of(req_).unpark(ticket);
        return send(req_, delivery);
    }
    fuse_req_t req_;
    Handle& handle_;
};

// A WRITE, frames sent by an ioctl, or a close that waits for room. `succeed` answers it when all is
// queued.
class WaitingWrite final : public tree::WriteOperation, public Parked {
public:
    using Succeed = void (*)(fuse_req_t req, std::size_t size);
    WaitingWrite(fuse_req_t req, std::shared_ptr<tree::OpenFile> file, queue::Batch&& pending,
                 std::size_t size, Succeed succeed)
        : WriteOperation(std::move(file), std::move(pending), size), req_(req), succeed_(succeed) {}
    void interrupt(int error) noexcept override { cancel(error); }
    ParkTicket ticket;

private:
    void reply(int error, std::size_t size) noexcept override {
        Session::of(req_).unpark(ticket);
        if (error) {
            fuse_reply_err(req_, error);
        } else {
            succeed_(req_, size);
        }
    }
    fuse_req_t req_;
    const Succeed succeed_;
};

class WaitingOpen final : public tree::GateOperation, public Parked {
public:
    WaitingOpen(fuse_req_t req, std::shared_ptr<tree::OpenFile> file, Opening opening)
        : GateOperation(std::move(file)), req_(req), opening_(std::move(opening)) {}
    void interrupt(int error) noexcept override { cancel(error); }
    ParkTicket ticket;

private:
    void reply(int error, const std::shared_ptr<tree::OpenFile>& file) noexcept override {
        Session::of(req_).unpark(ticket);
        if (error) {
            opening_.claim.reset();
            fuse_reply_err(req_, error);
        } else {
            send_open(req_, file, std::move(opening_));
        }
    }
    fuse_req_t req_;
    Opening opening_;
};

// A poll handle of the kernel's.
class PollHandle final : public channel::PollTicket {
public:
    PollHandle(Session& session, fuse_pollhandle* handle, unsigned wanted)
        : session_(session), handle_(handle) {
        events = wanted;
    }
    ~PollHandle() override { fuse_pollhandle_destroy(handle_); }
    void notify() noexcept override { (void)session_.notify_poll(handle_); }

private:
    Session& session_;
    fuse_pollhandle* handle_;
};

}  // namespace ipcfs::fuse
