// The parts of the kernel's FUSE ABI that Debian 12's <linux/fuse.h> (7.38) does not have: requests
// over io_uring (7.42). Names and layouts are the kernel's documented ABI, said in our own words;
// everything older comes from <linux/fuse.h>. Constants and plain structs only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <linux/fuse.h>

namespace ipcfs::fuse {

// INIT flags, as one 64-bit word (flags | flags2 << 32).
constexpr std::uint64_t kInitExt = 1ULL << 30;
constexpr std::uint64_t kInitHandleKillprivV2 = 1ULL << 28;
constexpr std::uint64_t kInitOverIoUring = 1ULL << 41;

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

}  // namespace ipcfs::fuse
