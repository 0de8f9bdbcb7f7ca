// Who may do what: every decision of the daemon, one function a question. The kernel decides about paths
// and opens in the mounted tree (default_permissions). These questions are for doors that no kernel
// guards, and about rights that no file mode expresses; the caller reports a refusal. Pure functions;
// any thread.
#pragma once

#include <span>
#include <sys/types.h>

#include <access/acl.hpp>

namespace ipcfs::access {

inline constexpr uid_t kRoot = 0;

// Whether a user has all permissions `want` (or of kRead, kWrite, kSearch) on a file: the kernel's
// generic_permission() with the algorithm of acl(5). `mode` includes the type bits: root may search
// any directory, and execute a file that anyone may execute. `acl` is null if the mode suffices;
// `groups` are supplementary. Ignores capabilities that uid 0 may have dropped.
bool permits(mode_t mode, uid_t owner, gid_t group, const Acl* acl, uid_t uid, gid_t gid,
             std::span<const gid_t> groups, unsigned want);

// Settings through extended attributes, without a file mode that says so: the channel's owner, and root.
bool may_change_settings(uid_t owner, uid_t who) noexcept;
// A pool of chunks: its owner and root may close it, only its owner may send chunks of it, and those
// who may read the channel's `queue` may map it.
bool may_close_pool(uid_t owner, uid_t who) noexcept;
bool may_send_chunk(uid_t owner, uid_t who) noexcept;
bool may_map_pool(uid_t owner, uid_t who, bool may_read_queue) noexcept;
// A region that was handed over: the process that received its message. 0: no such process is visible.
bool may_claim_region(pid_t receiver, pid_t who) noexcept;
// A signal to the writer of `notify`. A set-user-ID program that writes where it was told to must not
// be signalled by others, so the writer has to be the user who opened the file.
bool may_register_signal(uid_t opener, uid_t writer) noexcept;

}  // namespace ipcfs::access
