// The protocol of the control socket, which carries what files cannot, above all descriptors. It is
// a SOCK_SEQPACKET socket, found through the symbolic link kern/ipc/control, with one request or
// reply a packet. A packet is a ControlHeader, the structure of its operation, and the texts whose
// lengths that structure gives (no terminators), all little-endian; descriptors come as SCM_RIGHTS.
// This is an ABI shared by daemon and client header: structures only grow at their end, and older
// readers ignore what follows. Plain structs and constants; any thread.
//
// Replies may come in any order; `tag` matches them to requests. The client's identity is that of
// SO_PEERCRED and SO_PEERGROUPS at connect(2). Rights are those that open(2) would check.
#pragma once

#include <cstddef>
#include <cstdint>

#include <ipcfs/frame.hpp>

namespace ipcfs {

inline constexpr std::uint32_t kControlMagic = 0x43435049;  // the bytes I P C C
inline constexpr std::uint16_t kControlVersion = 1;
inline constexpr std::size_t kMaxControlPacket = 16384;  // bytes
inline constexpr std::size_t kMaxControlFds = 4;         // descriptors a packet; more is EINVAL

enum class ControlOp : std::uint16_t {
    kHello = 1,        // ControlHello -> ControlWelcome, then the mount point
    kSend = 2,         // ControlSend, channel path, extensions; fd: memfd -> ControlSent
    kPoolOpen = 3,     // ControlPoolOpen, channel path; fd: memfd -> ControlPool; fd: ledger
    kPoolMap = 4,      // ControlId -> ControlPool; fds: memfd (read-only), ledger
    kPoolClose = 5,    // ControlId; lent chunks stay until they are given back
    kEventFd = 6,      // ControlWatch, channel path, filter; fd: eventfd -> ControlId
    kUnwatch = 7,      // ControlId of kEventFd or kSignal
    kSignal = 8,       // ControlWatch, channel path, filter -> ControlId
    kLazyOffer = 9,    // ControlSend (with `size`), channel path, extensions -> ControlSent
    kLazyAttach = 10,  // ControlLazy; fds: userfaultfd or memfd, the receiver's socket
    kLazyReport = 11,  // ControlLazyReport, by the producer; no reply
    kHandoff = 12,     // ControlHandoff, channel path, region name, target path -> ControlSent
    kClaim = 13,       // ControlId of a received handoff -> ControlId (its size); fd: memfd
    kPayloadFd = 14,  // ControlId of a sealed payload -> ControlId (its size); fd: memfd, read-only
    kReply = 0x8000,  // set in replies, beside the operation's bits
    kLazyServe = 0x4001,  // to a producer: ControlLazy; fds of the receiver's kLazyAttach
    kLazyGone = 0x4002,   // to a producer: ControlId; no receiver can ask for it any more
};

struct ControlHeader {
    std::uint32_t magic = kControlMagic;
    std::uint16_t version = kControlVersion;
    std::uint16_t op = 0;    // ControlOp
    std::uint32_t tag = 0;   // chosen by the client and returned in the reply; else 0
    std::int32_t error = 0;  // replies: 0, or an errno, which a text may follow, not the structure
};

struct ControlHello {
    std::uint32_t version = kControlVersion;
    std::uint32_t reserved = 0;
};
struct ControlWelcome {
    std::uint32_t version = kControlVersion;
    std::uint32_t max_packet = kMaxControlPacket;
    std::uint64_t pid = 0;  // of the daemon
    std::uint32_t mount_length = 0;
    std::uint32_t reserved = 0;
};
struct ControlId {
    std::uint64_t id = 0;
};

// Fields as in FrameHeader.
struct ControlSend {
    std::uint64_t message_id = 0;
    std::uint64_t correlation_id = 0;
    std::uint64_t deadline = 0;  // ns since the epoch; 0: none
    std::uint64_t size = 0;      // bytes; kSend: 0, or the size that the memfd must have
    std::uint16_t flags = 0;     // kFrameExpires
    std::uint8_t priority = 128;
    std::uint8_t type = 2;          // FrameType
    std::uint32_t path_length = 0;  // of the channel, below the mount, without leading slash
    std::uint32_t extensions_length = 0;
    std::uint32_t reserved = 0;
};
struct ControlSent {
    std::uint64_t payload_id = 0;
    std::uint64_t size = 0;
};

struct ControlPoolOpen {
    std::uint64_t chunk_size = 0;   // the most bytes of one loan
    std::uint64_t stride = 0;       // bytes from chunk to chunk; a multiple of the page size
    std::uint32_t chunk_count = 0;  // 1 to kMaxPoolChunks
    std::uint32_t path_length = 0;  // of the channel that the pool serves
};
struct ControlPool {
    std::uint64_t id = 0;
    std::uint64_t chunk_size = 0;
    std::uint64_t stride = 0;
    std::uint32_t chunk_count = 0;
    std::uint32_t reserved = 0;
};

struct ControlWatch {
    std::uint32_t signal = 0;  // kSignal: the signal's number
    std::uint32_t path_length = 0;
    std::uint32_t filter_length = 0;  // words as written to `notify`: events=arrival,high ...
    std::uint32_t reserved = 0;
};

enum class LazyMode : std::uint32_t {
    kFaults = 0,  // first descriptor: the receiver's userfaultfd, on which the range is registered
    kWhole = 1,   // first descriptor: a memfd of `length` bytes to fill completely
};
struct ControlLazy {
    std::uint64_t payload_id = 0;
    std::uint64_t address = 0;  // of the range in the receiver
    std::uint64_t length = 0;   // bytes, a multiple of the page size
    LazyMode mode = LazyMode::kFaults;
    std::uint32_t uid = 0;  // kLazyServe: the receiver's, from the kernel
    std::uint32_t pid = 0;
    std::uint32_t reserved = 0;
};
struct ControlLazyReport {
    std::uint64_t payload_id = 0;
    std::uint64_t faults = 0;  // since the last report
    std::uint64_t pages = 0;   // of 4 KiB
};

struct ControlHandoff {
    ControlSend send;                 // path_length: of the channel whose share/ has the region
    std::uint32_t name_length = 0;    // of the region
    std::uint32_t target_length = 0;  // of the channel to which the message goes
};

static_assert(sizeof(ControlHeader) == 16 && sizeof(ControlSend) == 48 &&
              sizeof(ControlLazy) == 40);
static_assert(sizeof(ControlHandoff) == 56 && sizeof(ControlPoolOpen) == 24);

}  // namespace ipcfs
