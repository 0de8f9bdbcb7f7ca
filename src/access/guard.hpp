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

// Settings through extended attributes, which no file mode guards: the channel's owner, and root.
constexpr bool may_change_settings(uid_t owner, uid_t who) noexcept {
    return who == owner || who == kRoot;
}
// A pool of chunks: its owner and root may close it, its owner alone may send chunks of it, and whoever
// may read the channel's `queue` may map it.
constexpr bool may_close_pool(uid_t owner, uid_t who) noexcept {
    return who == owner || who == kRoot;
}
constexpr bool may_send_chunk(uid_t owner, uid_t who) noexcept {
    return who == owner;
}
constexpr bool may_map_pool(uid_t owner, uid_t who, bool may_read_queue) noexcept {
    return who == owner || may_read_queue;
}
// A region that was handed over: the process that received its message. 0: no such process is visible.
constexpr bool may_claim_region(pid_t receiver, pid_t who) noexcept {
    return who != 0 && who == receiver;
}
// A signal to the writer of `notify`. A set-user-ID program that writes where it was told to must not
// be signalled by others, so the writer has to be the user who opened the file.
constexpr bool may_register_signal(uid_t opener, uid_t writer) noexcept {
    return opener == writer;
}

}  // namespace ipcfs::access
