// What a killed daemon leaves to its successor: memory that the holder (daemon/holder.hpp) maps before it forks the
// first daemon, so that every daemon has it at the same addresses. It contains the exchange of FUSE_INIT, the table of
// open files, and with io_uring the rings' buffers with the requests that no daemon has answered yet.
//
// A writer may be killed between any two stores. So each part states the order in which it is written, and what every
// intermediate state means. One daemon at a time; in it, any thread.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <linux/fuse.h>
#include <memory>
#include <sys/types.h>
#include <vector>

#include <base/fd.hpp>
#include <base/guarded.hpp>
#include <base/result.hpp>

namespace ipcfs::fuse {

// An open file of the kernel's, from the answer to OPEN to RELEASE.
struct alignas(64) HandleSlot {
    std::atomic<std::uint64_t> node;        // raw NodeId; 0: free. Written last, cleared first.
    std::atomic<std::uint32_t> generation;  // of the handle; grows with each use of the slot
    std::uint32_t flags;                    // open(2)'s
    std::uint32_t reply_flags;              // FOPEN_*
    std::int32_t backing;                   // 0: none
    uid_t uid;                              // the opener
    gid_t gid;
    pid_t pid, tid;
    std::uint64_t opened_by;  // unique of its OPEN; if that is resent, it was not answered
    std::atomic<std::uint64_t>
        poll;  // the kernel's name for it in FUSE_NOTIFY_POLL; 0: never polled
    std::atomic<std::uint32_t> marks;         // tree::OpenFile::marks()
    std::atomic<std::uint32_t> marks_before;  // what they were before the request `marked_by`
    std::atomic<std::uint64_t> marked_by;
    std::atomic<std::uint32_t> read_batch;
};
static_assert(sizeof(HandleSlot) == 128);

// The progress of one io_uring entry's request and reply, in the same page as its RingHeader. `c` is the commit id
// that the kernel wrote into that header; a field with an older one means nothing.
//   settled == c    the kernel has taken the reply: nothing is left to do
//   answered == c   the reply is complete: commit it (again)
//   replying == c   a reply was being written over the request; `saved` has the overwritten part
//   seen == c       the request's headers have been copied in front of its payload
//   none            the request is as the kernel wrote it
struct RingNote {
    std::atomic<std::uint64_t> seen, replying, answered, settled;
    std::uint32_t op_bytes, payload_bytes;  // of the request
    std::uint32_t saved_bytes;
    std::byte saved[2048];
};
constexpr std::size_t kRingNoteAt = 512;  // in the entry's page

struct InitReply {
    fuse_out_header header;
    fuse_init_out out;
};

class Inheritance {
public:
    static constexpr std::size_t kSlots = 1 << 22;
    static constexpr std::size_t kQueues = 1024;

    // Maps it. `ring_bytes` for the rings, 0: none. Memory is used as it is touched.
    static Result<std::unique_ptr<Inheritance>> make(std::size_t ring_bytes);
    ~Inheritance();
    Inheritance(const Inheritance&) = delete;
    Inheritance& operator=(const Inheritance&) = delete;

    // ---- the connection
    // A number for the request that is unique over all connections and daemons; never 0.
    std::uint64_t request_id(std::uint64_t unique) const noexcept {
        const std::uint64_t plain = unique & ~(1ULL << 63);  // without FUSE_UNIQUE_RESEND
        return mix(shared_->connection + mix(plain)) | 1;
    }
    // FUSE_INIT as the kernel sent it, read(2) directly into this memory. Its header has its length.
    std::byte* init_request() noexcept { return shared_->init_request; }
    static constexpr std::size_t kInitRoom = 16 << 10;
    // The reply is kept before it is sent; init_sent() is called after that.
    void keep_init_reply(const InitReply& reply) noexcept {
        shared_->reply = reply;
        shared_->has_reply.store(true);
    }
    // Null: none was made.
    const InitReply* init_reply() const noexcept {
        return shared_->has_reply.load() ? &shared_->reply : nullptr;
    }
    void init_sent() noexcept { shared_->init_sent.store(true); }
    bool init_was_sent() const noexcept { return shared_->init_sent.load(); }

    // ---- lives
    // Of the daemon that runs, from 1. By the holder, before each fork.
    void begin_life() noexcept;
    std::uint64_t life() const noexcept { return shared_->life.load(); }
    // Reserves 2^32 ids for channels, payloads and regions of this daemon and returns the first, at least `least`.
    // No node id may ever mean two things to the kernel.
    std::uint64_t claim_ids(std::uint64_t least) noexcept;
    // Whether a successor can take the session over. Until it is set, the daemon's death ends the mount.
    void set_survivable(bool yes) noexcept { shared_->survivable.store(yes); }
    bool survivable() const noexcept { return shared_->survivable.load(); }
    // The current daemon answers requests from now on.
    void set_serving() noexcept { shared_->serving.store(true); }
    bool serving() const noexcept { return shared_->serving.load(); }
    // The daemon ends on purpose.
    void set_ending() noexcept { shared_->ending.store(true); }
    bool ending() const noexcept { return shared_->ending.load(); }
    // The number of requests received by a ring queue.
    std::atomic<std::uint64_t>& fetched(std::size_t queue) noexcept {
        return shared_->fetched[queue % kQueues];
    }

    // ---- open files
    // A free slot, to be filled by the caller, who stores `node` last; null when there is none.
    HandleSlot* take_slot() noexcept;
    void free_slot(HandleSlot& slot) noexcept;
    std::uint64_t handle_of(const HandleSlot& slot) const noexcept;
    // Null for a handle that is not open.
    HandleSlot* slot_of(std::uint64_t handle) noexcept {
        const std::size_t index = handle & 0xffffffff;
        if (index >= shared_->slots_used.load()) return nullptr;
        HandleSlot& slot = slots_[index];
        if (slot.generation.load() != handle >> 32 || slot.node.load() == 0) return nullptr;
        return &slot;
    }
    std::size_t index_of(const HandleSlot& slot) const noexcept {
        return static_cast<std::size_t>(&slot - slots_);
    }
    // In a new daemon, before any other use of slots: calls `use` with each that is in use, which may
    // clear its `node`.
    template <class Use>
    void recall(Use&& use) {
        for_each(use);
        free_.with([&](std::vector<std::uint32_t>& list) {
            list.clear();
            for (std::size_t i = shared_->slots_used.load(); i-- > 0;)
                if (slots_[i].node.load() == 0) list.push_back(static_cast<std::uint32_t>(i));
        });
    }
    template <class Use>
    void for_each(Use&& use) {
        const std::size_t used = shared_->slots_used.load();
        for (std::size_t i = 0; i < used; ++i)
            if (slots_[i].node.load() != 0) use(slots_[i]);
    }

    // ---- rings
    std::byte* rings() noexcept { return rings_; }
    std::size_t ring_bytes() const noexcept { return ring_bytes_; }
    // Whether the page at `at` was ever written. (Reading it would allocate it.)
    bool used(const std::byte* at) const noexcept;

private:
    struct Shared {
        std::uint64_t connection;
        std::atomic<std::uint64_t> life, next_id, slots_used;
        std::atomic<bool> survivable, serving, ending, init_sent;
        std::atomic<bool> has_reply;
        InitReply reply;
        alignas(64) std::byte init_request[kInitRoom];
        std::array<std::atomic<std::uint64_t>, kQueues> fetched;
    };
    Inheritance() = default;
    // SplitMix64's finalizer (Vigna).
    static constexpr std::uint64_t mix(std::uint64_t x) noexcept {
        x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ULL;
        x = (x ^ x >> 27) * 0x94d049bb133111ebULL;
        return x ^ x >> 31;
    }

    Shared* shared_ = nullptr;
    HandleSlot* slots_ = nullptr;
    std::byte* rings_ = nullptr;
    std::size_t ring_bytes_ = 0;
    Fd ring_memory_;
    Guarded<std::vector<std::uint32_t>> free_;
};

}  // namespace ipcfs::fuse
