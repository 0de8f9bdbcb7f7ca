// The handlers of FUSE requests. Private to fuse/: door.cpp has those of open files, names.cpp those
// of names and attributes and the table of all.
#pragma once

#include <linux/fuse.h>

#include <fuse/door.hpp>

namespace ipcfs::fuse {

inline Door& door_of(fuse_req_t req) noexcept {
    return *static_cast<Door*>(Session::of(req).user());
}
inline void reply_fault(fuse_req_t req, const Fault& fault) noexcept {
    fuse_reply_err(req, fault.code);
}

// Answers to requests on names.
void reply_names(fuse_req_t req, const Result<tree::NodeInfo>& info) noexcept;
void reply_names(fuse_req_t req, const Result<void>& done) noexcept;

// The answer that gives a name's node and attributes to the kernel.
fuse_entry_out entry_of(const Door& door, const tree::NodeInfo& info) noexcept;

void op_open(fuse_req_t req, fuse_ino_t ino, fuse_file_info* fi) noexcept;
void op_create(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode,
               fuse_file_info* fi) noexcept;
void op_flush(fuse_req_t req, fuse_ino_t ino, fuse_file_info* fi) noexcept;
void op_release(fuse_req_t req, fuse_ino_t ino, fuse_file_info* fi) noexcept;
void op_read(fuse_req_t req, fuse_ino_t ino, std::size_t size, off_t offset,
             fuse_file_info* fi) noexcept;
void op_write(fuse_req_t req, fuse_ino_t ino, const char* data, std::size_t size, off_t offset,
              fuse_file_info* fi) noexcept;
void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
                  fuse_file_info* fi) noexcept;
void op_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned command, void* argument, fuse_file_info* fi,
              unsigned flags, const void* in, std::size_t in_size, std::size_t out_size) noexcept;
void op_poll(fuse_req_t req, fuse_ino_t ino, fuse_file_info* fi, fuse_pollhandle* poll) noexcept;

}  // namespace ipcfs::fuse
