// Names and attributes. Any thread. What is made and removed is in making.cpp, opening in opening.cpp,
// rights in reach.cpp, extended attributes in xattrs.cpp.
#include <sys/stat.h>

#include <tree/attributes.hpp>
#include <tree/tree.hpp>

namespace ipcfs::tree {

using channel::Attributes;
using channel::Endpoint;
using channel::Registry;

namespace {

constexpr std::uint64_t kFirstNumber = 1ULL << 32;  // cookie of a name that is not fixed

// Directories that a directory of this kind has in this shape, and its own two links.
std::uint64_t fixed_links(Kind directory, Shape shape) {
    std::uint64_t links = 2;
    for (const FileKind& kind : file_kinds()) {
        links += kind.parent == directory && !kind.name.empty() && kind.is_directory() &&
                 kind.is_shown(shape);
    }
    return links;
}

}  // namespace

Tree::Tree(Registry& registry, access::Ledger& ledger, payload::Store& payloads, Executor& worker,
           Logger& log, System system)
    : registry_(registry),
      ledger_(ledger),
      payloads_(payloads),
      worker_(worker),
      shares_(ledger, registry.environment().clock, payloads),
      log_(log),
      system_(std::move(system)) {
    for (const FileKind& kind : file_kinds()) {
        if (kind.directory) directories_[raw(kind.kind)] = kind.directory(*this);
    }
    registry_.change(
        Registry::kRootId, raw(Kind::kRoot), [](const Attributes& made) { return made; },
        [&](Attributes& root) {
            root.uid = system_.uid;
            root.gid = system_.gid;
        });
    registry_.let_receive([this](std::uint64_t channel, const access::Identity& subscriber) {
        return may_receive(channel, subscriber);
    });
}

// What a file has until it is changed.
Registry::Initial Tree::initial(Kind kind) {
    const FileKind* row = file_kind(kind);
    return [row](const Attributes& made) {
        if (!row || row->rights == Rights::kMade) return made;
        Attributes file;
        file.uid = made.uid;
        file.gid = made.gid;
        file.changed = made.changed;
        file.mode = (made.mode & row->mask) | (row->mask & S_ISVTX);
        if (auto defaults = default_acl(made)) inherit_acl(file, *defaults, row->mask & 0777);
        return file;
    };
}

std::shared_ptr<Directory> Tree::directory(NodeId node) const noexcept {
    const auto& known = directories_[raw(node.kind)];
    return known ? known : directories_[raw(Kind::kKern)];  // of a file: there are no names
}

// The directory of files whose ids are their own; null: the file has its channel's.
Directory* Tree::keeper(NodeId node) const noexcept {
    const FileKind* row = file_kind(node.kind);
    return row && row->has_own_id ? directories_[raw(row->parent)].get() : nullptr;
}

std::uint64_t Tree::channel_id(NodeId node) const {
    const Directory* own = keeper(node);
    return own ? own->channel_of(node.channel) : node.channel;
}

bool Tree::read_attributes(NodeId node, const std::function<void(const Attributes&)>& use) const {
    node = without_aside(node);
    const FileKind* row = file_kind(node.kind);
    if (row && row->rights == Rights::kQueue) {
        return read_payload_attributes(channel_id(node), row->is_directory(), use);
    }
    if (const Directory* own = keeper(node)) return own->read(node.channel, use);
    return registry_.read(node.channel, raw(node.kind), initial(node.kind), use);
}

// Users who may receive messages may read payloads: those who may read `queue`, or `stream` on a channel whose `queue` is
// only written.
bool Tree::read_payload_attributes(std::uint64_t id, bool directory,
                                   const std::function<void(const Attributes&)>& use) const {
    auto channel = registry_.find(id);
    if (!channel) return false;
    bool publishes = ((kTopicShape | kMulticastShape) & shape_of(*channel)) != 0;
    Kind from = publishes ? Kind::kStream : Kind::kQueue;
    return registry_.read(id, raw(from), initial(from), [&](const Attributes& attributes) {
        Attributes derived = attributes;
        derive_readable(derived, directory);
        use(derived);
    });
}

bool Tree::change_attributes(NodeId node, const std::function<void(Attributes&)>& use) {
    if (Directory* own = keeper(node)) return own->change(node.channel, use);
    node = without_aside(node);
    return registry_.change(node.channel, raw(node.kind), initial(node.kind), use);
}

Result<std::shared_ptr<Endpoint>> Tree::channel_of(NodeId node) const {
    auto channel = registry_.find(channel_id(node));
    if (!channel || channel->removed()) return Fault{ESTALE, "the channel is gone"};
    return channel;
}

Shape Tree::shape(NodeId node) const {
    if (node.channel == Registry::kRootId) return kAllShapes;
    auto channel = registry_.find(channel_id(node));
    return channel ? shape_of(*channel) : 0;
}

// A client's kernel may still know a file that its channel does not show any more. ESTALE makes it look
// the name up again.
bool Tree::hidden(NodeId node) const {
    const FileKind* row = file_kind(node.kind);
    return row && (row->reads | row->writes) != kAllShapes && !row->is_shown(shape(node));
}

Result<NodeInfo> Tree::describe(NodeId node) const {
    const FileKind* row = file_kind(node.kind);
    if (!row) return Fault{ESTALE, "no such file"};
    NodeInfo info;
    info.id = node;
    info.inode = without_aside(node).raw();
    info.keep = row->keep;
    const bool directory = row->is_directory();
    if (is_system(node)) {
        info.mode = row->type | row->mask;
        if (S_ISLNK(row->type)) info.size = system_.control.size();
        info.uid = system_.uid;
        info.gid = system_.gid;
        registry_.read(
            Registry::kRootId, raw(Kind::kRoot), [](const Attributes& made) { return made; },
            [&](const Attributes& root) {
                info.accessed = info.modified = info.changed = root.changed;
            });
        info.links = directory ? fixed_links(node.kind, kAllShapes) : 1;
        return info;
    }
    bool found = read_attributes(node, [&](const Attributes& attributes) {
        info.mode = row->type | attributes.mode;
        info.uid = attributes.uid;
        info.gid = attributes.gid;
        info.accessed = info.modified = info.changed = attributes.changed;
    });
    if (!found) return Fault{ESTALE, "the channel is gone"};
    if (const Directory* own = keeper(node)) {
        if (auto done = own->describe(node.channel, info); !done) return done.error();
    } else if (directory) {
        info.links =
            fixed_links(node.kind, shape(node)) + this->directory(node)->count_directories(node);
    } else if (row->has_times) {
        auto channel = registry_.find(node.channel);
        if (!channel) return Fault{ESTALE, "the channel is gone"};
        auto [arrival, delivery] = channel->times();
        info.modified = arrival;
        info.accessed = delivery;
        if (row->messages.via == queue::Via::kQueueFile) {
            channel->note_attributes_cached();
        }
    }
    return info;
}

Result<NodeInfo> Tree::stat(NodeId node) const {
    if (hidden(node)) return Fault{ESTALE, "the channel's type does not show it"};
    return describe(node);
}

NodeId Tree::parent(NodeId node) const {
    if (!has_channels(node.kind)) return {channel_id(node), file_kind(node.kind)->parent};
    std::uint64_t above = registry_.parent(node.channel);
    if (shape(node) == kSubscriptionShape) return {above, Kind::kSubsDir};
    return {above, above == Registry::kRootId ? Kind::kRoot : Kind::kChannel};
}

Result<void> Tree::truncate(NodeId node, Length length, std::uint64_t size) {
    switch (length) {
        case Length::kIgnored: return {};
        case Length::kSealed: return Fault{EROFS, "truncate: a sealed payload"};
        case Length::kNone: break;
        case Length::kSet: return keeper(node)->resize(node.channel, size);
    }
    if (size != 0) return Fault{EINVAL, "truncate: message files have size 0"};
    return {};
}

Result<NodeInfo> Tree::change(NodeId node, const Change& change) {
    if (hidden(node)) return Fault{ESTALE, "the channel's type does not show it"};
    const FileKind* row = file_kind(node.kind);
    if (!row) return Fault{ESTALE, "no such file"};
    if (change.size) {
        if (auto done = truncate(node, row->length, *change.size); !done) return done.error();
    }
    if (change.mode || change.uid || change.gid) {
        if (is_system(node)) return Fault{EPERM, "the system's files keep their owner and mode"};
        if (row->rights == Rights::kQueue) {
            // What `queue` gives them already may be asked for: chmod -R of a channel goes through.
            auto now = describe(node);
            if (!now) return now;
            bool other =
                (change.uid && *change.uid != now->uid) ||
                (change.gid && *change.gid != now->gid) ||
                (change.mode && readable(*change.mode, S_ISDIR(now->mode)) != (now->mode & 07777));
            if (other) return Fault{EPERM, "payloads follow the rights of `queue`"};
            return now;
        }
        mode_t bits = row->is_directory() ? 07777 : 0777;
        bool found = change_attributes(node, [&](Attributes& attributes) {
            if (change.uid) attributes.uid = *change.uid;
            if (change.gid) attributes.gid = *change.gid;
            if (change.mode) {
                attributes.mode = *change.mode & bits;
                if (auto acl = access_acl(attributes)) {
                    keep_access_acl(attributes,
                                    access::with_mode(std::move(*acl), attributes.mode));
                }
            }
            attributes.changed = registry_.environment().clock.realtime();
        });
        if (!found) return Fault{ESTALE, "the channel is gone"};
    }
    return describe(node);
}

Result<void> Tree::list(NodeId directory, std::uint64_t cookie, const Visit& visit) const {
    if (!is_directory(directory.kind)) return Fault{ENOTDIR, "readdir"};
    if (directory.channel != Registry::kRootId && !registry_.find(directory.channel)) {
        return Fault{ENOENT, "readdir: the channel is gone"};
    }
    std::uint64_t at = 0;
    for (auto [name, node] : {std::pair{std::string_view("."), directory},
                              std::pair{std::string_view(".."), parent(directory)}}) {
        if (++at > cookie && !visit(name, node, S_IFDIR, at)) return {};
    }
    const Shape now = shape(directory);
    for (const FileKind& kind : file_kinds()) {
        ++at;  // counts all kinds, so that it means the same in every shape
        if (at <= cookie || kind.parent != directory.kind || kind.name.empty()) continue;
        if (!kind.is_shown(now)) continue;
        if (!visit(kind.name, {directory.channel, kind.kind}, kind.type, at)) return {};
    }
    this->directory(directory)->list(directory, cookie < kFirstNumber ? 0 : cookie - kFirstNumber,
                                     [&](std::uint64_t number, std::string_view name, NodeId node) {
                                         return visit(name, node, file_kind(node.kind)->type,
                                                      kFirstNumber + number);
                                     });
    return {};
}

Result<std::string> Tree::read_link(NodeId node) const {
    const FileKind* row = file_kind(node.kind);
    if (!row || !S_ISLNK(row->type)) return Fault{EINVAL, "readlink"};
    return system_.control;
}

}  // namespace ipcfs::tree
