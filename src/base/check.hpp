// Bugs abort with a message: a daemon in an unknown state must not go on handing out messages.
#pragma once

namespace ipcfs {

// Prints `what` with its place on stderr and aborts. Any thread.
[[noreturn]] void bug(const char* what, const char* file, int line) noexcept;

}  // namespace ipcfs

#define IPCFS_CHECK(condition) ((condition) ? void() : ::ipcfs::bug(#condition, __FILE__, __LINE__))
