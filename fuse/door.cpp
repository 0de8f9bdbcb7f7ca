// FUSE requests of open files: open, read, write, poll, release. On the session's threads.
#include <algorithm>
#include <cstring>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>

#include <base/guarded.hpp>
#include <base/process.hpp>
#include <fuse/operations.hpp>
#include <fuse/waiting.hpp>

namespace ipcfs::fuse {

using tree::Delivery;
using tree::Outcome;

struct Door::Handles {
    Guarded<boost::intrusive::list<Handle, boost::intrusive::constant_time_size<false>>> open;
};

Door::Door(tree::Tree& tree, Logger& log, DoorConfig config)
    : tree_(tree), log_(log), config_(config), handles_(std::make_unique<Handles>()) {}

Door::~Door() {
    handles_->open.with(
        [](auto& open) { open.clear_and_dispose([](Handle* handle) { delete handle; }); });
}

void Door::add(std::unique_ptr<Handle> handle) noexcept {
    handles_->open.with([&](auto& open) { open.push_back(*handle.release()); });
}

void Door::remove(Handle& handle) noexcept {
    handles_->open.with([&](auto& open) { open.erase(open.iterator_to(handle)); });
    delete &handle;
}

access::Subject subject_of(fuse_req_t req, Handle* handle) noexcept {
    const fuse_ctx* ctx = fuse_req_ctx(req);
    access::Subject subject{ctx->uid, ctx->gid, 0, ctx->pid};
    auto tid = static_cast<std::uint32_t>(ctx->pid);
    if (tid == 0) return subject;  // another pid namespace
    std::uint64_t who = handle ? handle->who.load(std::memory_order_relaxed) : 0;
    if (who >> 32 != tid) {
        who = std::uint64_t{tid} << 32 | static_cast<std::uint32_t>(thread_group(ctx->pid));
        if (handle) handle->who.store(who, std::memory_order_relaxed);
    }
    subject.pid = static_cast<pid_t>(who & 0xffffffff);
    return subject;
}

bool send(fuse_req_t req, const Delivery& delivery) noexcept {
    if (delivery.error) {
        fuse_reply_err(req, delivery.error);
        return false;
    }
    if (delivery.parts[1].empty()) {
        return fuse_reply_buf(req, reinterpret_cast<const char*>(delivery.parts[0].data()),
                              delivery.parts[0].size()) == 0;
    }
    iovec parts[2];
    for (int i = 0; i < 2; ++i) {
        parts[i].iov_base =
            const_cast<std::byte*>(delivery.parts[static_cast<std::size_t>(i)].data());
        parts[i].iov_len = delivery.parts[static_cast<std::size_t>(i)].size();
    }
    return fuse_reply_iov(req, parts, 2) == 0;
}

bool send_open(fuse_req_t req, std::shared_ptr<tree::OpenFile> file,
               const access::Subject& opener) noexcept {
    auto handle = std::make_unique<Handle>();
    handle->who = std::uint64_t{static_cast<std::uint32_t>(opener.tid)} << 32 |
                  static_cast<std::uint32_t>(opener.pid);
    fuse_open_out out{};
    out.fh = reinterpret_cast<std::uint64_t>(handle.get());
    out.open_flags = FOPEN_DIRECT_IO | FOPEN_NOFLUSH;
    // libfuse cannot say FOPEN_STREAM: without it a read that waits on an O_RDWR descriptor would
    // keep another thread's write from it by the lock of the file position.
    if (file->positionless()) out.open_flags |= FOPEN_STREAM;
    handle->file = std::move(file);
    // Once the answer is out, RELEASE may come on another thread.
    Door& door = door_of(req);
    Handle& added = *handle;
    door.add(std::move(handle));
    if (fuse_reply_buf(req, reinterpret_cast<const char*>(&out), sizeof out) == 0) return true;
    door.remove(added);
    return false;
}

namespace {

Handle& handle_of(const fuse_file_info* fi) noexcept {
    return *reinterpret_cast<Handle*>(fi->fh);
}

bool nonblocking(const fuse_file_info* fi) noexcept {
    return (fi->flags & O_NONBLOCK) != 0;
}

}  // namespace

void op_open(fuse_req_t req, fuse_ino_t ino, fuse_file_info* fi) noexcept {
    Session& session = Session::of(req);
    tree::OpenMode mode;
    mode.reads = (fi->flags & O_ACCMODE) != O_WRONLY;
    mode.writes = (fi->flags & O_ACCMODE) != O_RDONLY;
    mode.nonblocking = nonblocking(fi);
    access::Subject subject = subject_of(req, nullptr);
    auto file = door_of(req).tree().open(tree::NodeId::from(ino), mode, subject);
    if (!file) return reply_fault(req, file.error());
    int error = 0;
    if ((*file)->try_gate(error) == Outcome::kDone) {
        if (error) {
            fuse_reply_err(req, error);
        } else {
            send_open(req, std::move(*file), subject);
        }
        return;
    }
    auto operation = std::make_shared<WaitingOpen>(req, std::move(*file), subject);
    if (!session.park(operation, ParkRank::kOpen, operation->ticket)) {
        fuse_reply_err(req, EINTR);
        return;
    }
    operation->start();
}

void op_release(fuse_req_t req, fuse_ino_t, fuse_file_info* fi) noexcept {
    door_of(req).remove(handle_of(fi));
    fuse_reply_err(req, 0);
}

void op_read(fuse_req_t req, fuse_ino_t, std::size_t size, off_t offset,
             fuse_file_info* fi) noexcept {
    // Held here: once the answer is out, RELEASE may come on another thread.
    std::shared_ptr<tree::OpenFile> file = handle_of(fi).file;
    tree::ReadRequest request{size, static_cast<std::uint64_t>(offset), nonblocking(fi)};
    Delivery delivery;
    if (file->try_read(request, delivery) == Outcome::kDone) {
        bool sent = send(req, delivery);
        file->settle(delivery, sent);
        return;
    }
    auto operation = std::make_shared<WaitingRead>(req, std::move(file), request);
    if (!Session::of(req).park(operation, ParkRank::kRead, operation->ticket)) {
        fuse_reply_err(req, EINTR);
        return;
    }
    operation->start();
}

void op_write(fuse_req_t req, fuse_ino_t, const char* data, std::size_t size, off_t,
              fuse_file_info* fi) noexcept {
    Handle& handle = handle_of(fi);
    tree::WriteRequest request{std::as_bytes(std::span(data, size)), subject_of(req, &handle),
                               nonblocking(fi)};
    queue::Batch pending;
    int error = 0;
    if (handle.file->try_write(request, pending, error) == Outcome::kDone) {
        if (error) {
            fuse_reply_err(req, error);
        } else {
            fuse_reply_write(req, size);
        }
        return;
    }
    auto operation = std::make_shared<WaitingWrite>(req, handle.file, std::move(pending), size);
    if (!Session::of(req).park(operation, ParkRank::kWrite, operation->ticket)) {
        fuse_reply_err(req, EINTR);
        return;
    }
    operation->start();
}

void op_poll(fuse_req_t req, fuse_ino_t, fuse_file_info* fi, fuse_pollhandle* poll) noexcept {
    constexpr unsigned kIn = POLLIN | POLLRDNORM, kOut = POLLOUT | POLLWRNORM;
    std::unique_ptr<channel::PollTicket> ticket;
    if (poll) {
        unsigned wanted =
            (fi->poll_events & kIn ? POLLIN : 0U) | (fi->poll_events & kOut ? POLLOUT : 0U);
        if (wanted == 0) wanted = POLLIN | POLLOUT;  // for POLLHUP alone
        ticket = std::make_unique<PollHandle>(Session::of(req), poll, wanted);
    }
    unsigned ready = handle_of(fi).file->poll(std::move(ticket));
    if (ready & POLLIN) ready |= POLLRDNORM;
    if (ready & POLLOUT) ready |= POLLWRNORM;
    fuse_reply_poll(req, ready);
}

}  // namespace ipcfs::fuse
