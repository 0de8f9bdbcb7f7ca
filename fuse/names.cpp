// FUSE requests of names and attributes, and the table of operations. On the session's threads.
#include <algorithm>
#include <cstring>
#include <sys/stat.h>

#include <fuse/operations.hpp>
#include <fuse/uapi.hpp>

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

NodeId node_of(const Request& request) noexcept {
    return NodeId::from(request.header().nodeid);
}

// Answers with what `use` makes of the result, or with the fault.
template <class T, class Use>
void answer(Request& request, const Result<T>& result, Use&& use) noexcept {
    if (result) {
        use(*result);
    } else {
        request.fail(result.error().code);
    }
}

void reply_attr(Request& request, const Result<NodeInfo>& result) noexcept {
    answer(request, result, [&](const NodeInfo& info) {
        fuse_attr_out out{};
        const Moment last = moment(attributes_last(door_of(request), info));
        out.attr_valid = last.seconds;
        out.attr_valid_nsec = last.nanos;
        out.attr = attributes_of(info);
        request.reply(out);
    });
}

void init(fuse_conn_info* connection) noexcept {
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

void op_lookup(Request& request) noexcept {
    const NodeId at = node_of(request);
    answer_names(request, at, [at, name = std::string(request.name())](const Request& of) {
        Door& door = door_of(of);
        auto info = door.tree().lookup(at, name);
        const auto aside = info ? tree::aside(info->id) : std::nullopt;
        if (aside && door.backings().aside(info->id, static_cast<pid_t>(of.header().pid))) {
            return tree::Answer<NodeInfo>(door.tree().stat(*aside));
        }
        return info;
    });
}

void op_getattr(Request& request) noexcept {
    reply_attr(request, door_of(request).tree().stat(node_of(request)));
}

void op_setattr(Request& request) noexcept {
    const auto in = request.in<fuse_setattr_in>();
    tree::Change change;
    if (in.valid & FATTR_MODE) change.mode = in.mode & 07777;
    if (in.valid & FATTR_UID) change.uid = in.uid;
    if (in.valid & FATTR_GID) change.gid = in.gid;
    if (in.valid & FATTR_SIZE) change.size = in.size;
    reply_attr(request, door_of(request).tree().change(node_of(request), change));
}

void op_mkdir(Request& request) noexcept {
    const auto in = request.in<fuse_mkdir_in>();
    const NodeId at = node_of(request);
    answer_names(request, at,
                 [at, in, name = std::string(request.name(sizeof in))](const Request& of) {
                     tree::NewChannel made;
                     made.mode = in.mode;
                     made.umask = in.umask;
                     made.subject = of.subject();
                     made.groups = [&of] { return of.groups(); };
                     return door_of(of).tree().make_channel(at, name, made);
                 });
}

void op_rmdir(Request& request) noexcept {
    const NodeId at = node_of(request);
    answer_names(request, at, [at, name = std::string(request.name())](const Request& of) {
        return door_of(of).tree().remove_channel(at, name);
    });
}

void rename(Request& request, std::size_t size, std::uint64_t to_directory,
            unsigned flags) noexcept {
    constexpr unsigned kNoReplace = 1;  // RENAME_NOREPLACE
    if (flags & ~kNoReplace) {
        request.fail(EINVAL);
        return;
    }
    const NodeId at = node_of(request), to = NodeId::from(to_directory);
    std::string name = request.name(size);
    std::string to_name = request.name(size + name.size() + 1);
    answer_names(request, at, [at, to, name, to_name, flags](const Request& of) {
        return door_of(of).tree().rename(at, name, to, to_name, (flags & kNoReplace) != 0);
    });
}

void op_rename(Request& request) noexcept {
    const auto in = request.in<fuse_rename_in>();
    rename(request, sizeof in, in.newdir, 0);
}

void op_rename2(Request& request) noexcept {
    const auto in = request.in<fuse_rename2_in>();
    rename(request, sizeof in, in.newdir, in.flags);
}

void op_unlink(Request& request) noexcept {
    const NodeId at = node_of(request);
    answer_names(request, at, [at, name = std::string(request.name())](const Request& of) {
        return door_of(of).tree().unlink(at, name);
    });
}

void op_readlink(Request& request) noexcept {
    answer(request, door_of(request).tree().read_link(node_of(request)),
           [&](const std::string& target) { request.reply_text(target); });
}

// Everything but channels and regions is fixed: mknod(2), symlink(2), link(2).
void op_refused(Request& request) noexcept {
    request.fail(EPERM);
}

void op_fsync(Request& request) noexcept {
    request.fail(0);  // `durable` says when a message is on disk; there is nothing to add
}

void op_opendir(Request& request) noexcept {
    using Listing = tree::Tree::Listing;
    const Listing listing = door_of(request).tree().listing(node_of(request));
    fuse_open_out out{};
    if (listing != Listing::kNeverKept) out.open_flags |= FOPEN_CACHE_DIR;
    if (listing == Listing::kKept) out.open_flags |= FOPEN_KEEP_CACHE;
    request.reply(out);
}

void op_readdir(Request& request) noexcept {
    constexpr std::size_t kMost = 1U << 16;
    const auto in = request.in<fuse_read_in>();
    const std::size_t room = std::min<std::size_t>(in.size, kMost);
    std::vector<std::byte> buffer;
    auto listed = door_of(request).tree().list(
        node_of(request), in.offset,
        [&](std::string_view name, NodeId node, mode_t type, std::uint64_t cookie) {
            fuse_dirent entry{};
            entry.ino = node.raw();
            entry.off = cookie;
            entry.namelen = static_cast<std::uint32_t>(name.size());
            entry.type = (type & S_IFMT) >> 12;
            const std::size_t at = buffer.size();
            const std::size_t size = FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + name.size());
            if (size > room - at) return false;
            buffer.resize(at + size);
            std::memcpy(buffer.data() + at, &entry, FUSE_NAME_OFFSET);
            std::memcpy(buffer.data() + at + FUSE_NAME_OFFSET, name.data(), name.size());
            return true;
        });
    if (listed) {
        request.reply(buffer);
    } else {
        request.fail(listed.error().code);
    }
}

void op_statfs(Request& request) noexcept {
    fuse_statfs_out out{};
    out.st.bsize = out.st.frsize = 4096;
    out.st.namelen = 255;
    out.st.files = door_of(request).tree().channels();
    request.reply(out);
}

// Sends a value the way getxattr(2) and listxattr(2) want it: its size, or itself if there is room.
void reply_sized(Request& request, std::string_view value, std::size_t size) noexcept {
    if (size == 0) {
        request.reply(fuse_getxattr_out{static_cast<std::uint32_t>(value.size()), 0});
    } else if (value.size() > size) {
        request.fail(ERANGE);
    } else {
        request.reply_text(value);
    }
}

void op_getxattr(Request& request) noexcept {
    const auto in = request.in<fuse_getxattr_in>();
    answer(request, door_of(request).tree().get_xattr(node_of(request), request.name(sizeof in)),
           [&](const std::string& value) { reply_sized(request, value, in.size); });
}

void op_listxattr(Request& request) noexcept {
    const auto in = request.in<fuse_getxattr_in>();
    answer(request, door_of(request).tree().list_xattrs(node_of(request)),
           [&](const std::vector<std::string>& names) {
               std::string all;
               for (const std::string& name : names) all.append(name).push_back('\0');
               reply_sized(request, all, in.size);
           });
}

void op_setxattr(Request& request) noexcept {
    constexpr unsigned kCreate = 1, kReplace = 2;  // XATTR_CREATE, XATTR_REPLACE
    // Longer where FUSE_SETXATTR_EXT was agreed on.
    const bool is_long = (request.session().report().init_accepted & FUSE_SETXATTR_EXT) != 0;
    const std::size_t size = is_long ? sizeof(fuse_setxattr_in) : FUSE_COMPAT_SETXATTR_IN_SIZE;
    struct In {
        std::uint32_t size, flags;
    };
    const auto in = request.in<In>();
    const std::string_view name = request.name(size);
    const std::string_view value(request.name(size + name.size() + 1), in.size);
    reply_names(request, door_of(request).tree().set_xattr(
                             node_of(request), name, value, (in.flags & kCreate) != 0,
                             (in.flags & kReplace) != 0, request.subject()));
}

void op_removexattr(Request& request) noexcept {
    reply_names(request, door_of(request).tree().remove_xattr(node_of(request), request.name()));
}

constexpr FileSystem kOperations = [] {
    FileSystem system;
    system.init = init;
    auto& at = system.handlers;
    at[FUSE_LOOKUP] = op_lookup;
    at[FUSE_GETATTR] = op_getattr;
    at[FUSE_SETATTR] = op_setattr;
    at[FUSE_MKNOD] = at[FUSE_SYMLINK] = at[FUSE_LINK] = op_refused;
    at[FUSE_MKDIR] = op_mkdir;
    at[FUSE_UNLINK] = op_unlink;
    at[FUSE_RMDIR] = op_rmdir;
    at[FUSE_READLINK] = op_readlink;
    at[FUSE_RENAME] = op_rename;
    at[FUSE_RENAME2] = op_rename2;
    at[FUSE_CREATE] = op_create;
    at[FUSE_OPEN] = op_open;
    at[FUSE_READ] = op_read;
    at[FUSE_WRITE] = op_write;
    at[FUSE_FLUSH] = op_flush;
    at[FUSE_RELEASE] = op_release;
    at[FUSE_FALLOCATE] = op_fallocate;
    at[FUSE_IOCTL] = op_ioctl;
    at[FUSE_FSYNC] = op_fsync;
    at[FUSE_OPENDIR] = op_opendir;
    at[FUSE_READDIR] = op_readdir;
    at[FUSE_STATFS] = op_statfs;
    at[FUSE_GETXATTR] = op_getxattr;
    at[FUSE_SETXATTR] = op_setxattr;
    at[FUSE_LISTXATTR] = op_listxattr;
    at[FUSE_REMOVEXATTR] = op_removexattr;
    at[FUSE_POLL] = op_poll;
    return system;
}();

}  // namespace

void reply_names(Request& request, const Result<NodeInfo>& info) noexcept {
    answer(request, info,
           [&](const NodeInfo& found) { request.reply(entry_of(door_of(request), found)); });
}

void reply_names(Request& request, const Result<void>& done) noexcept {
    request.fail(done ? 0 : done.error().code);
}

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
    return kInitHandleKillprivV2;  // no look at security.capability before a write
}

const FileSystem& Door::operations() noexcept {
    return kOperations;
}

}  // namespace ipcfs::fuse
