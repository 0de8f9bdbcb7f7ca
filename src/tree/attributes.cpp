// Rights derived and inherited. Any thread.
#include <tree/attributes.hpp>

namespace ipcfs::tree {

using access::kAccessAcl;
using access::kDefaultAcl;
using channel::Attributes;

mode_t readable(mode_t mode, bool directory) noexcept {
    mode_t read = mode & 0444;
    return directory ? read | read >> 2 : read;
}

void derive_readable(Attributes& attributes, bool directory) {
    auto readable = [directory](std::uint8_t bits) {
        return static_cast<std::uint8_t>(tree::readable(bits, directory));
    };
    access::Acl acl = access::acl_of(attributes.mode);
    auto kept = attributes.xattrs.find(kAccessAcl);
    if (kept != attributes.xattrs.end()) {
        if (auto parsed = access::parse_acl(std::as_bytes(std::span(kept->second)))) acl = *parsed;
    }
    acl.owner = readable(acl.owner);
    acl.group = readable(acl.group);
    acl.other = readable(acl.other);
    for (auto* named : {&acl.users, &acl.groups}) {
        for (auto& each : *named) each.permissions = readable(each.permissions);
    }
    if (acl.mask) acl.mask = readable(*acl.mask);
    attributes.mode = access::mode_of(acl);
    attributes.xattrs.clear();
    if (access::is_minimal(acl)) return;
    auto bytes = access::serialize(acl);
    attributes.xattrs.emplace(
        kAccessAcl, std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

std::optional<access::Acl> default_acl(const Attributes& attributes) {
    auto at = attributes.xattrs.find(kDefaultAcl);
    if (at == attributes.xattrs.end()) return std::nullopt;
    auto acl = access::parse_acl(std::as_bytes(std::span(at->second)));
    if (!acl) return std::nullopt;
    return *acl;
}

void inherit_acl(Attributes& attributes, const access::Acl& defaults, mode_t mode) {
    access::Inherited got = access::inherit(defaults, mode);
    attributes.mode = got.mode;
    if (access::is_minimal(got.access)) return;
    auto bytes = access::serialize(got.access);
    attributes.xattrs.emplace(
        kAccessAcl, std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

}  // namespace ipcfs::tree
