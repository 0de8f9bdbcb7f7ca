// Owner, mode and ACLs as files get them from what they belong to. Private to src/tree; pure functions.
#pragma once

#include <optional>

#include <access/acl.hpp>
#include <channel/registry.hpp>

namespace ipcfs::tree {

constexpr std::size_t kLongestName = 255;  // NAME_MAX

// The rights of those who may read, for reading (and searching) alone.
mode_t readable(mode_t mode, bool directory) noexcept;
// Reduces a message file's attributes to those of payload/ and its files: users who may read it may read (and search)
// there.
void derive_readable(channel::Attributes& attributes, bool directory);

// What is kept in the extended attributes, if anything.
std::optional<access::Acl> access_acl(const channel::Attributes& attributes);
std::optional<access::Acl> default_acl(const channel::Attributes& attributes);
void keep_access_acl(channel::Attributes& attributes, const access::Acl& acl);
// What a file made with `mode` below a directory with these defaults gets.
void inherit_acl(channel::Attributes& attributes, const access::Acl& defaults, mode_t mode);

}  // namespace ipcfs::tree
