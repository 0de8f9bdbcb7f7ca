// A door that takes over from a killed one: its open files, and what the requests it left need.
// take_over() runs before any request is served.
#include <cerrno>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <unordered_map>

#include <fuse/operations.hpp>
#include <fuse/uapi.hpp>

namespace ipcfs::fuse {

using tree::Delivery;
using tree::NodeId;
using tree::Outcome;

namespace {

// Stands for a file that was lost with the previous daemon: every use of it fails at once.
class LostFile final : public tree::OpenFile {
public:
    explicit LostFile(int error) : error_(error) {}
    tree::Traits traits() const noexcept override { return {.wants_flush = true}; }
    Outcome try_flush(const access::Subject&, bool, queue::Batch&, int& error) noexcept override {
        error = error_;
        return Outcome::kDone;
    }
    Outcome try_read(const tree::ReadRequest&, Delivery& to) noexcept override {
        to.error = error_;
        return Outcome::kDone;
    }
    Outcome try_write(const tree::WriteRequest&, queue::Batch&, int& error) noexcept override {
        error = error_;
        return Outcome::kDone;
    }
    int allocate(std::uint64_t) noexcept override { return error_; }
    int set_read_batch(std::uint32_t) noexcept override { return error_; }
    int may_send() const noexcept override { return error_; }
    unsigned poll(std::unique_ptr<channel::PollTicket>) noexcept override {
        return POLLIN | POLLOUT | POLLERR | POLLHUP;
    }
    std::uint32_t marks() const noexcept override { return kTouched; }

private:
    const int error_;
};

}  // namespace

void Door::take_over(Session& session, std::span<const LeftRequest> left) {
    std::unordered_map<std::uint64_t, std::uint32_t> again;  // unique -> opcode
    for (const LeftRequest& one : left) again.emplace(one.unique, one.opcode);
    const auto lost = std::make_shared<LostFile>(ESTALE);
    config_.inheritance->recall([&](HandleSlot& slot) {
        // The kernel has not heard of it: its OPEN is going to be handled again.
        const auto open = again.find(slot.opened_by);
        if (open != again.end() && (open->second == FUSE_OPEN || open->second == FUSE_CREATE)) {
            slot.node.store(0);
            return;
        }
        // Of an answer that the client did not get.
        if (const std::uint64_t by = slot.marked_by.load(); by != 0 && again.contains(by))
            slot.marks.store(slot.marks_before.load());

        const NodeId node = NodeId::from(slot.node.load());
        auto handle = std::make_unique<Handle>();
        handle->slot = &slot;
        handle->nonblocking = (slot.flags & O_NONBLOCK) != 0;
        handle->reply_flags = slot.reply_flags;
        handle->backing = slot.backing;
        handle->cached = !(slot.reply_flags & (FOPEN_DIRECT_IO | kOpenPassthrough));
        tree::OpenMode mode;
        mode.reads = (slot.flags & O_ACCMODE) != O_WRONLY;
        mode.writes = (slot.flags & O_ACCMODE) != O_RDONLY;
        mode.nonblocking = handle->nonblocking;
        auto file = tree_.open(node, mode, {slot.uid, slot.gid, slot.pid, slot.tid});
        if (file && (*file)->resume(slot.marks.load()) == 0) {
            handle->file = std::move(*file);
            if (const std::uint32_t batch = slot.read_batch.load())
                (void)handle->file->set_read_batch(batch);
            ++taken_over_.reopened;
        } else {
            handle->file = lost;
            slot.marks.store(lost->marks());
            ++taken_over_.lost;
        }
        handle->use =
            backings_.restore(session, node, handle->file, slot.reply_flags, slot.backing);
        add(std::move(handle), {});
    });
}

void Door::wake_pollers(Session& session) noexcept {
    config_.inheritance->for_each([&](HandleSlot& slot) {
        if (const std::uint64_t poll = slot.poll.load()) session.notify_poll(poll);
    });
}

}  // namespace ipcfs::fuse
