// Information about other processes, and signals to them. Raw system calls; any thread.
#pragma once

#include <cstdint>
#include <string_view>
#include <sys/types.h>

#include <base/fd.hpp>
#include <base/result.hpp>

namespace ipcfs {

// Opens a pidfd for process (thread group) `pid`. ESRCH if there is none.
Result<Fd> open_process(pid_t pid);
bool process_ended(const Fd& pidfd) noexcept;
// Sends `signal` with si_code SI_QUEUE and `value` as si_value; see pidfd_send_signal(2).
Result<void> signal_process(const Fd& pidfd, int signal, std::uint64_t value);
// Returns the thread-group id ("pid") of thread `tid`; 0 if the thread has ended or is in another
// pid namespace. Takes about 1 us since Linux 6.13, and before that a read from /proc.
pid_t thread_group(pid_t tid) noexcept;
// Like thread_group(), cached per calling thread for 100 ms, within which the kernel does not reuse
// a thread id. Some 10 ns, for callers that ask at every request.
pid_t recent_thread_group(pid_t tid) noexcept;
// Whether thread `tid` is exiting because a signal killed its process. False if it exits by itself,
// is alive, or cannot be seen.
bool died_of_signal(pid_t tid) noexcept;
// Whether process `pid` or one of its descendants (at most 256 processes are examined) has an open
// descriptor with inode number `inode` on a file system of type `type`, according to fdinfo
// (proc(5)). A mount that this process cannot see counts as a match. Does not touch the files. Some
// 10 us a descriptor.
bool has_open(pid_t pid, std::uint64_t inode, std::string_view type) noexcept;

}  // namespace ipcfs
