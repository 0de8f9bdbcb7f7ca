// POSIX access control lists: parsed from and written to the form of the kernel's
// system.posix_acl_{access,default} attributes, and combined with file modes as acl(5) says. The
// kernel checks the permissions of files (default_permissions); this keeps ACL and mode in step, makes
// what a new object inherits, and answers as the kernel for doors that it does not guard. Plain
// values, any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <sys/types.h>
#include <vector>

#include <base/result.hpp>

namespace ipcfs::access {

// Permissions are the usual three bits.
inline constexpr unsigned kRead = 4, kWrite = 2, kSearch = 1;

// A mask must be there whenever a user or
// group is named; `parse` sees to it, whoever builds one by hand must.
struct Acl {
    struct Named {
        std::uint32_t id = 0;
        std::uint8_t permissions = 0;
        bool operator==(const Named&) const = default;
    };

    std::uint8_t owner = 0;
    std::vector<Named> users;  // no id twice; in the order in which they were given
    std::uint8_t group = 0;    // the owning group's
    std::vector<Named> groups;
    std::optional<std::uint8_t> mask;  // bounds users, group and groups
    std::uint8_t other = 0;

    bool operator==(const Acl&) const = default;
};

inline constexpr std::size_t kMaxAclEntries = 256;

// The extended attributes that hold them.
inline constexpr std::string_view kAccessAcl = "system.posix_acl_access";
inline constexpr std::string_view kDefaultAcl = "system.posix_acl_default";

// Reads the attribute's bytes: a little-endian u32 version, 2, then entries of u16 tag, u16
// permissions, u32 id. EINVAL unless it is one whole ACL: owner, users, group, groups, mask, other
// in this order; owner, group and other once each; a mask if anybody is named; no id twice and none
// of 2^32-1; at most kMaxAclEntries entries. Ids of unnamed entries are ignored, as the kernel
// does. An attribute without entries is EINVAL here; for a setxattr it means to remove the ACL.
Result<Acl> parse_acl(std::span<const std::byte> attribute);

// The attribute's bytes. parse_acl of them is `acl` again if that obeys the rules above.
std::vector<std::byte> serialize(const Acl& acl);

// The ACL that says what the permission bits of `mode` say.
Acl acl_of(mode_t mode);

// The nine permission bits that stat(2) shows for it: the group's are the mask, where there is one.
mode_t mode_of(const Acl& acl);

// The ACL after a chmod(2) to `mode`: owner, other, and the mask or, without one, the group change.
Acl with_mode(Acl acl, mode_t mode);

// Whether its mode bits say it all, so that it need not be kept.
bool is_minimal(const Acl& acl);

struct Inherited {
    Acl access;  // is_minimal: `mode` alone says it
    mode_t mode;
};

// Access ACL and mode of an object created with `mode` (the umask not applied) in a directory
// whose default ACL is `defaults`. Bits of `mode` above the nine stay. A new directory also gets
// `defaults` as its own default ACL.
Inherited inherit(const Acl& defaults, mode_t mode);

// Whether open(2) would find that user to have `want` (r 4, w 2, x 1, or'ed) of a file: the kernel's
// generic_permission() with the access check algorithm of acl(5), bit by bit. `mode` with the type
// bits: root searches any directory, and executes a file that anybody may. `acl`: null where the mode
// says it all. `groups`: the supplementary ones. Capabilities that a uid 0 gave up are not known.
bool permits(mode_t mode, uid_t owner, gid_t group, const Acl* acl, uid_t uid, gid_t gid,
             std::span<const gid_t> groups, unsigned want);

}  // namespace ipcfs::access
