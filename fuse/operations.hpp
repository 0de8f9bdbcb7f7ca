// The handlers of FUSE requests, the kernel's open files, and operations of the tree that wait for a request. Private to
// fuse/: door.cpp has the handlers of open files, names.cpp those of names and attributes and the table of all.
#pragma once

#include <linux/fuse.h>

#include <boost/intrusive/list.hpp>

#include <fuse/door.hpp>
#include <fuse/session.hpp>
#include <tree/directory.hpp>
#include <tree/operation.hpp>

namespace ipcfs::fuse {

void op_open(Request& request) noexcept;
void op_create(Request& request) noexcept;
void op_flush(Request& request) noexcept;
void op_release(Request& request) noexcept;
void op_read(Request& request) noexcept;
void op_write(Request& request) noexcept;
void op_fallocate(Request& request) noexcept;
void op_ioctl(Request& request) noexcept;
void op_poll(Request& request) noexcept;

inline Door& door_of(const Request& request) noexcept {
    return *static_cast<Door*>(request.session().user());
}

// Answers to requests on names.
void reply_names(Request& request, const Result<tree::NodeInfo>& info) noexcept;
void reply_names(Request& request, const Result<void>& done) noexcept;

// The answer that gives a name's node and attributes to the kernel.
fuse_entry_out entry_of(const Door& door, const tree::NodeInfo& info) noexcept;

// An open file of the kernel's, from OPEN to RELEASE.
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
    // Counts answers to requests that used the handle. The kernel releases a handle only after those answers; the
    // counter makes that order visible to the memory model, and so to ThreadSanitizer.
    std::atomic<std::uint32_t> answers{0};
};

// An open that has not been answered yet.
struct Opening {
    tree::NodeId node;
    access::Subject opener;
    bool nonblocking = false;
    Backings::Use claim;
    std::optional<fuse_entry_out> created;  // the answer is that of CREATE
    std::uint32_t flags = 0;                // open(2)'s
    std::uint64_t unique = 0;               // of the request
};

// Sends a read's parts or its error. False: the requester is gone, or there was an error.
bool send(Request& request, const tree::Delivery& delivery) noexcept;
// Answers OPEN with a new handle for `file`. False: the requester is gone.
bool send_open(Request& request, std::shared_ptr<tree::OpenFile> file, Opening opening) noexcept;
// Answers a write of `size` bytes.
bool send_written(Request& request, std::size_t size) noexcept;

// An operation of the tree that owns the request it will answer.
template <class Operation>
class Waiting : public Operation, public Parked {
public:
    template <class... Arguments>
    explicit Waiting(Request&& request, Arguments&&... arguments)
        : Operation(std::forward<Arguments>(arguments)...), request_(std::move(request)) {}
    void interrupt(int error) noexcept override { this->cancel(error); }
    Request& request() noexcept { return request_; }

protected:
    Request request_;
};

class WaitingRead final : public Waiting<tree::ReadOperation> {
public:
    // The handle is not released before the answer is out.
    WaitingRead(Request&& request, std::shared_ptr<tree::OpenFile> file, Handle& handle,
                const tree::ReadRequest& what)
        : Waiting(std::move(request), std::move(file), what), handle_(handle) {}

private:
    bool reply(const tree::Delivery& delivery) noexcept override {
        if (handle_.slot) door_of(request_).note(handle_, request_.unique());
        return send(request_, delivery);
    }
    Handle& handle_;
};

// A WRITE, frames sent by an ioctl, or a close that waits for room. `succeed` answers it when all is
// queued.
class WaitingWrite final : public Waiting<tree::WriteOperation> {
public:
    using Succeed = bool (*)(Request& request, std::size_t size) noexcept;
    WaitingWrite(Request&& request, std::shared_ptr<tree::OpenFile> file, queue::Batch&& pending,
                 std::size_t size, Succeed succeed)
        : Waiting(std::move(request), std::move(file), std::move(pending), size),
          succeed_(succeed) {}

private:
    void reply(int error, std::size_t size) noexcept override {
        if (error) {
            request_.fail(error);
        } else {
            succeed_(request_, size);
        }
    }
    const Succeed succeed_;
};

class WaitingOpen final : public Waiting<tree::GateOperation> {
public:
    WaitingOpen(Request&& request, std::shared_ptr<tree::OpenFile> file, Opening opening)
        : Waiting(std::move(request), std::move(file)), opening_(std::move(opening)) {}

private:
    void reply(int error, const std::shared_ptr<tree::OpenFile>& file) noexcept override {
        if (error) {
            opening_.claim.reset();
            request_.fail(error);
        } else {
            send_open(request_, file, std::move(opening_));
        }
    }
    Opening opening_;
};

// Parks and starts an operation that could not be done at once.
template <class Operation>
void start_waiting(ParkRank rank, const std::shared_ptr<Operation>& operation) noexcept {
    Request& request = operation->request();
    if (request.session().park(operation, rank, request)) {
        operation->start();
    } else {
        request.fail(EINTR);
    }
}

// A request on names whose directory answered kWait. `Ask` asks it (again).
template <class Ask>
class WaitingName final : public Waiting<tree::NameOperation> {
public:
    WaitingName(Request&& request, std::shared_ptr<tree::Directory> directory, Ask ask)
        : Waiting(std::move(request), std::move(directory)), ask_(std::move(ask)) {}

private:
    void reply(int error) noexcept override {
        if (error) {
            request_.fail(error);
        } else {
            reply_names(request_, ask_(request_));  // EAGAIN if it had to wait again
        }
    }
    Ask ask_;
};

// Answers a request on names in a directory with the result of `ask`, now or later. `ask` owns copies of what it
// uses of the request's body.
template <class Ask>
void answer_names(Request& request, tree::NodeId directory, Ask ask) noexcept {
    auto answer = ask(request);
    if (!answer.waits()) return reply_names(request, answer);
    auto at = door_of(request).tree().directory(directory);
    start_waiting(ParkRank::kOpen, std::make_shared<WaitingName<Ask>>(
                                       std::move(request), std::move(at), std::move(ask)));
}

// A poll handle of the kernel's.
class PollHandle final : public channel::PollTicket {
public:
    PollHandle(Session& session, std::uint64_t handle, unsigned wanted)
        : session_(session), handle_(handle) {
        events = wanted;
    }
    void notify() noexcept override { session_.notify_poll(handle_); }

private:
    Session& session_;
    const std::uint64_t handle_;
};

}  // namespace ipcfs::fuse
