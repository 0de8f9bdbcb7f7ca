// Answers by a ring: those of the queue's own thread are submitted at once, those of others come to it by
// mail. Any thread, but for drain_mail().
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <thread>
#include <unistd.h>

#include <fuse/inheritance.hpp>
#include <fuse/uring.hpp>

namespace ipcfs::fuse {

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

// What of the request the reply is going to overwrite is kept for a successor. That is little: READ and
// its like have no payload, and what has one gets a short reply.
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

// `bytes` of payload are in place, or -errno: then the client gets EIO. -1 with that errno.
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

}  // namespace ipcfs::fuse
