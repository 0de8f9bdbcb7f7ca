// The attribute's format is that of linux/posix_acl_xattr.h; the rules are those of acl(5). The
// bytes are a client's and are not trusted.
#include <algorithm>
#include <bit>
#include <cstring>
#include <string>
#include <utility>

#include <access/acl.hpp>

namespace ipcfs::access {
namespace {

constexpr std::uint32_t kVersion = 2;
constexpr std::uint32_t kNoId = 0xffffffff;

// As in the attribute.
struct Entry {
    std::uint16_t tag;
    std::uint16_t permissions;
    std::uint32_t id;
};
static_assert(std::endian::native == std::endian::little && sizeof(Entry) == 8);

// Values ascend in the order in which entries must appear.
enum Tag : std::uint16_t {
    kOwner = 0x01,
    kUser = 0x02,
    kGroupOwner = 0x04,
    kGroup = 0x08,
    kMask = 0x10,
    kOther = 0x20,
};

Fault invalid(const char* why) {
    return Fault{EINVAL, std::string("acl: ") + why};
}

bool repeats_an_id(const std::vector<Acl::Named>& named) {
    std::vector<std::uint32_t> ids;
    ids.reserve(named.size());
    for (const Acl::Named& each : named) ids.push_back(each.id);
    std::sort(ids.begin(), ids.end());
    return std::adjacent_find(ids.begin(), ids.end()) != ids.end();
}

constexpr std::uint8_t bits(mode_t mode, unsigned shift) {
    return static_cast<std::uint8_t>(mode >> shift & 7);
}

}  // namespace

Result<Acl> parse_acl(std::span<const std::byte> attribute) {
    std::uint32_t version = 0;
    if (attribute.size() < sizeof version) return invalid("too short for its header");
    std::memcpy(&version, attribute.data(), sizeof version);
    if (version != kVersion) return invalid("unknown version");
    auto rest = attribute.subspan(sizeof version);
    if (rest.size() % sizeof(Entry) != 0)
        return invalid("the length is not a multiple of an entry's");
    if (rest.size() / sizeof(Entry) > kMaxAclEntries) return invalid("too many entries");

    Acl acl;
    unsigned seen = 0;  // tags, or'ed together
    unsigned last = 0;
    for (; !rest.empty(); rest = rest.subspan(sizeof(Entry))) {
        Entry entry;
        std::memcpy(&entry, rest.data(), sizeof entry);
        const auto [tag, wide, id] = entry;
        if (wide > 7) return invalid("permissions other than rwx");
        const auto permissions = static_cast<std::uint8_t>(wide);
        const bool named = tag == kUser || tag == kGroup;
        if (tag < last || (tag == last && !named))
            return invalid("entries repeated or out of order");
        if (named && id == kNoId) return invalid("an invalid id");
        switch (tag) {
            case kOwner: acl.owner = permissions; break;
            case kUser: acl.users.push_back({id, permissions}); break;
            case kGroupOwner: acl.group = permissions; break;
            case kGroup: acl.groups.push_back({id, permissions}); break;
            case kMask: acl.mask = permissions; break;
            case kOther: acl.other = permissions; break;
            default: return invalid("unknown tag");
        }
        seen |= tag;
        last = tag;
    }
    constexpr unsigned kNeeded = kOwner | kGroupOwner | kOther;
    if ((seen & kNeeded) != kNeeded) return invalid("owner, group or other is missing");
    if ((seen & (kUser | kGroup)) != 0 && !acl.mask) return invalid("the mask is missing");
    if (repeats_an_id(acl.users) || repeats_an_id(acl.groups)) return invalid("an id given twice");
    return acl;
}

std::vector<std::byte> serialize(const Acl& acl) {
    const auto bytes = std::as_bytes(std::span(&kVersion, 1));
    std::vector<std::byte> out(bytes.begin(), bytes.end());
    const auto add = [&](Tag tag, std::uint8_t permissions, std::uint32_t id) {
        const Entry entry{tag, permissions, id};
        const auto more = std::as_bytes(std::span(&entry, 1));
        out.insert(out.end(), more.begin(), more.end());
    };
    add(kOwner, acl.owner, kNoId);
    for (const Acl::Named& each : acl.users) add(kUser, each.permissions, each.id);
    add(kGroupOwner, acl.group, kNoId);
    for (const Acl::Named& each : acl.groups) add(kGroup, each.permissions, each.id);
    if (acl.mask) add(kMask, *acl.mask, kNoId);
    add(kOther, acl.other, kNoId);
    return out;
}

Acl acl_of(mode_t mode) {
    Acl acl;
    acl.owner = bits(mode, 6);
    acl.group = bits(mode, 3);
    acl.other = bits(mode, 0);
    return acl;
}

mode_t mode_of(const Acl& acl) {
    return static_cast<mode_t>(acl.owner << 6 | acl.mask.value_or(acl.group) << 3 | acl.other);
}

Acl with_mode(Acl acl, mode_t mode) {
    acl.owner = bits(mode, 6);
    (acl.mask ? *acl.mask : acl.group) = bits(mode, 3);
    acl.other = bits(mode, 0);
    return acl;
}

bool is_minimal(const Acl& acl) {
    return !acl.mask && acl.users.empty() && acl.groups.empty();
}

Inherited inherit(const Acl& defaults, mode_t mode) {
    const mode_t permissions = mode & mode_of(defaults);
    return {with_mode(defaults, permissions), (mode & ~mode_t{0777}) | permissions};
}

}  // namespace ipcfs::access
