// The thread that serves a ring queue, and answers: those of its own are submitted at once, those of other threads
// come to it by mail. On the queue's thread, but for reply() and unpark().
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <unistd.h>
#include <utility>

#include <base/check.hpp>
#include <fuse/session.hpp>
#include <fuse/uring.hpp>

namespace ipcfs::fuse {

void RingQueue::run() noexcept {
    serve();
    ended_.store(true);
    // Here and not at destruction: the kernel drops the ring's hold on /dev/fuse with it.
    if (ring_made_) ::io_uring_queue_exit(&ring_);
}

void RingQueue::serve() {
    served_by_.store(std::this_thread::get_id());
    auto go = go_.get_future();
    auto created = create();
    const bool usable = created.has_value();
    prepared_.set_value(std::move(created));
    if (!usable || !go.get()) {
        registered_.set_value(Fault{ECANCELED, "ring stopped"});
        return;
    }
    auto registered = register_entries();
    const bool running = registered.has_value();
    registered_.set_value(std::move(registered));

    while (running && !stop_.load(std::memory_order_relaxed) &&
           !ended_.load(std::memory_order_relaxed)) {
        drain_mail();
        const Nanos due = is_crowded() ? next_tick() : 0;
        int result = 0;
        // A poster that sees `sleeping` writes the eventfd; one that came before left its mail.
        alarm_->sleeping.store(true);
        if (mail_.load() != nullptr || stop_.load()) {
            result = submit();
        } else if (due != 0) {
            const Nanos left = std::max<Nanos>(due - SystemClock().monotonic(), 1);
            __kernel_timespec wait{left / kSecond, left % kSecond};
            io_uring_cqe* first = nullptr;
            result = ::io_uring_submit_and_wait_timeout(&ring_, &first, 1, &wait, nullptr);
        } else {
            result = ::io_uring_submit_and_wait(&ring_, 1);
        }
        alarm_->sleeping.store(false);
        settle();
        if (result < 0 && result != -EINTR && result != -ETIME && result != -EAGAIN &&
            result != -EBUSY) {
            end("io_uring_enter failed");
            break;
        }
        if (!serve_completions()) break;
        if (due != 0) tick(due);
    }
    if (running && !ended_.load()) {  // stopped, not aborted: the last replies still go out
        drain_mail();
        submit();
    }
}

// Whether more operations wait than the queue can spare entries for, or did just now.
bool RingQueue::is_crowded() const noexcept {
    return overloaded_since_.load(std::memory_order_relaxed) != 0 ||
           parked_.load(std::memory_order_relaxed) > limit_;
}

int RingQueue::submit() {
    const int result = ::io_uring_submit(&ring_);
    settle();
    return result;
}

// Marks the replies that the kernel has taken, so that a successor does not repeat them.
void RingQueue::settle() {
    if (committing_.empty() || ::io_uring_sq_ready(&ring_) != 0) return;
    for (RingEntry* entry : committing_)
        entry->note().settled.store(entry->commit_id, std::memory_order_release);
    committing_.clear();
}

bool RingQueue::serve_completions() {
    io_uring_cqe* cqe = nullptr;
    unsigned head = 0;
    unsigned seen = 0;
    io_uring_for_each_cqe(&ring_, head, cqe) {
        complete(cqe->user_data, cqe->res);
        ++seen;
    }
    ::io_uring_cq_advance(&ring_, seen);
    return !ended_.load(std::memory_order_relaxed);
}

void RingQueue::complete(std::uint64_t tag, int result) {
    if (tag == kWakeTag) return await_mail();
    RingEntry& entry = *reinterpret_cast<RingEntry*>(tag);
    switch (result) {
        case 0: return handle(entry);
        case -EAGAIN:
        case -EINTR: return submit_command(entry, entry.last);
        case -ENOTCONN:
        case -ECONNABORTED:
        case -ENODEV: return end("the file system was unmounted");
        default:
            if (std::exchange(entry.adopted, false))
                return submit_command(entry, RingCommand::kRegister);
            // The kernel did not take the entry back. The ring goes on with one less.
            if (lost_.fetch_add(1, std::memory_order_relaxed) + 1 == entries_.size())
                end("the kernel refuses all ring entries");
    }
}

void RingQueue::handle(RingEntry& entry) {
    RingHeader& header = entry.header();
    fuse_in_header in;
    std::memcpy(&in, header.in_out, sizeof in);
    entry.commit_id = header.commit_id;
    entry.adopted = false;
    const std::size_t payload = header.payload_bytes;
    IPCFS_CHECK(payload <= settings_.max_payload + RingEntry::kPage &&
                in.len >= sizeof in + payload);
    const std::size_t op_bytes = in.len - sizeof in - payload;
    IPCFS_CHECK(op_bytes <= kRingHeaderBytes);

    // Handlers want one contiguous request: put the headers in front of the payload where it lies.
    std::byte* start = entry.payload() - op_bytes - sizeof in;
    std::memcpy(start, &in, sizeof in);
    std::memcpy(start + sizeof in, header.op_in, op_bytes);
    if (settings_.region) {
        RingNote& note = entry.note();
        note.op_bytes = static_cast<std::uint32_t>(op_bytes);
        note.payload_bytes = static_cast<std::uint32_t>(payload);
        note.seen.store(entry.commit_id, std::memory_order_release);
    }
    process(entry, start, false);
}

void RingQueue::process(RingEntry& entry, const std::byte* raw, bool left) {
    if (settings_.fetched) settings_.fetched->fetch_add(1, std::memory_order_relaxed);
    Request request(*settings_.session, raw, &entry, left);
    settings_.session->dispatch(request, *settings_.counts);
    traffic_ |= !request.was_moved();
    if (request.is_open()) {  // there is no reply, but the entry is to fetch the next one
        fuse_out_header out{sizeof out, 0, request.unique()};
        const iovec iov{&out, sizeof out};
        reply(entry, &iov, 1);
    }
}

io_uring_sqe* RingQueue::take_sqe() {
    for (;;) {
        if (io_uring_sqe* sqe = ::io_uring_get_sqe(&ring_)) return sqe;
        const int result = submit();
        IPCFS_CHECK(result >= 0 || result == -EINTR || result == -EAGAIN || result == -EBUSY);
    }
}

void RingQueue::submit_command(RingEntry& entry, RingCommand command) {
    entry.last = command;
    io_uring_sqe* sqe = take_sqe();
    std::memset(sqe, 0, 2 * sizeof *sqe);  // an SQE128
    sqe->opcode = IORING_OP_URING_CMD;
    sqe->flags = IOSQE_FIXED_FILE;
    sqe->fd = 0;  // the registered one
    sqe->cmd_op = static_cast<std::uint32_t>(command);
    sqe->user_data = reinterpret_cast<std::uint64_t>(&entry);
    RingCommandArea area{};
    area.queue = static_cast<std::uint16_t>(settings_.queue);
    if (command == RingCommand::kRegister) {
        sqe->addr = reinterpret_cast<std::uint64_t>(entry.buffers);
        sqe->len = 2;
    } else {
        area.commit_id = entry.commit_id;
        if (settings_.region) committing_.push_back(&entry);
    }
    std::memcpy(sqe->cmd, &area, sizeof area);
}

void RingQueue::await_mail() {
    io_uring_sqe* sqe = take_sqe();
    ::io_uring_prep_read(sqe, alarm_->event.get(), &wake_value_, sizeof wake_value_, 0);
    sqe->user_data = kWakeTag;
}

void RingQueue::end(const char* reason) {
    if (ended_.exchange(true)) return;
    if (settings_.on_end && !stop_.load()) settings_.on_end(reason);
}

ssize_t RingQueue::reply(RingEntry& entry, const iovec* iov, int count) noexcept {
    fuse_out_header out;
    std::memcpy(&out, iov[0].iov_base, sizeof out);
    std::size_t bytes = 0;
    for (int i = 1; i < count; ++i) bytes += iov[i].iov_len;
    if (!begin_reply(entry, bytes)) return -1;
    if (bytes > entry.buffers[1].iov_len) return end_reply(entry, out, -EMSGSIZE);
    std::byte* to = entry.payload();
    for (int i = 1; i < count; ++i) {
        if (iov[i].iov_len == 0) continue;  // then there may be no base
        std::memmove(to, iov[i].iov_base, iov[i].iov_len);
        to += iov[i].iov_len;
    }
    return end_reply(entry, out, static_cast<ssize_t>(bytes));
}

ssize_t RingQueue::reply(RingEntry& entry, const fuse_out_header& header,
                         const FileBytes& bytes) noexcept {
    if (!begin_reply(entry, bytes.length)) return -1;
    const bool fits = bytes.length <= entry.buffers[1].iov_len;
    return end_reply(entry, header, fits ? read_bytes(bytes, entry.payload()) : -EMSGSIZE);
}

// Saves for a successor what the reply will overwrite of the request. That is little: READ and its like have no
// payload, and requests with a payload get short replies.
bool RingQueue::begin_reply(RingEntry& entry, std::size_t bytes) noexcept {
    unpark(entry);
    if (settings_.region) {
        RingNote& note = entry.note();
        const std::size_t lost =
            std::min<std::size_t>({bytes, note.payload_bytes, sizeof note.saved});
        std::memcpy(note.saved, entry.payload(), lost);
        note.saved_bytes = static_cast<std::uint32_t>(lost);
        note.replying.store(entry.commit_id, std::memory_order_release);
    }
    if (!ended_.load(std::memory_order_relaxed)) return true;
    errno = ENOENT;
    return false;
}

// `bytes` of payload are in place, or it is -errno: then the client gets EIO, and the result is -1.
ssize_t RingQueue::end_reply(RingEntry& entry, fuse_out_header out, ssize_t bytes) noexcept {
    RingHeader& header = entry.header();
    if (bytes < 0) out.error = -EIO;
    const std::size_t payload = bytes < 0 ? 0 : static_cast<std::size_t>(bytes);
    out.len = static_cast<std::uint32_t>(sizeof out + payload);
    std::memcpy(header.in_out, &out, sizeof out);
    header.payload_bytes = static_cast<std::uint32_t>(payload);
    if (settings_.region) entry.note().answered.store(entry.commit_id, std::memory_order_release);

    if (served_by_.load(std::memory_order_relaxed) == std::this_thread::get_id()) {
        submit_command(entry, RingCommand::kCommitAndFetch);
    } else {
        RingEntry* head = mail_.load(std::memory_order_relaxed);
        do entry.next_mail = head;
        while (!mail_.compare_exchange_weak(head, &entry));
        Burst::wake(alarm_);
    }
    if (bytes < 0) {
        errno = static_cast<int>(-bytes);
        return -1;
    }
    return out.len;
}

void RingQueue::Alarm::wake() noexcept {
    if (!sleeping.exchange(false)) return;
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto sent = ::write(event.get(), &one, sizeof one);
}

void RingQueue::drain_mail() {
    if (mail_.load(std::memory_order_relaxed) == nullptr) return;
    RingEntry* newest = mail_.exchange(nullptr);
    RingEntry* oldest = nullptr;  // replies go out in the order they were made
    while (newest) {
        RingEntry* next = newest->next_mail;
        newest->next_mail = oldest;
        oldest = newest;
        newest = next;
    }
    while (oldest) {
        RingEntry* next = oldest->next_mail;
        submit_command(*oldest, RingCommand::kCommitAndFetch);
        oldest = next;
    }
}

void RingQueue::park(RingEntry& entry, std::uint64_t unique, ParkRank rank) noexcept {
    entry.unique = unique;
    entry.rank = rank;
    parked_.fetch_add(1, std::memory_order_relaxed);
    entry.parked_as.store(++parkings_, std::memory_order_release);
}

void RingQueue::unpark(RingEntry& entry) noexcept {
    if (entry.parked_as.exchange(0)) parked_.fetch_sub(1, std::memory_order_relaxed);
}

}  // namespace ipcfs::fuse
