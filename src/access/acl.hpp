// POSIX access control lists: converts them from and to the kernel's
// system.posix_acl_{access,default} attributes, combines them with file modes as in acl(5), and
// computes what new objects inherit. guard.hpp decides by them. Plain values, any thread.
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

// Permission bits, as in a file mode.
inline constexpr unsigned kRead = 4, kWrite = 2, kSearch = 1;

// A mask is required if any user or group is named. parse_acl() enforces this; code that builds an
// Acl itself must do so too.
struct Acl {
    struct Named {
        std::uint32_t id = 0;
        std::uint8_t permissions = 0;
        bool operator==(const Named&) const = default;
    };

    std::uint8_t owner = 0;
    std::vector<Named> users;  // unique ids, in the order given
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

// Parses the attribute: a little-endian u32 version (2), then entries of u16 tag, u16 permissions,
// u32 id. The order is owner, users, group, groups, mask, other; owner, group and other appear once
// each. EINVAL if an entry is missing, repeated or out of order, if a user or group is named
// without a mask, if a named id is repeated or 2^32-1, or above kMaxAclEntries entries. Ids of
// unnamed entries are ignored, as in the kernel. An attribute without entries, by which setxattr(2)
// removes an ACL, is EINVAL here.
Result<Acl> parse_acl(std::span<const std::byte> attribute);

// The inverse of parse_acl() for an ACL that obeys its rules.
std::vector<std::byte> serialize(const Acl& acl);

// The ACL equivalent to the permission bits of `mode`.
Acl acl_of(mode_t mode);

// The nine permission bits that stat(2) shows for the ACL; the group bits are the mask if there is one.
mode_t mode_of(const Acl& acl);

// The ACL after chmod(2) to `mode`: changes owner, other, and the mask (the group if there is none).
Acl with_mode(Acl acl, mode_t mode);

// Whether the mode bits alone express the ACL, so that it need not be stored.
bool is_minimal(const Acl& acl);

struct Inherited {
    Acl access;  // if is_minimal(): `mode` suffices
    mode_t mode;
};

// Access ACL and mode of an object created with `mode` (before the umask) in a directory with the
// default ACL `defaults`. Bits of `mode` above the nine are kept. A new directory also gets
// `defaults` as its own default ACL.
Inherited inherit(const Acl& defaults, mode_t mode);

}  // namespace ipcfs::access
