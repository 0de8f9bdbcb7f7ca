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

namespace {

std::optional<access::Acl> kept_acl(const Attributes& attributes, std::string_view name) {
    const auto at = attributes.xattrs.find(name);
    if (at == attributes.xattrs.end()) return std::nullopt;
    auto acl = access::parse_acl(std::as_bytes(std::span(at->second)));
    return acl ? std::optional(std::move(*acl)) : std::nullopt;
}

}  // namespace

std::optional<access::Acl> access_acl(const Attributes& attributes) {
    return kept_acl(attributes, kAccessAcl);
}

std::optional<access::Acl> default_acl(const Attributes& attributes) {
    return kept_acl(attributes, kDefaultAcl);
}

void keep_access_acl(Attributes& attributes, const access::Acl& acl) {
    const auto bytes = access::serialize(acl);
    attributes.xattrs.insert_or_assign(
        std::string(kAccessAcl),
        std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

void derive_readable(Attributes& attributes, bool directory) {
    auto readable = [directory](std::uint8_t bits) {
        return static_cast<std::uint8_t>(tree::readable(bits, directory));
    };
    access::Acl acl = access_acl(attributes).value_or(access::acl_of(attributes.mode));
    acl.owner = readable(acl.owner);
    acl.group = readable(acl.group);
    acl.other = readable(acl.other);
    for (auto* named : {&acl.users, &acl.groups}) {
        for (auto& each : *named) each.permissions = readable(each.permissions);
    }
    if (acl.mask) acl.mask = readable(*acl.mask);
    attributes.mode = access::mode_of(acl);
    attributes.xattrs.clear();
    if (!access::is_minimal(acl)) keep_access_acl(attributes, acl);
}

void inherit_acl(Attributes& attributes, const access::Acl& defaults, mode_t mode) {
    access::Inherited got = access::inherit(defaults, mode);
    attributes.mode = got.mode;
    if (!access::is_minimal(got.access)) keep_access_acl(attributes, got.access);
}

}  // namespace ipcfs::tree
