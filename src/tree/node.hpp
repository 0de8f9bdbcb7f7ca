// What there is in the tree: which file a node id names, what stat(2) tells of it. A node id is the
// channel's id and the kind of file, so nothing has to be kept for a node that a client knows, and an
// id is never used twice. Values; any thread.
#pragma once

#include <cstdint>
#include <string_view>
#include <sys/types.h>

#include <base/clock.hpp>
#include <channel/channel.hpp>

namespace ipcfs::tree {

enum class Kind : std::uint8_t {
    kChannel = 0,  // the directory of a channel
    kRoot = 1,     // with channel id 0: the top
    kQueue,
    kNext,
    kStream,
    kPeek,
    kPriorityDir,
    kCritical,
    kHigh,
    kNormal,
    kLow,
    kFramedDir,
    kFramedQueue,
    kFramedNext,
    kFramedStream,
    kCtl,
    kStatus,
    kStats,
    kNotify,
    kPut,
    kPutAside,  // `put` again, for opens that cannot share what another one has (see the FUSE door)
    kFramedPut,
    kPayloadDir,
    kPayload,  // the id is the payload's, not the channel's
    kShareDir,
    kRegion,  // the id is the region's
    kKern = 32,
    kKernIpc,
    kStatsDir,
    kStatsMessages,
    kStatsChannels,
    kStatsNotifications,
    kStatsResources,
    kConfig,
    kVersion,
    kStatsMappings,
    kControl,
    // Of these numbers what durable channels keep of a file's rights knows it by: none is used again.
    kLease = 64,
    kFramedLease,
    kDeadDir,
    kDeadQueue,
    kDeadNext,
    kDeadPeek,
    kSubsDir,  // below it: directories of subscriptions, which are channels
    kFilter,
};

struct NodeId {
    std::uint64_t channel = 0;
    Kind kind = Kind::kRoot;

    static NodeId from(std::uint64_t raw) noexcept {
        return {raw >> 8, static_cast<Kind>(raw & 0xff)};
    }
    std::uint64_t raw() const noexcept { return channel << 8 | static_cast<std::uint64_t>(kind); }
    bool operator==(const NodeId&) const = default;
};

// What a channel is, which decides about the files that it shows: one bit.
using Shape = std::uint8_t;
using Shapes = std::uint8_t;  // a set of them
constexpr Shape kQueueShape = 1, kSyncShape = 2, kBatchShape = 4, kTopicShape = 8,
                kMulticastShape = 16, kStreamShape = 32, kSubscriptionShape = 64;
constexpr Shapes kAllShapes = 127;
Shape shape_of(const channel::Channel& channel) noexcept;

// One file or directory that channels (or the system part) show.
struct FileSpec {
    Kind kind;
    Kind parent;
    std::string_view name;
    bool directory;
    mode_t mask;  // of the mode its channel was made with; for system files the mode itself
    Shapes reads, writes;  // where it can be opened so; a directory: where it is

    bool shown(Shape shape) const noexcept { return ((reads | writes) & shape) != 0; }
};

constexpr std::uint8_t raw(Kind kind) noexcept {
    return static_cast<std::uint8_t>(kind);
}
constexpr bool has_channels(Kind kind) noexcept {
    return kind == Kind::kRoot || kind == Kind::kChannel;
}
constexpr bool is_put(Kind kind) noexcept {
    return kind == Kind::kPut || kind == Kind::kPutAside || kind == Kind::kFramedPut;
}
// Its times are those of arrivals and deliveries.
bool is_message_file(Kind kind) noexcept;

// Null when there is no such file in any shape.
const FileSpec* spec_of(Kind kind) noexcept;
const FileSpec* spec_of(Kind parent, std::string_view name) noexcept;
// All of them.
const FileSpec* first_spec() noexcept;
const FileSpec* end_spec() noexcept;
// Whether a channel's file, of whatever shape, or a future one has this name: no sub-channel may.
bool reserved(bool below_root, std::string_view name) noexcept;

struct NodeInfo {
    NodeId id;
    std::uint64_t inode = 0;  // what stat(2) shows
    // It changes without the client's kernel knowing: nothing of it is to be kept there.
    bool transient = false;
    mode_t mode = 0;  // with the type bits
    uid_t uid = 0;
    gid_t gid = 0;
    std::uint64_t links = 1;
    std::uint64_t size = 0;
    Nanos accessed = 0, modified = 0, changed = 0;  // since the epoch
};

}  // namespace ipcfs::tree
