// The attribute's format is that of linux/posix_acl_xattr.h; the rules are those of acl(5). The
// bytes are a client's and are not trusted.
#include <algorithm>
#include <string>
#include <utility>

#include <access/acl.hpp>

namespace ipcfs::access {
namespace {

constexpr std::uint32_t kVersion = 2;
constexpr std::uint32_t kNoId = 0xffffffff;
constexpr std::size_t kHeaderSize = 4;
constexpr std::size_t kEntrySize = 8;

// Values ascend in the order in which entries must appear.
enum Tag : std::uint16_t {
    kOwner = 0x01,
    kUser = 0x02,
    kGroupOwner = 0x04,
    kGroup = 0x08,
    kMask = 0x10,
    kOther = 0x20,
};

template <class T>
T load_le(std::span<const std::byte> from) {
    std::uint32_t value = 0;
    for (std::size_t i = 0; i < sizeof(T); ++i)
        value |= static_cast<std::uint32_t>(from[i]) << (8 * i);
    return static_cast<T>(value);
}

template <class T>
void store_le(std::vector<std::byte>& to, T value) {
    for (std::size_t i = 0; i < sizeof(T); ++i)
        to.push_back(static_cast<std::byte>(static_cast<std::uint32_t>(value) >> (8 * i) & 0xff));
}

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
    if (attribute.size() < kHeaderSize) return invalid("too short for its header");
    if (load_le<std::uint32_t>(attribute) != kVersion) return invalid("unknown version");
    auto rest = attribute.subspan(kHeaderSize);
    if (rest.size() % kEntrySize != 0) return invalid("the length is not a multiple of an entry's");
    if (rest.size() / kEntrySize > kMaxAclEntries) return invalid("too many entries");

    Acl acl;
    unsigned seen = 0;  // tags, or'ed together
    unsigned last = 0;
    for (; !rest.empty(); rest = rest.subspan(kEntrySize)) {
        const auto tag = load_le<std::uint16_t>(rest);
        const auto wide = load_le<std::uint16_t>(rest.subspan(2));
        const auto id = load_le<std::uint32_t>(rest.subspan(4));
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
    std::vector<std::byte> out;
    out.reserve(kHeaderSize + kEntrySize * (4 + acl.users.size() + acl.groups.size()));
    store_le(out, kVersion);
    const auto entry = [&](Tag tag, std::uint8_t permissions, std::uint32_t id) {
        store_le(out, static_cast<std::uint16_t>(tag));
        store_le(out, static_cast<std::uint16_t>(permissions));
        store_le(out, id);
    };
    entry(kOwner, acl.owner, kNoId);
    for (const Acl::Named& each : acl.users) entry(kUser, each.permissions, each.id);
    entry(kGroupOwner, acl.group, kNoId);
    for (const Acl::Named& each : acl.groups) entry(kGroup, each.permissions, each.id);
    if (acl.mask) entry(kMask, *acl.mask, kNoId);
    entry(kOther, acl.other, kNoId);
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
