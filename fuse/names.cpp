// FUSE requests of names and attributes, and the table of operations. On the session's threads.
#include <algorithm>
#include <array>
#include <cstring>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <fuse/operations.hpp>
#include <fuse/waiting.hpp>

namespace ipcfs::fuse {
namespace {

using tree::NodeId;
using tree::NodeInfo;

struct Moment {
    std::uint64_t seconds;
    std::uint32_t nanos;
};
Moment moment(Nanos nanos) noexcept {
    return {static_cast<std::uint64_t>(nanos / kSecond),
            static_cast<std::uint32_t>(nanos % kSecond)};
}

fuse_attr attributes_of(const NodeInfo& info) noexcept {
    fuse_attr attr{};
    attr.ino = info.inode;
    attr.mode = info.mode;
    attr.nlink = static_cast<std::uint32_t>(info.links);
    attr.uid = info.uid;
    attr.gid = info.gid;
    attr.size = info.size;
    attr.blocks = (info.size + 511) / 512;
    attr.blksize = 4096;
    const Moment accessed = moment(info.accessed), modified = moment(info.modified),
                 changed = moment(info.changed);
    attr.atime = accessed.seconds;
    attr.atimensec = accessed.nanos;
    attr.mtime = modified.seconds;
    attr.mtimensec = modified.nanos;
    attr.ctime = changed.seconds;
    attr.ctimensec = changed.nanos;
    return attr;
}

// How long the kernel may cache attributes.
Nanos attributes_last(const Door& door, const NodeInfo& info) noexcept {
    return info.keep == tree::Keep::kAll ? door.attr_timeout() : 0;
}

void reply_entry(fuse_req_t req, const Result<NodeInfo>& info) noexcept {
    if (!info) return reply_fault(req, info.error());
    const fuse_entry_out entry = entry_of(door_of(req), *info);
    fuse_reply_buf(req, reinterpret_cast<const char*>(&entry), sizeof entry);
}

void reply_attr(fuse_req_t req, const Result<NodeInfo>& info) noexcept {
    if (!info) return reply_fault(req, info.error());
    fuse_attr_out out{};
    const Moment last = moment(attributes_last(door_of(req), *info));
    out.attr_valid = last.seconds;
    out.attr_valid_nsec = last.nanos;
    out.attr = attributes_of(*info);
    fuse_reply_buf(req, reinterpret_cast<const char*>(&out), sizeof out);
}

void reply_done(fuse_req_t req, const Result<void>& done) noexcept {
    fuse_reply_err(req, done ? 0 : done.error().code);
}

void op_init(void*, fuse_conn_info* connection) noexcept {
    auto want = [&](auto flag) {
        if (connection->capable & static_cast<decltype(connection->capable)>(flag)) {
            connection->want |= static_cast<decltype(connection->want)>(flag);
        }
    };
    want(FUSE_CAP_POSIX_ACL);  // with default_permissions: the kernel checks modes and ACLs
    want(FUSE_CAP_DONT_MASK);  // default ACLs replace the umask
    want(FUSE_CAP_ATOMIC_O_TRUNC);
    want(FUSE_CAP_PARALLEL_DIROPS);
    connection->want &= ~static_cast<decltype(connection->want)>(
        FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE |
        FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_READDIRPLUS | FUSE_CAP_WRITEBACK_CACHE);
    connection->max_background = 1024;
    connection->congestion_threshold = 768;
}

void op_lookup(fuse_req_t req, fuse_ino_t parent, const char* name) noexcept {
    Door& door = door_of(req);
    auto info = door.tree().lookup(NodeId::from(parent), name);
    const auto aside = info ? tree::aside(info->id) : std::nullopt;
    if (aside && door.backings().aside(info->id, fuse_req_ctx(req)->pid)) {
        info = door.tree().stat(*aside);
    }
    reply_entry(req, info);
}

void op_getattr(fuse_req_t req, fuse_ino_t ino, fuse_file_info*) noexcept {
    reply_attr(req, door_of(req).tree().stat(NodeId::from(ino)));
}

void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat* st, int set,
                fuse_file_info*) noexcept {
    tree::Change change;
    if (set & FUSE_SET_ATTR_MODE) change.mode = st->st_mode & 07777;
    if (set & FUSE_SET_ATTR_UID) change.uid = st->st_uid;
    if (set & FUSE_SET_ATTR_GID) change.gid = st->st_gid;
    if (set & FUSE_SET_ATTR_SIZE) change.size = static_cast<std::uint64_t>(st->st_size);
    reply_attr(req, door_of(req).tree().change(NodeId::from(ino), change));
}

// The requester's supplementary groups.
std::vector<gid_t> groups_of(fuse_req_t req) {
    std::vector<gid_t> groups(64);
    for (;;) {
        int count = fuse_req_getgroups(req, static_cast<int>(groups.size()), groups.data());
        const auto size = static_cast<std::size_t>(std::max(count, 0));
        const bool whole = size <= groups.size();
        groups.resize(size);
        if (whole) return groups;
    }
}

void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode) noexcept {
    tree::NewChannel made;
    made.mode = mode;
    made.umask = fuse_req_ctx(req)->umask;
    made.subject = subject_of(req);
    made.groups = [req] { return groups_of(req); };
    reply_entry(req, door_of(req).tree().make_channel(NodeId::from(parent), name, made));
}

void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char* name) noexcept {
    reply_done(req, door_of(req).tree().remove_channel(NodeId::from(parent), name));
}

void op_rename(fuse_req_t req, fuse_ino_t parent, const char* name, fuse_ino_t to_parent,
               const char* to_name, unsigned flags) noexcept {
    constexpr unsigned kNoReplace = 1;  // RENAME_NOREPLACE
    if (flags & ~kNoReplace) {
        fuse_reply_err(req, EINVAL);
        return;
    }
    reply_done(req, door_of(req).tree().rename(NodeId::from(parent), name, NodeId::from(to_parent),
                                               to_name, (flags & kNoReplace) != 0));
}

void op_unlink(fuse_req_t req, fuse_ino_t parent, const char* name) noexcept {
    reply_done(req, door_of(req).tree().unlink(NodeId::from(parent), name));
}

void op_readlink(fuse_req_t req, fuse_ino_t ino) noexcept {
    auto target = door_of(req).tree().read_link(NodeId::from(ino));
    if (!target) return reply_fault(req, target.error());
    fuse_reply_readlink(req, target->c_str());
}

// Everything but channels and regions is fixed.
void op_mknod(fuse_req_t req, fuse_ino_t, const char*, mode_t, dev_t) noexcept {
    fuse_reply_err(req, EPERM);
}
void op_symlink(fuse_req_t req, const char*, fuse_ino_t, const char*) noexcept {
    fuse_reply_err(req, EPERM);
}
void op_link(fuse_req_t req, fuse_ino_t, fuse_ino_t, const char*) noexcept {
    fuse_reply_err(req, EPERM);
}
void op_fsync(fuse_req_t req, fuse_ino_t, int, fuse_file_info*) noexcept {
    fuse_reply_err(req, 0);  // `durable` says when a message is on disk; there is nothing to add
}

void op_opendir(fuse_req_t req, fuse_ino_t ino, fuse_file_info* fi) noexcept {
    using Listing = tree::Tree::Listing;
    const Listing listing = door_of(req).tree().listing(NodeId::from(ino));
    fi->cache_readdir = listing != Listing::kNeverKept;
    fi->keep_cache = listing == Listing::kKept;
    fuse_reply_open(req, fi);
}

void op_readdir(fuse_req_t req, fuse_ino_t ino, std::size_t size, off_t offset,
                fuse_file_info*) noexcept {
    constexpr std::size_t kMost = 1U << 16;
    std::vector<char> buffer(std::min(size, kMost));
    std::size_t used = 0;
    auto listed = door_of(req).tree().list(
        NodeId::from(ino), static_cast<std::uint64_t>(offset),
        [&](std::string_view name, NodeId node, mode_t type, std::uint64_t cookie) {
            char text[256];
            std::size_t length = std::min(name.size(), sizeof text - 1);
            std::memcpy(text, name.data(), length);
            text[length] = '\0';
            struct stat st {};
            st.st_ino = node.raw();
            st.st_mode = type;
            std::size_t entry = fuse_add_direntry(req, buffer.data() + used, buffer.size() - used,
                                                  text, &st, static_cast<off_t>(cookie));
            if (entry > buffer.size() - used) return false;
            used += entry;
            return true;
        });
    if (!listed) return reply_fault(req, listed.error());
    fuse_reply_buf(req, buffer.data(), used);
}

void op_statfs(fuse_req_t req, fuse_ino_t) noexcept {
    struct statvfs st {};
    st.f_bsize = st.f_frsize = 4096;
    st.f_namemax = 255;
    st.f_files = door_of(req).tree().channels();
    fuse_reply_statfs(req, &st);
}

// Sends a value the way getxattr(2) and listxattr(2) want it: its size, or itself if there is room.
void reply_sized(fuse_req_t req, std::string_view value, std::size_t size) noexcept {
    if (size == 0) {
        fuse_reply_xattr(req, value.size());
    } else if (value.size() > size) {
        fuse_reply_err(req, ERANGE);
    } else {
        fuse_reply_buf(req, value.data(), value.size());
    }
}

void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char* name, std::size_t size) noexcept {
    auto value = door_of(req).tree().get_xattr(NodeId::from(ino), name);
    if (!value) return reply_fault(req, value.error());
    reply_sized(req, *value, size);
}

void op_listxattr(fuse_req_t req, fuse_ino_t ino, std::size_t size) noexcept {
    auto names = door_of(req).tree().list_xattrs(NodeId::from(ino));
    if (!names) return reply_fault(req, names.error());
    std::string all;
    for (const std::string& name : *names) all.append(name).push_back('\0');
    reply_sized(req, all, size);
}

void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char* name, const char* value,
                 std::size_t size, int flags) noexcept {
    constexpr int kCreate = 1, kReplace = 2;  // XATTR_CREATE, XATTR_REPLACE
    reply_done(req, door_of(req).tree().set_xattr(
                        NodeId::from(ino), name, std::string_view(value, size),
                        (flags & kCreate) != 0, (flags & kReplace) != 0, subject_of(req)));
}

void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char* name) noexcept {
    reply_done(req, door_of(req).tree().remove_xattr(NodeId::from(ino), name));
}

}  // namespace

fuse_entry_out entry_of(const Door& door, const NodeInfo& info) noexcept {
    fuse_entry_out entry{};
    entry.nodeid = info.id.raw();
    entry.generation = 1;
    const Moment name = moment(info.keep == tree::Keep::kNothing ? 0 : door.entry_timeout());
    const Moment attributes = moment(attributes_last(door, info));
    entry.entry_valid = name.seconds;
    entry.entry_valid_nsec = name.nanos;
    entry.attr_valid = attributes.seconds;
    entry.attr_valid_nsec = attributes.nanos;
    entry.attr = attributes_of(info);
    return entry;
}

std::uint64_t Door::init_flags() noexcept {
    return 1ULL << 28;  // FUSE_HANDLE_KILLPRIV_V2: no look at security.capability before a write
}

const fuse_lowlevel_ops& Door::operations() noexcept {
    static const fuse_lowlevel_ops ops = [] {
        fuse_lowlevel_ops all{};
        all.init = op_init;
        all.lookup = op_lookup;
        all.getattr = op_getattr;
        all.setattr = op_setattr;
        all.mknod = op_mknod;
        all.mkdir = op_mkdir;
        all.unlink = op_unlink;
        all.rmdir = op_rmdir;
        all.readlink = op_readlink;
        all.symlink = op_symlink;
        all.rename = op_rename;
        all.link = op_link;
        all.create = op_create;
        all.open = op_open;
        all.read = op_read;
        all.write = op_write;
        all.flush = op_flush;
        all.release = op_release;
        all.fallocate = op_fallocate;
        all.ioctl = op_ioctl;
        all.fsync = op_fsync;
        all.opendir = op_opendir;
        all.readdir = op_readdir;
        all.statfs = op_statfs;
        all.getxattr = op_getxattr;
        all.setxattr = op_setxattr;
        all.listxattr = op_listxattr;
        all.removexattr = op_removexattr;
        all.poll = op_poll;
        return all;
    }();
    return ops;
}

}  // namespace ipcfs::fuse
