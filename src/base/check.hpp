// Bugs abort with a message: a daemon in an unknown state must not go on handing out messages.
#pragma once

#include <cstdio>
#include <cstdlib>

namespace ipcfs {

// Prints `what` with its place on stderr and aborts. Any thread.
[[noreturn]] inline void bug(const char* what, const char* file, int line) noexcept {
    std::fprintf(stderr, "ipcfs: bug: %s at %s:%d\n", what, file, line);
    std::abort();
}

}  // namespace ipcfs

#define IPCFS_CHECK(condition) ((condition) ? void() : ::ipcfs::bug(#condition, __FILE__, __LINE__))
