// FUSE requests of open files: open, create, read, write, flush, poll, release and the like. On the
// session's threads.
#include <algorithm>
#include <cstring>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <utility>

#include <base/check.hpp>
#include <base/guarded.hpp>
#include <base/process.hpp>
#include <fuse/buffer.hpp>
#include <fuse/operations.hpp>
#include <fuse/uapi.hpp>

namespace ipcfs::fuse {

using tree::Delivery;
using tree::NodeId;
using tree::Outcome;

struct Door::Handles {
    Guarded<boost::intrusive::list<Handle, boost::intrusive::constant_time_size<false>>> open;
    Buffer by_slot{Inheritance::kSlots * sizeof(Handle*)};

    std::atomic<Handle*>& at(std::size_t slot) const noexcept {
        return static_cast<std::atomic<Handle*>*>(by_slot.data())[slot];
    }
};

Door::Door(tree::Tree& tree, Logger& log, DoorConfig config)
    : tree_(tree), log_(log), config_(std::move(config)), handles_(std::make_unique<Handles>()) {}

Door::~Door() {
    handles_->open.with(
        [](auto& open) { open.clear_and_dispose([](Handle* handle) { delete handle; }); });
}

int Door::add(std::unique_ptr<Handle> handle, const Opening& opening) noexcept {
    Handle& added = *handle;
    if (!config_.inheritance) {
        added.number = reinterpret_cast<std::uint64_t>(&added);
    } else {
        if (!added.slot) {  // it is not a reopened one
            HandleSlot* slot = config_.inheritance->take_slot();
            if (!slot || !handles_->by_slot) return ENFILE;
            slot->flags = opening.flags;
            slot->reply_flags = added.reply_flags;
            slot->backing = added.backing;
            slot->uid = opening.opener.uid;
            slot->gid = opening.opener.gid;
            slot->pid = opening.opener.pid;
            slot->tid = opening.opener.tid;
            slot->opened_by = opening.unique & ~kUniqueResent;
            slot->marks = added.file->marks();
            added.slot = slot;
            slot->node.store(opening.node.raw());
        }
        added.number = config_.inheritance->handle_of(*added.slot);
        handles_->at(config_.inheritance->index_of(*added.slot)) = &added;
    }
    handles_->open.with([&](auto& open) { open.push_back(*handle.release()); });
    return 0;
}

void Door::remove(Handle& handle) noexcept {
    (void)handle.answers.load(std::memory_order_acquire);
    if (handle.slot) {
        handles_->at(config_.inheritance->index_of(*handle.slot)) = nullptr;
        config_.inheritance->free_slot(*handle.slot);
    }
    handles_->open.with([&](auto& open) { open.erase(open.iterator_to(handle)); });
    delete &handle;
}

Handle* Door::find(std::uint64_t number) noexcept {
    if (!config_.inheritance) return reinterpret_cast<Handle*>(number);
    HandleSlot* slot = config_.inheritance->slot_of(number);
    return slot ? handles_->at(config_.inheritance->index_of(*slot)).load() : nullptr;
}

std::uint64_t Door::request_id(const Request& request) const noexcept {
    return config_.inheritance ? config_.inheritance->request_id(request.unique()) : 0;
}

bool Door::already_done(const Request& request) const noexcept {
    const std::uint64_t id = request_id(request);
    return id != 0 && request.left() && config_.already_done && config_.already_done(id);
}

void Door::note(Handle& handle, std::uint64_t unique) noexcept {
    HandleSlot& slot = *handle.slot;
    const std::uint32_t marks = handle.file->marks();
    const std::uint32_t before = slot.marks.load(std::memory_order_relaxed);
    if (marks != before) {
        // Store order matters: a resent request must see the previous marks.
        slot.marks_before.store(before);
        slot.marked_by.store(unique & ~kUniqueResent);
        slot.marks.store(marks);
    }
}

bool send(Request& request, const Delivery& delivery) noexcept {
    if (delivery.error) {
        request.fail(delivery.error);
        return false;
    }
    if (const tree::FilePart& part = delivery.file; part.length > 0) {
        return request.reply_file({part.file, part.offset, part.length});
    }
    return request.reply(delivery.parts[0], delivery.parts[1]);
}

bool send_written(Request& request, std::size_t size) noexcept {
    return request.reply(fuse_write_out{static_cast<std::uint32_t>(size), 0});
}

bool send_open(Request& request, std::shared_ptr<tree::OpenFile> file, Opening opening) noexcept {
    Door& door = door_of(request);
    auto handle = std::make_unique<Handle>();
    handle->nonblocking = opening.nonblocking;
    const tree::Traits traits = file->traits();
    Backings::OpenAnswer answer = door.backings().open(request.session(), opening.node, file,
                                                       traits, std::move(opening.claim));
    // FOPEN_STREAM: without it a read that waits on an O_RDWR descriptor would keep another thread's write
    // from it by the lock of the file position.
    OpenReply out{0, answer.flags, answer.backing};
    if (traits.is_positionless) out.flags |= FOPEN_STREAM;
    if (!traits.wants_flush) out.flags |= FOPEN_NOFLUSH;
    handle->cached = !(answer.flags & (FOPEN_DIRECT_IO | kOpenPassthrough));
    handle->source = std::move(answer.source);
    handle->use = std::move(answer.use);
    handle->file = std::move(file);
    handle->reply_flags = out.flags;
    handle->backing = answer.backing;
    // Once the answer is out, RELEASE may come on another thread.
    Handle& added = *handle;
    if (int error = door.add(std::move(handle), opening)) {
        request.fail(error);
        return false;
    }
    out.handle = added.number;
    const auto opened = std::as_bytes(std::span(&out, 1));
    request.count_in(added.answers);
    if (opening.created ? request.reply(std::as_bytes(std::span(&*opening.created, 1)), opened)
                        : request.reply(opened))
        return true;
    door.remove(added);
    return false;
}

namespace {

Handle& handle_of(Request& request, std::uint64_t number) noexcept {
    Handle* handle = door_of(request).find(number);
    IPCFS_CHECK(handle);  // the kernel names none that it has released
    request.count_in(handle->answers);
    return *handle;
}

tree::OpenMode mode_of(std::uint32_t flags) noexcept {
    tree::OpenMode mode;
    mode.reads = (flags & O_ACCMODE) != O_WRONLY;
    mode.writes = (flags & O_ACCMODE) != O_RDONLY;
    mode.nonblocking = (flags & O_NONBLOCK) != 0;
    mode.truncates = (flags & O_TRUNC) != 0;
    return mode;
}

// Writes `what` for the request, or waits: `succeed` answers it when all is queued.
void write(Request& request, Handle& handle, tree::WriteRequest& what, std::size_t size,
           WaitingWrite::Succeed succeed) noexcept {
    Door& door = door_of(request);
    if (door.already_done(request)) {
        succeed(request, size);
        return;
    }
    queue::Batch pending;
    pending.request = what.request = door.request_id(request);
    int error = 0;
    if (handle.file->try_write(what, pending, error) == Outcome::kWait) {
        return start_waiting(ParkRank::kWrite,
                             std::make_shared<WaitingWrite>(std::move(request), handle.file,
                                                            std::move(pending), size, succeed));
    }
    if (handle.slot) door.note(handle, request.unique());
    if (error) {
        request.fail(error);
    } else {
        succeed(request, size);
    }
}

bool send_done(Request& request, std::size_t) noexcept {
    return request.fail(0);
}

bool send_ioctl_done(Request& request, std::size_t) noexcept {
    return request.reply(fuse_ioctl_out{});
}

}  // namespace

void op_open(Request& request) noexcept {
    Session& session = request.session();
    Door& door = door_of(request);
    const auto in = request.in<fuse_open_in>();
    const tree::OpenMode mode = mode_of(in.flags);
    Opening opening{
        NodeId::from(request.header().nodeid), request.subject(), mode.nonblocking, {}, {}};
    opening.flags = in.flags;
    opening.unique = request.unique();
    const NodeId node = opening.node;
    const pid_t tid = opening.opener.tid;
    if (tree::aside(node) && session.report().passthrough) {
        opening.claim = door.backings().claim(session, node, tid);
        if (!opening.claim) {
            request.fail(ESTALE);
            return;
        }
    } else if (tree::is_aside(node)) {
        door.backings().settled(tid);
    }
    auto file = door.tree().open(node, mode, opening.opener);
    int error = file ? 0 : file.error().code;
    if (file && (*file)->try_gate(error) == Outcome::kWait) {
        return start_waiting(ParkRank::kOpen,
                             std::make_shared<WaitingOpen>(std::move(request), std::move(*file),
                                                           std::move(opening)));
    }
    if (error) {
        request.fail(error);
    } else {
        send_open(request, std::move(*file), std::move(opening));
    }
}

void op_create(Request& request) noexcept {
    Door& door = door_of(request);
    const auto in = request.in<fuse_create_in>();
    tree::NewChannel made;
    made.mode = in.mode;
    made.umask = in.umask;
    made.subject = request.subject();
    // Always exclusive: the kernel has only checked write permission on the directory. If the file exists by now, ESTALE
    // makes the kernel look the name up again and check the rights of that file.
    auto file = door.tree().create(NodeId::from(request.header().nodeid), request.name(sizeof in),
                                   mode_of(in.flags), made);
    if (!file) {
        const int error = file.error().code;
        request.fail(error == EEXIST && !(in.flags & O_EXCL) ? ESTALE : error);
        return;
    }
    auto& [info, opened] = *file;
    Opening opening{info.id, made.subject, (in.flags & O_NONBLOCK) != 0, {}, entry_of(door, info)};
    opening.flags = in.flags & ~static_cast<std::uint32_t>(O_CREAT | O_EXCL | O_TRUNC);
    opening.unique = request.unique();
    send_open(request, std::move(opened), std::move(opening));
}

// A descriptor is being closed, in whatever way: at most one answer a close(2), but not the last one.
void op_flush(Request& request) noexcept {
    Door& door = door_of(request);
    Handle& handle = handle_of(request, request.in<fuse_flush_in>().fh);
    if (door.already_done(request)) {
        request.fail(0);
        return;
    }
    std::shared_ptr<tree::OpenFile> file = handle.file;
    queue::Batch pending;
    pending.request = door.request_id(request);
    int error = 0;
    const bool wait = !handle.nonblocking.load(std::memory_order_relaxed);
    if (file->try_flush(request.subject(), !wait, pending, error) == Outcome::kDone) {
        request.fail(error);
        return;
    }
    start_waiting(ParkRank::kWrite,
                  std::make_shared<WaitingWrite>(std::move(request), std::move(file),
                                                 std::move(pending), 0, send_done));
}

void op_release(Request& request) noexcept {
    // One that comes again may have been released already.
    Door& door = door_of(request);
    if (Handle* handle = door.find(request.in<fuse_release_in>().fh)) door.remove(*handle);
    request.fail(0);
}

void op_read(Request& request) noexcept {
    const auto in = request.in<fuse_read_in>();
    // Held here: once the answer is out, RELEASE may come on another thread.
    Handle& handle = handle_of(request, in.fh);
    std::shared_ptr<tree::OpenFile> file = handle.source ? handle.source : handle.file;
    tree::ReadRequest what{in.size, in.offset, (in.flags & O_NONBLOCK) != 0};
    Delivery delivery;
    if (file->try_read(what, delivery) == Outcome::kDone) {
        if (handle.slot) door_of(request).note(handle, request.unique());
        bool sent = send(request, delivery);
        file->settle(delivery, sent);
        return;
    }
    start_waiting(ParkRank::kRead,
                  std::make_shared<WaitingRead>(std::move(request), std::move(file), handle, what));
}

void op_write(Request& request) noexcept {
    const auto in = request.in<fuse_write_in>();
    Handle& handle = handle_of(request, in.fh);
    tree::WriteRequest what{{request.behind(sizeof in), in.size},
                            request.subject(),
                            (in.flags & O_NONBLOCK) != 0,
                            in.offset};
    handle.nonblocking.store(what.nonblocking, std::memory_order_relaxed);
    // Where the kernel caches the file its pages decide.
    what.appends = (in.flags & O_APPEND) && !(in.write_flags & FUSE_WRITE_CACHE) && !handle.cached;
    write(request, handle, what, in.size, send_written);
}

void op_fallocate(Request& request) noexcept {
    const auto in = request.in<fuse_fallocate_in>();
    Handle& handle = handle_of(request, in.fh);
    request.fail(in.mode == 0 ? handle.file->allocate(in.offset + in.length) : EOPNOTSUPP);
}

void op_ioctl(Request& request) noexcept {
    constexpr unsigned kSize = _IOC_SIZEMASK << _IOC_SIZESHIFT;
    const auto in = request.in<fuse_ioctl_in>();
    const bool is_directory = (in.flags & FUSE_IOCTL_DIR) != 0;
    if (!is_directory && (in.cmd & ~kSize) == kIoctlSend && _IOC_SIZE(in.cmd) != 0) {
        // Frames to be sent, as by a write, but its open flags are not told.
        Handle& handle = handle_of(request, in.fh);
        tree::WriteRequest what{{request.behind(sizeof in), in.in_size},
                                request.subject(),
                                handle.nonblocking.load(std::memory_order_relaxed)};
        if (int error = handle.file->may_send()) {
            request.fail(error);
        } else {
            write(request, handle, what, 0, send_ioctl_done);
        }
        return;
    }
    std::uint32_t frames = 0;
    if (is_directory || in.cmd != kIoctlReadBatch || in.in_size < sizeof frames) {
        request.fail(ENOTTY);
        return;
    }
    std::memcpy(&frames, request.behind(sizeof in), sizeof frames);
    Handle& handle = handle_of(request, in.fh);
    const int error = handle.file->set_read_batch(frames);
    if (!error && handle.slot) handle.slot->read_batch = frames;
    if (error) {
        request.fail(error);
    } else {
        send_ioctl_done(request, 0);
    }
}

void op_poll(Request& request) noexcept {
    constexpr unsigned kIn = POLLIN | POLLRDNORM, kOut = POLLOUT | POLLWRNORM;
    const auto in = request.in<fuse_poll_in>();
    Handle& handle = handle_of(request, in.fh);
    std::unique_ptr<channel::PollTicket> ticket;
    if (in.flags & FUSE_POLL_SCHEDULE_NOTIFY) {
        unsigned wanted = (in.events & kIn ? POLLIN : 0U) | (in.events & kOut ? POLLOUT : 0U);
        if (wanted == 0) wanted = POLLIN | POLLOUT;  // for POLLHUP alone
        ticket = std::make_unique<PollHandle>(request.session(), in.kh, wanted);
        if (handle.slot) handle.slot->poll = in.kh;
    }
    unsigned ready = handle.file->poll(std::move(ticket));
    if (ready & POLLIN) ready |= POLLRDNORM;
    if (ready & POLLOUT) ready |= POLLWRNORM;
    request.reply(fuse_poll_out{ready, 0});
}

}  // namespace ipcfs::fuse
