// The parts of the kernel's FUSE ABI that Debian 12's <linux/fuse.h> (7.38) does not have: requests
// over io_uring (7.42), passthrough (7.40). Names and layouts are the kernel's documented ABI, said in
// our own words; everything older comes from <linux/fuse.h>. Constants and plain structs only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <linux/fuse.h>
#include <linux/ioctl.h>

namespace ipcfs::fuse {

// INIT flags, as one 64-bit word (flags | flags2 << 32).
constexpr std::uint64_t kInitExt = 1ULL << 30;
constexpr std::uint64_t kInitHandleKillprivV2 = 1ULL << 28;
constexpr std::uint64_t kInitPassthrough = 1ULL << 37;
constexpr std::uint64_t kInitHasResend = 1ULL << 39;
constexpr std::uint64_t kInitOverIoUring = 1ULL << 41;
// The kernel's.
constexpr unsigned kMinorWithEpoch = 44;  // FUSE_NOTIFY_INC_EPOCH

// Notifications, which go to /dev/fuse as a reply to nothing.
enum class Notification : std::int32_t {
    kPoll = 1,
    kResend = 7,    // requests that were read and not answered are to come again, marked:
    kNewEpoch = 8,  // makes the kernel look up again every name that it has cached
};
constexpr std::uint64_t kUniqueResent = 1ULL << 63;

constexpr std::size_t kRingHeaderBytes = 128;  // each of the two header areas of an entry

// What the kernel and the daemon exchange in an entry besides its payload. `in_out` holds the
// request's fuse_in_header and later the reply's fuse_out_header, `op_in` the header of the
// operation. The payload of `payload_bytes` lies in the entry's second buffer.
struct RingHeader {
    std::byte in_out[kRingHeaderBytes];
    std::byte op_in[kRingHeaderBytes];
    std::uint64_t flags;
    std::uint64_t commit_id;  // names the request when its reply is committed
    std::uint32_t payload_bytes;
    std::uint32_t padding;
    std::uint64_t reserved;
};
static_assert(sizeof(RingHeader) == 288);

// cmd_op of an IORING_OP_URING_CMD on the FUSE device.
enum class RingCommand : std::uint32_t {
    kRegister = 1,        // give the kernel an entry's buffers, fetch a request
    kCommitAndFetch = 2,  // reply to the request in the entry, fetch the next one
};

// In the 80-byte command area of such an SQE.
struct RingCommandArea {
    std::uint64_t flags;
    std::uint64_t commit_id;
    std::uint16_t queue;
    std::uint8_t padding[6];
};
static_assert(sizeof(RingCommandArea) == 24);

// ---- passthrough --------------------------------------------------------------------------------

// In the reply to INIT the word behind flags2: how deep file systems may lie below a backing file,
// counting this one. 0, which is all that older daemons say, is "no passthrough".
constexpr std::size_t kInitStackDepthAt = offsetof(fuse_init_out, flags2) + sizeof(std::uint32_t);

// In the reply to OPEN: reads, writes and mappings go to the backing file whose id lies in the last
// word. Together with FOPEN_DIRECT_IO mappings alone.
constexpr std::uint32_t kOpenPassthrough = 1U << 7;
struct OpenReply {
    std::uint64_t handle;
    std::uint32_t flags;
    std::int32_t backing;
};
static_assert(sizeof(OpenReply) == sizeof(fuse_open_out));

// ioctl(2) on the FUSE device: makes `file` a backing, whose id is the result; and ends that.
struct BackingMap {
    std::int32_t file;
    std::uint32_t flags;
    std::uint64_t padding;
};
constexpr unsigned long kBackingOpen = _IOW(229, 1, BackingMap);
constexpr unsigned long kBackingClose = _IOW(229, 2, std::uint32_t);

}  // namespace ipcfs::fuse
