// Answers to READ whose bytes are in a file of the daemon's own (a memory file): they are read into the ring entry's
// buffer or sent by splice(2), without a buffer in between.
#pragma once

#include <cstddef>
#include <cstdint>
#include <linux/fuse.h>
#include <sys/types.h>

namespace ipcfs::fuse {

// A part of a file. If the file is shorter, so is the answer.
struct FileBytes {
    int file = -1;  // borrowed
    std::uint64_t offset = 0;
    std::size_t length = 0;
};

// Reads to the end of the part or of the file. The number of bytes, or -errno.
ssize_t read_bytes(const FileBytes& bytes, std::byte* to) noexcept;

// Writes the reply with this header and these bytes to /dev/fuse; its length is set here. As writev(2).
ssize_t send_bytes(int device, fuse_out_header header, const FileBytes& bytes) noexcept;

}  // namespace ipcfs::fuse
