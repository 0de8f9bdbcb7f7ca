// Other processes: pidfds and the thread group of a thread. Raw system calls; any thread.
#pragma once

#include <cstdint>
#include <string_view>
#include <sys/types.h>

#include <base/fd.hpp>
#include <base/result.hpp>

namespace ipcfs {

// A pidfd of the process with that (thread-group) id. ESRCH when there is none.
Result<Fd> open_process(pid_t pid);
// Whether the process of a pidfd has ended.
bool process_ended(const Fd& pidfd) noexcept;
// Sends `signal` with siginfo: si_code SI_QUEUE, si_value the low bits of `value`. See
// pidfd_send_signal(2).
Result<void> signal_process(const Fd& pidfd, int signal, std::uint64_t value);
// The thread-group id ("pid") of thread `tid`; 0 when it is not visible from here or gone. About a
// microsecond from Linux 6.13 on; before, a read of /proc where it is no main thread.
pid_t thread_group(pid_t tid) noexcept;
// The same, remembered by the calling thread for a tenth of a second, in which no thread id comes round
// again. Some 10 ns: who serves many threads of a process asks for each of their requests.
pid_t recent_thread_group(pid_t tid) noexcept;
// Whether thread `tid` is on its way out because a signal killed its process: not when it exited by
// itself, and not when it lives or cannot be seen.
bool died_of_signal(pid_t tid) noexcept;
// Whether process `pid` or one of its descendants has a descriptor that fdinfo shows with inode number
// `inode` (proc(5)), and not on a file system of another type than `type`. The files are not touched.
// Some 10 us a descriptor.
bool has_open(pid_t pid, std::uint64_t inode, std::string_view type) noexcept;

}  // namespace ipcfs
