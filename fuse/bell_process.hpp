// A process that calls utimensat(2) for the doorbell. A thread of the daemon must not do that: it would wait,
// uninterruptibly, for an inode lock that a client holds while it waits for the daemon. If the daemon were killed then,
// that thread would keep its memory, the io_uring rings mapped there, and with them /dev/fuse: the connection would
// never be aborted, and its clients would wait for ever.
#pragma once

#include <cstddef>
#include <string>
#include <sys/types.h>
#include <vector>

#include <base/fd.hpp>
#include <base/guarded.hpp>
#include <base/result.hpp>

namespace ipcfs::fuse {

class BellProcess {
public:
    static constexpr unsigned kLines = 16;  // that can ring, or be stuck, at a time

    BellProcess() = default;
    ~BellProcess();  // after the mount is gone, so that the process is stuck nowhere
    BellProcess(const BellProcess&) = delete;
    BellProcess& operator=(const BellProcess&) = delete;

    // Forks. The calling process must have no other thread.
    Result<void> start();
    // Sets the mtime of `path` and returns 0 or an errno. Waits; any thread, at most kLines calls at a time.
    // EPIPE when the process is gone.
    int ring(const std::string& path) noexcept;

private:
    std::vector<Fd> lines_;
    Guarded<std::vector<int>> free_lines_;
    pid_t process_ = -1;
};

}  // namespace ipcfs::fuse
