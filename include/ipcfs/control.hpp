// The control socket: what cannot go through a file, above all descriptors. SOCK_SEQPACKET, found
// through the symbolic link kern/ipc/control; one request or one reply a packet, little-endian:
// ControlHeader, the structure of its operation, then the texts that this names (no terminators), with
// descriptors as SCM_RIGHTS. This is an ABI shared by daemon and client header; structures only grow
// at their end, which older readers ignore. Plain structs and constants; any thread.
//
// Replies come in the order they are ready, told apart by `tag`. Who asks is what SO_PEERCRED and
// SO_PEERGROUPS said when the connection was made. Rights are those that open(2) would find.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace ipcfs {

inline constexpr std::uint32_t kControlMagic = 0x43435049;  // the bytes I P C C
inline constexpr std::uint16_t kControlVersion = 1;
inline constexpr std::size_t kMaxControlPacket = 16384;  // bytes
inline constexpr std::size_t kMaxControlFds = 4;         // descriptors a packet; more: EINVAL

enum class ControlOp : std::uint16_t {
    kHello = 1,        // ControlHello -> ControlWelcome, then the mount point
    kSend = 2,         // ControlSend, channel path, extensions; fd: memfd -> ControlSent
    kPoolOpen = 3,     // ControlPoolOpen, channel path; fd: memfd -> ControlPool; fd: ledger
    kPoolMap = 4,      // ControlId -> ControlPool; fds: memfd (read-only), ledger
    kPoolClose = 5,    // ControlId; lent chunks stay until they are given back
    kEventFd = 6,      // ControlWatch, channel path, filter; fd: eventfd -> ControlId
    kUnwatch = 7,      // ControlId of kEventFd or kSignal
    kSignal = 8,       // ControlWatch, channel path, filter -> ControlId
    kLazyOffer = 9,    // ControlSend (size in `size`), channel path, extensions -> ControlSent
    kLazyAttach = 10,  // ControlLazy; fds: userfaultfd or memfd, socket of the receiver
    kLazyReport = 11,  // ControlLazyReport, by the producer; no reply
    kHandoff = 12,     // ControlHandoff, channel path, region name, target path -> ControlSent
    kClaim =
        13,  // ControlId of a handoff that this process received -> ControlId (its size); fd: memfd
    kPayloadFd = 14,  // ControlId of a sealed payload -> ControlId (its size); fd: memfd, read-only
    kReply = 0x8000,  // set in a reply to the operation in the other bits
    kLazyServe = 0x4001,  // to a producer: ControlLazy; the fds of the receiver's kLazyAttach
    kLazyGone = 0x4002,   // to a producer: ControlId; nobody can ask for it any more
};

struct ControlHeader {
    std::uint32_t magic = kControlMagic;
    std::uint16_t version = kControlVersion;
    std::uint16_t op = 0;   // ControlOp
    std::uint32_t tag = 0;  // the client's choice; comes back in the reply; 0 in what is no reply
    std::int32_t error =
        0;  // replies: an errno, 0 for success; then a text may follow in place of the structure
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

// As in FrameHeader.
struct ControlSend {
    std::uint64_t message_id = 0;
    std::uint64_t correlation_id = 0;
    std::uint64_t deadline = 0;  // ns since the epoch; 0: none
    std::uint64_t size = 0;      // kSend: 0, or what the memfd must measure
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
    std::uint64_t chunk_size = 0;   // bytes that one loan may have
    std::uint64_t stride = 0;       // distance of two chunks in the memfd; a multiple of a page
    std::uint32_t chunk_count = 0;  // 1 to kMaxPoolChunks
    std::uint32_t path_length = 0;  // of the channel the pool is for
};
struct ControlPool {
    std::uint64_t id = 0;
    std::uint64_t chunk_size = 0;
    std::uint64_t stride = 0;
    std::uint32_t chunk_count = 0;
    std::uint32_t reserved = 0;
};

struct ControlWatch {
    std::uint32_t signal = 0;  // kSignal: its number
    std::uint32_t path_length = 0;
    std::uint32_t filter_length = 0;  // words as written to `notify`: events=arrival,high ...
    std::uint32_t reserved = 0;
};

enum class LazyMode : std::uint32_t {
    kFaults =
        0,  // first descriptor: a userfaultfd of the receiver's, on which the range is registered
    kWhole = 1,  // first descriptor: a memfd of `length` bytes to be filled whole
};
struct ControlLazy {
    std::uint64_t payload_id = 0;
    std::uint64_t address = 0;  // of the range in the receiver
    std::uint64_t length = 0;   // bytes, a multiple of a page
    LazyMode mode = LazyMode::kFaults;
    std::uint32_t uid = 0;  // kLazyServe: of the receiver, from the kernel's word
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
    std::uint32_t target_length = 0;  // of the channel the message goes to
};

// What a frame says of a body that is not in it: the value of its extension kPayload. Stamped by the
// daemon; a client writes it for a chunk of its pool only.
enum class PayloadKind : std::uint8_t {
    kSealed = 1,   // payload/<payload_id>
    kPooled = 2,   // a chunk of a pool: kPoolMap
    kLazy = 3,     // filled by the producer as it is touched: kLazyAttach
    kHandoff = 4,  // a region that has changed hands: kClaim
};
struct PayloadRef {
    PayloadKind kind = PayloadKind::kSealed;
    std::uint8_t reserved[3] = {};
    std::uint32_t chunk = 0;       // kPooled: its index
    std::uint64_t size = 0;        // bytes
    std::uint64_t pool = 0;        // kPooled: the pool's id
    std::uint32_t generation = 0;  // kPooled: of the chunk, as in PoolChunk
    std::uint32_t reserved2 = 0;
};

static_assert(sizeof(ControlHeader) == 16 && sizeof(ControlSend) == 48 &&
              sizeof(ControlLazy) == 40);
static_assert(sizeof(PayloadRef) == 32 && std::is_trivially_copyable_v<PayloadRef>);
static_assert(sizeof(ControlHandoff) == 56 && sizeof(ControlPoolOpen) == 24);

}  // namespace ipcfs
