// The handlers of FUSE requests. Private to fuse/: door.cpp has those of open files, names.cpp those
// of names and attributes and the table of all.
#pragma once

#include <linux/fuse.h>

#include <fuse/door.hpp>

namespace ipcfs::fuse {

inline Door& door_of(const Request& request) noexcept {
    return *static_cast<Door*>(request.session().user());
}

// Answers to requests on names.
void reply_names(Request& request, const Result<tree::NodeInfo>& info) noexcept;
void reply_names(Request& request, const Result<void>& done) noexcept;

// The answer that gives a name's node and attributes to the kernel.
fuse_entry_out entry_of(const Door& door, const tree::NodeInfo& info) noexcept;

void op_open(Request& request) noexcept;
void op_create(Request& request) noexcept;
void op_flush(Request& request) noexcept;
void op_release(Request& request) noexcept;
void op_read(Request& request) noexcept;
void op_write(Request& request) noexcept;
void op_fallocate(Request& request) noexcept;
void op_ioctl(Request& request) noexcept;
void op_poll(Request& request) noexcept;

}  // namespace ipcfs::fuse
