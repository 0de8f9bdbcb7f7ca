// FUSE over io_uring: one ring for each CPU, served by one thread pinned there, because the kernel
// queues a request on the ring of the CPU its caller runs on and a wake-up across CPUs costs ten
// times one within. Ours and not libfuse's: there, interrupts do not reach the operation, and
// replies from other threads deadlock or corrupt the ring.
//
// Only the queue's own thread touches its ring. A reply from another thread fills the entry's
// buffers and goes through the mailbox. An entry is owned by the kernel (fetching), then by the
// request, then, from the call that replies on, by the queue's thread. Owned by Session.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <future>
#include <liburing.h>
#include <memory>
#include <sys/uio.h>
#include <thread>
#include <vector>

#include <base/burst.hpp>
#include <base/clock.hpp>
#include <base/fd.hpp>
#include <base/result.hpp>
#include <fuse/file_reply.hpp>
#include <fuse/inheritance.hpp>
#include <fuse/parked.hpp>
#include <fuse/protocol.hpp>
#include <fuse/uapi.hpp>

namespace ipcfs::fuse {

class RingQueue;

// A request that a predecessor left unanswered.
struct LeftRequest {
    std::uint64_t unique = 0;  // as it was at first, without kUniqueResent
    std::uint32_t opcode = 0;
    std::uint64_t handle = 0;  // of READ, WRITE and the like; else whatever
};

// An entry's memory is [page: RingHeader ... scratch for the headers, right-aligned][payload].
struct RingEntry {
    static constexpr std::size_t kPage = 4096;
    RingHeader& header() const noexcept { return *reinterpret_cast<RingHeader*>(memory); }
    RingNote& note() const noexcept { return *reinterpret_cast<RingNote*>(memory + kRingNoteAt); }
    std::byte* payload() const noexcept { return memory + kPage; }

    RingQueue* queue = nullptr;
    std::byte* memory = nullptr;
    iovec buffers[2] = {};
    RingCommand last = RingCommand::kRegister;
    std::uint64_t commit_id = 0;
    bool left = false;  // a predecessor may have left a request or a reply in it
    bool adopted =
        false;  // from a predecessor; if the kernel does not know it any more, it is registered anew
    RingEntry* next_mail = nullptr;
    // The order among waiting operations; 0: it does not wait. Whoever replies sets it to 0.
    std::atomic<std::uint64_t> parked_as = 0;
    std::uint64_t unique = 0;  // valid while it waits, like `rank`; the queue's thread
    ParkRank rank = ParkRank::kRead;
};

struct RingSettings {
    int device = -1;  // borrowed; /dev/fuse
    Session* session = nullptr;
    unsigned queue = 0;
    unsigned depth = 8192;
    std::size_t max_payload = 1 << 20;
    OpcodeCounts* counts = nullptr;
    ParkedTable* parked = nullptr;
    // Memory for the buffers that successors inherit: ring_stride() bytes an entry. Null: private memory.
    std::byte* region = nullptr;
    const Inheritance* inheritance = nullptr;  // has `region`; set only if there was a predecessor
    std::atomic<std::uint64_t>* fetched = nullptr;   // counts requests, for others to see
    std::function<void(const char* reason)> on_end;  // the connection ended; on the queue's thread
};

// The use of the reserve of entries, of one queue or of all.
struct Overload {
    Nanos since = 0;              // SystemClock::monotonic, 0: not overloaded
    std::uint64_t rotations = 0;  // operations asked to give up so far
    std::size_t parked = 0;
    std::size_t lost_entries = 0;  // refused by the kernel, never to be fetched again
};

// Bytes of an entry's memory.
std::size_t ring_stride(std::size_t max_payload) noexcept;

class RingQueue {
public:
    explicit RingQueue(RingSettings settings);
    ~RingQueue();  // stops and joins

    // Starts the thread, which creates the ring and the entries' memory; returns when it has. The
    // kernel knows nothing yet, so a failure here is the last chance to go on without rings.
    Result<void> prepare();
    // What a predecessor left in `region` unanswered. After prepare(); will be handled by the queue.
    std::vector<LeftRequest> left() const;
    // Call on all queues once the INIT reply is out, then await_registered on each.
    void let_register();
    Result<void> await_registered();
    // Makes the thread end, completing nothing. Any thread; join is the caller's.
    void stop() noexcept;
    void join() noexcept;

    // Replies to the request in `entry` with what would be written to the device. Any thread, once a
    // request. -1 with errno ENOENT when the connection is over.
    ssize_t reply(RingEntry& entry, const iovec* iov, int count) noexcept;
    // The same with what lies in a file, read to where the kernel looks for it.
    ssize_t reply(RingEntry& entry, const fuse_out_header& header, const FileBytes& bytes) noexcept;

    // Records that the operation of `entry` waits. On the queue's thread.
    void park(RingEntry& entry, std::uint64_t unique, ParkRank rank) noexcept;
    // Records that it does not wait any more. Any thread; more calls do nothing.
    void unpark(RingEntry& entry) noexcept;

    Overload overload() const noexcept;

private:
    // Wakes the queue's thread, which looks for mail before it sleeps.
    struct Alarm final : Burst::Wakeable {
        void wake() noexcept override;
        Fd event;
        std::atomic<bool> sleeping{false};
    };

    static constexpr std::uint64_t kWakeTag =
        0;  // user_data of the eventfd's read; else a RingEntry*

    void run() noexcept;
    void serve();
    Result<void> create();
    Result<void> register_entries();
    bool serve_completions();
    void complete(std::uint64_t tag, int result);
    void handle(RingEntry& entry);
    void handle_again(RingEntry& entry);
    void process(RingEntry& entry, const std::byte* raw, bool left);
    int submit();
    void settle();
    bool begin_reply(RingEntry& entry, std::size_t bytes) noexcept;
    ssize_t end_reply(RingEntry& entry, fuse_out_header out, ssize_t bytes) noexcept;
    void submit_command(RingEntry& entry, RingCommand command);
    void await_mail();
    void drain_mail();
    io_uring_sqe* take_sqe();
    void end(const char* reason);
    bool is_crowded() const noexcept;
    Nanos next_tick();
    void tick(Nanos due);
    void rotate();

    RingSettings settings_;
    unsigned limit_;  // entries that may be parked before rotation starts
    std::byte* region_ = nullptr;
    std::size_t region_bytes_ = 0;
    std::vector<RingEntry> entries_;
    std::vector<RingEntry*>
        committing_;  // replies that are not submitted yet, where there is a region
    io_uring ring_{};
    bool ring_made_ = false;
    std::uint64_t wake_value_ = 0;

    std::atomic<RingEntry*> mail_{nullptr};
    std::shared_ptr<Alarm> alarm_ = std::make_shared<Alarm>();  // bursts may outlive the queue
    std::atomic<bool> stop_{false};
    std::atomic<bool> ended_{false};

    std::uint64_t parkings_ = 0;  // the queue's thread
    std::atomic<std::size_t> parked_{0};
    std::atomic<Nanos> overloaded_since_{0};
    std::atomic<std::uint64_t> rotations_{0};
    std::atomic<std::size_t> lost_{0};
    // Of the overload that lasts; the queue's thread:
    Nanos last_tick_ = 0;
    Nanos last_rotation_ = 0;
    Nanos busy_until_ = 0;
    bool traffic_ = false;  // a request that did not park came since next_tick

    std::promise<Result<void>> prepared_;
    std::promise<bool> go_;
    std::atomic<bool> gone_{false};  // go_ was set
    std::promise<Result<void>> registered_;
    std::atomic<std::thread::id> served_by_;  // the queue's thread, once it runs
    std::thread thread_;
};

}  // namespace ipcfs::fuse
