// The FUSE transport: mounts, carries requests from the kernel to the file system's handlers by io_uring
// (uring.hpp) or by reads of /dev/fuse, and carries the answers back. libfuse (low-level API) negotiates
// FUSE_INIT and sends invalidations. A handler that does not answer its request before it returns must
// have parked it. Handlers never see FUSE_INTERRUPT.
//
// Owned by main. Threads: with io_uring one per CPU and one reader of /dev/fuse (FORGET,
// INTERRUPT); without, several readers. No handler may wait for a client, nor touch the own mount.
#pragma once

#ifndef FUSE_USE_VERSION
#define FUSE_USE_VERSION 312
#endif
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <fuse_lowlevel.h>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include <base/result.hpp>
#include <fuse/file_reply.hpp>
#include <fuse/inheritance.hpp>
#include <fuse/mount.hpp>
#include <fuse/parked.hpp>
#include <fuse/protocol.hpp>
#include <fuse/uapi.hpp>
#include <fuse/uring.hpp>

namespace ipcfs::fuse {

enum class Transport { kClassic, kUring };

class Session;

struct SessionConfig {
    std::string mountpoint;
    Transport transport = Transport::kUring;  // falls back to classic, see SessionReport
    unsigned ring_depth = 8192;   // entries a CPU; bounded so that all buffers fit in 64 GiB
    unsigned reader_threads = 0;  // classic only; 0: one a CPU, at least 2
    std::size_t max_write = 1 << 20;
    bool allow_other = true;
    bool passthrough = true;  // falls back, see SessionReport
    // INIT flags that libfuse 3.14 does not know (uapi.hpp); set where the kernel offers them.
    std::uint64_t extra_init_flags = 0;
    // The connection ended by itself: unmounted or aborted from outside. Called once, on a thread
    // of the session, which must not call stop() there. Not called after stop().
    std::function<void(const std::string& reason)> on_end;
    bool debug = false;  // every request on standard error

    // A mount that a holder process keeps, and the memory that outlives this process with it: the session takes over
    // what a predecessor left there. Both must outlive the session. Null: the session mounts by itself.
    const Mount* mount = nullptr;
    Inheritance* inheritance = nullptr;
    // Called once in start(), before any request is handled, if there was a predecessor. `left` has the requests that
    // it did not answer, in their order.
    std::function<void(Session& session, std::span<const LeftRequest> left)> on_take_over;
};

struct SessionReport {
    Transport transport = Transport::kClassic;
    std::string why_not_uring;  // when asked for and not in use
    unsigned queues = 0;
    unsigned depth = 0;
    unsigned readers = 0;
    bool passthrough = false;         // open_backing() works
    std::string why_not_passthrough;  // else
    bool custom_io = false;  // false: a libfuse built without it; no io_uring, no extra flags
    bool survives = false;   // a successor can go on
    std::string why_not_survives;
    std::size_t taken_over = 0;  // requests that a predecessor had left
    bool allow_other = false;
    std::string libfuse_version;
    unsigned proto_major = 0, proto_minor = 0;  // the kernel's
    std::uint64_t init_offered = 0, init_accepted = 0;
};

class Session {
public:
    // How much memory an Inheritance needs for the rings of such a session; 0 for classic.
    static std::size_t ring_bytes(const SessionConfig& config);

    // Mounts; starts no thread. `system` is kept; its init is called after this class set max_write, and
    // may change anything but that. `user` is for its handlers.
    static Result<std::unique_ptr<Session>> open(SessionConfig config, const FileSystem& system,
                                                 void* user);
    // Stops. All parked operations must have replied by now (stop interrupts them).
    ~Session();

    // Answers INIT and starts the threads; returns when requests are served. Call once.
    Result<void> start();

    // Unmounts, aborts, joins the threads, then interrupts what is still parked with ENOTCONN.
    // Idempotent. Not on a thread of the session.
    void stop() noexcept;

    void* user() const noexcept { return user_; }

    // Makes an operation, which has taken `request`, findable for interrupts and for rotation until the request is
    // answered. Call on the thread that handles the request, before others can reach the operation. False if it was
    // interrupted already; then the caller answers EINTR.
    bool park(std::shared_ptr<Parked> op, ParkRank rank, Request& request);

    // Interrupts parked operations whose interrupt the kernel lost (ParkedTable::lost_interrupts); to be called
    // every 100 ms or so. Returns how many. Any thread but the session's.
    std::size_t end_lost_interrupts();

    // As fuse_lowlevel_notify_inval_inode; ENOTCONN from stop() on. It can wait for the inode's lock: not on
    // threads of the session. ENOENT (the kernel has nothing cached) is success.
    Result<void> notify_inval_inode(fuse_ino_t node, off_t offset, off_t length);
    // Wakes who polls under this handle of the kernel's (also a predecessor's). Does not wait: any thread.
    void notify_poll(std::uint64_t handle) noexcept;

    // Passthrough, where report() has it: lets clients use the regular file `file` directly, in opens
    // that are answered with the id (OpenReply), until it is closed again. Any thread.
    Result<std::int32_t> open_backing(int file) noexcept;
    void close_backing(std::int32_t id) noexcept;

    // For Request and RingQueue. Any thread.
    void dispatch(Request& request, OpcodeCounts& counts) noexcept;
    bool send(RingEntry* entry, const iovec* parts, int count) noexcept;
    bool send(RingEntry* entry, const fuse_out_header& header, const FileBytes& bytes) noexcept;
    void unpark(Request& request) noexcept;

    // Any thread.
    const SessionReport& report() const noexcept { return report_; }  // complete after start()
    RequestCounts requests() const noexcept;
    std::size_t parked() const { return parked_.size(); }
    Overload overload() const;  // of all queues: the earliest `since`, sums; classic: nothing

private:
    struct Reader {
        OpcodeCounts counts;
        std::thread thread;
        std::atomic<bool> done{false};
    };
    Session(SessionConfig config, const FileSystem& system, void* user)
        : config_(std::move(config)), system_(system), user_(user) {}
    static void on_init(void* self, fuse_conn_info* connection) noexcept;
    static ssize_t on_writev(int fd, iovec* iov, int count, void* self) noexcept;

    Result<void> attach();
    Result<void> answer_init();
    std::string cannot_survive() const;
    bool notify_raw(Notification code, const void* body, std::size_t size) noexcept;
    Result<std::vector<std::vector<std::byte>>> collect_left();
    Result<void> take_over();
    void handle(const std::byte* raw, OpcodeCounts& counts) noexcept;
    std::string prepare_rings(std::uint64_t offered);  // empty, or why not
    std::string try_passthrough();                     // empty, or why not
    ssize_t write_init_reply(iovec* iov, int count) noexcept;
    Result<void> start_readers();
    void stop_readers() noexcept;
    void read_requests(Reader& reader) noexcept;
    void interrupt(std::uint64_t unique) noexcept;
    void ended(const std::string& reason) noexcept;
    template <class Notify>
    Result<void> notify(const char* what, Notify&& send);

    SessionConfig config_;
    const FileSystem& system_;
    void* user_;
    SessionReport report_;
    Mount mount_;
    fuse_session* session_ = nullptr;

    std::uint64_t init_unique_ = 0;  // while INIT is being answered
    bool init_answered_ = false;
    bool replaying_ = false;  // a predecessor has answered INIT
    bool must_ring_ = false;  // and has chosen io_uring
    ParkedTable parked_;
    std::vector<std::unique_ptr<OpcodeCounts>> ring_counts_;
    std::vector<std::unique_ptr<RingQueue>> rings_;
    std::vector<std::unique_ptr<Reader>> readers_;
    OpcodeCounts init_counts_;

    std::shared_timed_mutex notifying_;  // shared: while a notification is sent
    std::atomic<bool> stopping_{false};
    std::atomic<bool> end_reported_{false};
    std::mutex stop_mutex_;  // held while stopping
    bool stopped_ = false;
};

}  // namespace ipcfs::fuse
