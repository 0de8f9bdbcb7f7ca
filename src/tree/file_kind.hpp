// The kinds of files: one row each, in the table of file_kind.cpp. What depends on which file it is (its
// name and place, its rights, how it opens, what its text says) is a column here; other code asks for a
// column, not for the kind. A new file of the tree is a row, and a class or a function where no existing
// one does. Values; any thread.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <sys/stat.h>

#include <access/subject.hpp>
#include <base/result.hpp>
#include <channel/endpoint.hpp>
#include <tree/node.hpp>
#include <tree/open_file.hpp>

namespace ipcfs::tree {

class Tree;
struct FileKind;
class Directory;

// What a channel is, which decides about the files that it shows: one bit.
using Shape = std::uint8_t;
using Shapes = std::uint8_t;  // a set of them
constexpr Shape kQueueShape = 1, kSyncShape = 2, kBatchShape = 4, kTopicShape = 8,
                kMulticastShape = 16, kStreamShape = 32, kSubscriptionShape = 64;
constexpr Shapes kAllShapes = 127;
Shape shape_of(const channel::Endpoint& channel) noexcept;

using ChannelPtr = std::shared_ptr<channel::Endpoint>;

// How messages are read and written through a file.
struct MessageStyle {
    // Which reads wait, and what comes after a message.
    enum class Read : std::uint8_t { kDrain, kOne, kFollow } read = Read::kDrain;
    queue::Lane lane = queue::Lane::kMain;
    std::uint8_t priority = queue::kNormal;  // of what is written without a header
    bool framed = false;
    queue::Via via = queue::Via::kOther;
};

// A file that shows a text, and may take one.
struct TextStyle {
    std::string (*make)(Tree& tree, const ChannelPtr& channel) = nullptr;
    // Null: read-only. Takes one write(2), whole.
    Result<void> (*take)(Tree& tree, const ChannelPtr& channel, std::string_view text,
                         const access::Subject& by) = nullptr;
    // Whether taking `text` may take long: then a worker does it, and the write waits.
    bool (*is_slow)(std::string_view text) = nullptr;
};

struct OpenRequest {
    Tree& tree;
    const FileKind& kind;
    NodeId node;
    Shape shape;
    const ChannelPtr& channel;  // null: a file of the system
    OpenMode mode;
    const access::Subject& subject;
};
using Opened = Result<std::shared_ptr<OpenFile>>;

// Where the attributes of a node come from.
enum class Rights : std::uint8_t {
    kOwn,
    kMade,   // as the channel was made: its directory
    kQueue,  // who may receive may read: payloads
};

// What truncate(2) does.
enum class Length : std::uint8_t {
    kNone,     // there is no size but 0
    kIgnored,  // each open begins a memory of its own
    kSealed,   // EROFS, as for every change
    kSet,      // to any size
};

struct FileKind {
    Kind kind;
    Kind parent;
    std::string_view name;  // empty: it has no fixed name
    mode_t type;            // S_IFDIR, S_IFREG, S_IFLNK
    mode_t mask;  // of the mode its channel was made with; for system files the mode itself
    Shapes reads, writes;  // where it can be opened so; a directory: where it is

    Opened (*open)(const OpenRequest& request) = nullptr;
    std::shared_ptr<Directory> (*directory)(Tree& tree) = nullptr;
    MessageStyle messages = {};
    TextStyle text = {};
    bool has_times = false;  // of arrivals and deliveries
    Keep keep = Keep::kAll;
    Rights rights = Rights::kOwn;
    Length length = Length::kNone;
    bool has_own_id = false;  // not the channel's; the directory that is its parent knows it
    // Of a file that has two nodes: the other one. An open that cannot share what an open of the first
    // node has goes to the second one, which has the attributes and the inode number of the first.
    std::optional<Kind> aside = {}, aside_of = {};

    bool is_directory() const noexcept { return S_ISDIR(type); }
    bool is_shown(Shape shape) const noexcept { return ((reads | writes) & shape) != 0; }
};

// The rows, in the order in which directories list them.
std::span<const FileKind> file_kinds() noexcept;
// Null: no such file in any shape.
const FileKind* file_kind(Kind kind) noexcept;
const FileKind* file_kind(Kind parent, std::string_view name) noexcept;
bool is_directory(Kind kind) noexcept;
// Whether a channel's file, of whatever shape, or a future one has this name: no sub-channel may.
bool is_reserved(bool below_root, std::string_view name) noexcept;

constexpr bool has_channels(Kind kind) noexcept {
    return kind == Kind::kRoot || kind == Kind::kChannel;
}
// See FileKind::aside.
std::optional<NodeId> aside(NodeId node) noexcept;
bool is_aside(NodeId node) noexcept;
NodeId without_aside(NodeId node) noexcept;

}  // namespace ipcfs::tree
