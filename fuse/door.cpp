// FUSE requests of open files: open, create, read, write, flush, poll, release and the like. On the
// session's threads.
#include <algorithm>
#include <array>
#include <cstring>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <utility>

#include <base/check.hpp>
#include <base/guarded.hpp>
#include <base/process.hpp>
#include <fuse/operations.hpp>
#include <fuse/uapi.hpp>
#include <fuse/waiting.hpp>

namespace ipcfs::fuse {

using tree::Delivery;
using tree::NodeId;
using tree::Outcome;

struct Door::Handles {
    Guarded<boost::intrusive::list<Handle, boost::intrusive::constant_time_size<false>>> open;
    // By index of their slot, in chunks made as needed.
    static constexpr std::size_t kChunk = 1024;
    struct Chunk {
        std::array<std::atomic<Handle*>, kChunk> at{};
    };
    std::array<std::atomic<Chunk*>, Inheritance::kSlots / kChunk> chunks{};

    ~Handles() {
        for (auto& chunk : chunks) delete chunk.load();
    }
    Handle* find(std::size_t index) const noexcept {
        const Chunk* chunk = chunks[index / kChunk].load(std::memory_order_acquire);
        return chunk ? chunk->at[index % kChunk].load(std::memory_order_acquire) : nullptr;
    }
    void set(std::size_t index, Handle* handle) {
        auto& cell = chunks[index / kChunk];
        Chunk* chunk = cell.load(std::memory_order_acquire);
        if (!chunk) {
            auto fresh = std::make_unique<Chunk>();
            if (cell.compare_exchange_strong(chunk, fresh.get())) chunk = fresh.release();
        }
        chunk->at[index % kChunk].store(handle, std::memory_order_release);
    }
};

Door::Door(tree::Tree& tree, Logger& log, DoorConfig config)
    : tree_(tree), log_(log), config_(std::move(config)), handles_(std::make_unique<Handles>()) {}

Door::~Door() {
    handles_->open.with(
        [](auto& open) { open.clear_and_dispose([](Handle* handle) { delete handle; }); });
}

int Door::add(std::unique_ptr<Handle> handle, const Noted& noted) noexcept {
    Handle& added = *handle;
    if (!config_.inheritance) {
        added.number = reinterpret_cast<std::uint64_t>(&added);
    } else {
        if (!added.slot) {  // not one that is there already
            HandleSlot* slot = config_.inheritance->take_slot();
            if (!slot) return ENFILE;
            slot->flags = noted.flags;
            slot->reply_flags = added.reply_flags;
            slot->backing = added.backing;
            slot->uid = noted.opener.uid;
            slot->gid = noted.opener.gid;
            slot->pid = noted.opener.pid;
            slot->tid = noted.opener.tid;
            slot->opened_by = noted.unique & ~kUniqueResent;
            slot->marks = added.file->marks();
            added.slot = slot;
            slot->node.store(noted.node);
        }
        added.number = config_.inheritance->handle_of(*added.slot);
        handles_->set(config_.inheritance->index_of(*added.slot), &added);
    }
    handles_->open.with([&](auto& open) { open.push_back(*handle.release()); });
    return 0;
}

void Door::remove(Handle& handle) noexcept {
    (void)handle.answers.load(std::memory_order_acquire);
    if (handle.slot) {
        handles_->set(config_.inheritance->index_of(*handle.slot), nullptr);
        config_.inheritance->free_slot(*handle.slot);
    }
    handles_->open.with([&](auto& open) { open.erase(open.iterator_to(handle)); });
    delete &handle;
}

Handle* Door::find(std::uint64_t number) noexcept {
    if (!config_.inheritance) return reinterpret_cast<Handle*>(number);
    HandleSlot* slot = config_.inheritance->slot_of(number);
    return slot ? handles_->find(config_.inheritance->index_of(*slot)) : nullptr;
}

access::Subject subject_of(fuse_req_t req) noexcept {
    const fuse_ctx* ctx = fuse_req_ctx(req);
    // A pid of 0: of another pid namespace.
    return {ctx->uid, ctx->gid, recent_thread_group(ctx->pid), ctx->pid};
}

bool send(fuse_req_t req, const Delivery& delivery) noexcept {
    if (delivery.error) {
        fuse_reply_err(req, delivery.error);
        return false;
    }
    if (const tree::FilePart& part = delivery.file; part.length > 0) {
        return Session::of(req).reply_file(req, {part.file, part.offset, part.length}) == 0;
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

bool send_open(fuse_req_t req, std::shared_ptr<tree::OpenFile> file, Opening opening) noexcept {
    Door& door = door_of(req);
    auto handle = std::make_unique<Handle>();
    handle->nonblocking = opening.nonblocking;
    const tree::Traits traits = file->traits();
    Backings::Way way = door.backings().open(Session::of(req), opening.node, file, traits,
                                             std::move(opening.claim));
    // libfuse cannot say all of this. FOPEN_STREAM: without it a read that waits on an O_RDWR descriptor
    // would keep another thread's write from it by the lock of the file position.
    OpenReply out{0, way.flags, way.backing};
    if (traits.is_positionless) out.flags |= FOPEN_STREAM;
    if (!traits.wants_flush) out.flags |= FOPEN_NOFLUSH;
    handle->cached = !(way.flags & (FOPEN_DIRECT_IO | kOpenPassthrough));
    handle->source = std::move(way.source);
    handle->use = std::move(way.use);
    handle->file = std::move(file);
    handle->reply_flags = out.flags;
    handle->backing = way.backing;
    // Once the answer is out, RELEASE may come on another thread.
    Handle& added = *handle;
    const std::uint64_t node = opening.created ? opening.created->nodeid : opening.node.raw();
    const Noted noted{node, opening.flags, opening.opener, opening.unique};
    if (int error = door.add(std::move(handle), noted)) {
        fuse_reply_err(req, error);
        return false;
    }
    out.handle = added.number;
    std::array<char, sizeof(fuse_entry_out) + sizeof out> answer;
    std::size_t size = 0;
    if (opening.created) {
        std::memcpy(answer.data(), &*opening.created, sizeof(fuse_entry_out));
        size = sizeof(fuse_entry_out);
    }
    std::memcpy(answer.data() + size, &out, sizeof out);
    added.answers.fetch_add(1, std::memory_order_release);
    if (fuse_reply_buf(req, answer.data(), size + sizeof out) == 0) return true;
    door.remove(added);
    return false;
}

namespace {

Handle& handle_of(fuse_req_t req, const fuse_file_info* fi) noexcept {
    Handle* handle = door_of(req).find(fi->fh);
    IPCFS_CHECK(handle);  // the kernel names none that it has released
    current_request().answers = &handle->answers;
    return *handle;
}

bool nonblocking(const fuse_file_info* fi) noexcept {
    return (fi->flags & O_NONBLOCK) != 0;
}

tree::OpenMode mode_of(const fuse_file_info* fi) noexcept {
    tree::OpenMode mode;
    mode.reads = (fi->flags & O_ACCMODE) != O_WRONLY;
    mode.writes = (fi->flags & O_ACCMODE) != O_RDONLY;
    mode.nonblocking = nonblocking(fi);
    mode.truncates = (fi->flags & O_TRUNC) != 0;
    return mode;
}

// Parks and starts an operation that could not be done at once.
template <class Waiting>
void start_waiting(fuse_req_t req, ParkRank rank, const std::shared_ptr<Waiting>& operation) {
    if (!Session::of(req).park(operation, rank, operation->ticket)) {
        fuse_reply_err(req, EINTR);
        return;
    }
    operation->start();
}

}  // namespace

void op_open(fuse_req_t req, fuse_ino_t ino, fuse_file_info* fi) noexcept {
    Session& session = Session::of(req);
    Door& door = door_of(req);
    const tree::OpenMode mode = mode_of(fi);
    Opening opening{NodeId::from(ino), subject_of(req), mode.nonblocking, {}, {}};
    opening.flags = static_cast<std::uint32_t>(fi->flags);
    opening.unique = current_request().unique;
    const NodeId node = opening.node;
    const pid_t tid = opening.opener.tid;
    if (tree::aside(node) && session.report().passthrough) {
        opening.claim = door.backings().claim(session, node, tid);
        if (!opening.claim) {
            fuse_reply_err(req, ESTALE);
            return;
        }
    } else if (tree::is_aside(node)) {
        door.backings().settled(tid);
    }
    auto file = door.tree().open(node, mode, opening.opener);
    if (!file) return reply_fault(req, file.error());
    int error = 0;
    if ((*file)->try_gate(error) == Outcome::kDone) {
        if (error) {
            fuse_reply_err(req, error);
        } else {
            send_open(req, std::move(*file), std::move(opening));
        }
        return;
    }
    start_waiting(req, ParkRank::kOpen,
                  std::make_shared<WaitingOpen>(req, std::move(*file), std::move(opening)));
}

void op_create(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode,
               fuse_file_info* fi) noexcept {
    Door& door = door_of(req);
    tree::NewChannel made;
    made.mode = mode;
    made.umask = fuse_req_ctx(req)->umask;
    made.subject = subject_of(req);
    // Always exclusive: the kernel has only looked whether the directory may be written. Where another
    // was faster it is to look again, and to check the rights of what it finds.
    auto file = door.tree().create(NodeId::from(parent), name, mode_of(fi), made);
    if (!file) {
        const int error = file.error().code;
        fuse_reply_err(req, error == EEXIST && !(fi->flags & O_EXCL) ? ESTALE : error);
        return;
    }
    auto& [info, opened] = *file;
    Opening opening{info.id, made.subject, nonblocking(fi), {}, entry_of(door, info)};
    opening.flags = static_cast<std::uint32_t>(fi->flags & ~(O_CREAT | O_EXCL | O_TRUNC));
    opening.unique = current_request().unique;
    send_open(req, std::move(opened), std::move(opening));
}

// A descriptor is being closed, in whatever way: at most one answer a close(2), but not the last one.
void op_flush(fuse_req_t req, fuse_ino_t, fuse_file_info* fi) noexcept {
    Handle& handle = handle_of(req, fi);
    std::shared_ptr<tree::OpenFile> file = handle.file;
    queue::Batch pending;
    pending.request = door_of(req).request_id();
    if (door_of(req).already_done(pending.request)) {
        fuse_reply_err(req, 0);
        return;
    }
    int error = 0;
    const bool wait = !handle.nonblocking.load(std::memory_order_relaxed);
    if (file->try_flush(subject_of(req), !wait, pending, error) == Outcome::kDone) {
        fuse_reply_err(req, error);
        return;
    }
    start_waiting(req, ParkRank::kWrite,
                  std::make_shared<WaitingWrite>(
                      req, std::move(file), std::move(pending), 0,
                      [](fuse_req_t answered, std::size_t) { fuse_reply_err(answered, 0); }));
}

void op_release(fuse_req_t req, fuse_ino_t, fuse_file_info* fi) noexcept {
    // One that comes again may have been released already.
    if (Handle* handle = door_of(req).find(fi->fh)) door_of(req).remove(*handle);
    fuse_reply_err(req, 0);
}

void op_read(fuse_req_t req, fuse_ino_t, std::size_t size, off_t offset,
             fuse_file_info* fi) noexcept {
    // Held here: once the answer is out, RELEASE may come on another thread.
    Handle& handle = handle_of(req, fi);
    std::shared_ptr<tree::OpenFile> file = handle.source ? handle.source : handle.file;
    tree::ReadRequest request{size, static_cast<std::uint64_t>(offset), nonblocking(fi)};
    Delivery delivery;
    if (file->try_read(request, delivery) == Outcome::kDone) {
        if (handle.slot) door_of(req).note(handle, current_request().unique);
        bool sent = send(req, delivery);
        file->settle(delivery, sent);
        return;
    }
    start_waiting(req, ParkRank::kRead,
                  std::make_shared<WaitingRead>(req, std::move(file), handle, request));
}

void op_write(fuse_req_t req, fuse_ino_t, const char* data, std::size_t size, off_t offset,
              fuse_file_info* fi) noexcept {
    Handle& handle = handle_of(req, fi);
    tree::WriteRequest request{std::as_bytes(std::span(data, size)), subject_of(req),
                               nonblocking(fi), static_cast<std::uint64_t>(offset)};
    handle.nonblocking.store(request.nonblocking, std::memory_order_relaxed);
    // Where the kernel caches the file its pages decide.
    request.appends = (fi->flags & O_APPEND) && !fi->writepage && !handle.cached;
    queue::Batch pending;
    pending.request = request.request = door_of(req).request_id();
    if (door_of(req).already_done(request.request)) {
        fuse_reply_write(req, size);
        return;
    }
    int error = 0;
    if (handle.file->try_write(request, pending, error) == Outcome::kDone) {
        if (handle.slot) door_of(req).note(handle, current_request().unique);
        if (error) {
            fuse_reply_err(req, error);
        } else {
            fuse_reply_write(req, size);
        }
        return;
    }
    start_waiting(req, ParkRank::kWrite,
                  std::make_shared<WaitingWrite>(req, handle.file, std::move(pending), size,
                                                 [](fuse_req_t answered, std::size_t all) {
                                                     fuse_reply_write(answered, all);
                                                 }));
}

void op_fallocate(fuse_req_t req, fuse_ino_t, int mode, off_t offset, off_t length,
                  fuse_file_info* fi) noexcept {
    const auto end = static_cast<std::uint64_t>(offset) + static_cast<std::uint64_t>(length);
    fuse_reply_err(req, mode == 0 ? handle_of(req, fi).file->allocate(end) : EOPNOTSUPP);
}

namespace {

// Frames to be sent, by an ioctl: as op_write, but for its answer, and open flags that it is not told.
void send_by_ioctl(fuse_req_t req, Handle& handle, const void* in, std::size_t size) noexcept {
    int error = handle.file->may_send();
    tree::WriteRequest request{std::as_bytes(std::span(static_cast<const char*>(in), size)),
                               subject_of(req), handle.nonblocking.load(std::memory_order_relaxed)};
    queue::Batch pending;
    pending.request = request.request = door_of(req).request_id();
    if (door_of(req).already_done(request.request)) {
        fuse_reply_ioctl(req, 0, nullptr, 0);
        return;
    }
    if (error || handle.file->try_write(request, pending, error) == Outcome::kDone) {
        if (error) {
            fuse_reply_err(req, error);
        } else {
            fuse_reply_ioctl(req, 0, nullptr, 0);
        }
        return;
    }
    start_waiting(req, ParkRank::kWrite,
                  std::make_shared<WaitingWrite>(req, handle.file, std::move(pending), 0,
                                                 [](fuse_req_t answered, std::size_t) {
                                                     fuse_reply_ioctl(answered, 0, nullptr, 0);
                                                 }));
}

}  // namespace

void op_ioctl(fuse_req_t req, fuse_ino_t, unsigned command, void*, fuse_file_info* fi,
              unsigned flags, const void* in, std::size_t in_size, std::size_t) noexcept {
    constexpr unsigned kSize = _IOC_SIZEMASK << _IOC_SIZESHIFT;
    if (!(flags & FUSE_IOCTL_DIR) && (command & ~kSize) == kIoctlSend && _IOC_SIZE(command) != 0)
        return send_by_ioctl(req, handle_of(req, fi), in, in_size);
    std::uint32_t frames = 0;
    if ((flags & FUSE_IOCTL_DIR) || command != kIoctlReadBatch || in_size < sizeof frames) {
        fuse_reply_err(req, ENOTTY);
        return;
    }
    std::memcpy(&frames, in, sizeof frames);
    Handle& handle = handle_of(req, fi);
    const int error = handle.file->set_read_batch(frames);
    if (!error && handle.slot) handle.slot->read_batch = frames;
    if (error) {
        fuse_reply_err(req, error);
    } else {
        fuse_reply_ioctl(req, 0, nullptr, 0);
    }
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
    Handle& handle = handle_of(req, fi);
    if (poll && handle.slot) {
        fuse_poll_in in;
        std::memcpy(&in, current_request().body, sizeof in);
        handle.slot->poll = in.kh;
    }
    unsigned ready = handle.file->poll(std::move(ticket));
    if (ready & POLLIN) ready |= POLLRDNORM;
    if (ready & POLLOUT) ready |= POLLWRNORM;
    fuse_reply_poll(req, ready);
}

}  // namespace ipcfs::fuse
