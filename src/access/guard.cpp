// Any thread.
#include <algorithm>
#include <sys/stat.h>

#include <access/guard.hpp>

namespace ipcfs::access {
namespace {

// Checks everyone but the owner. `in_group(gid)` says whether the user is a member.
template <class InGroup>
bool acl_permits(const Acl& acl, gid_t group, uid_t uid, const InGroup& in_group, unsigned want) {
    const auto has = [want](unsigned permissions) { return (permissions & want) == want; };
    const unsigned mask = acl.mask.value_or(7);
    for (const Acl::Named& user : acl.users) {
        if (user.id == uid) return has(user.permissions & mask);
    }
    // One single entry must grant all wanted bits; bits of several entries are not combined.
    bool is_member = false;
    if (in_group(group)) {
        is_member = true;
        if (has(acl.group)) return has(mask);
    }
    for (const Acl::Named& named : acl.groups) {
        if (!in_group(named.id)) continue;
        is_member = true;
        if (has(named.permissions)) return has(mask);
    }
    return !is_member && has(acl.other);
}

}  // namespace

bool permits(mode_t mode, uid_t owner, gid_t group, const Acl* acl, uid_t uid, gid_t gid,
             std::span<const gid_t> groups, unsigned want) {
    want &= 7;
    if (uid == kRoot) return (want & 1) == 0 || S_ISDIR(mode) || (mode & 0111) != 0;
    const auto has = [want](unsigned permissions) { return (permissions & want) == want; };
    if (uid == owner) return has(mode >> 6 & 7);
    const auto in_group = [&](gid_t one) {
        return one == gid || std::find(groups.begin(), groups.end(), one) != groups.end();
    };
    // If the mask is empty, the kernel skips the ACL, so a user whom it names counts as "other"
    // (fs/namei.c, acl_permission_check).
    if (acl && (mode >> 3 & 7) != 0) return acl_permits(*acl, group, uid, in_group, want);
    return has(mode >> (in_group(group) ? 3 : 0) & 7);
}

}  // namespace ipcfs::access
