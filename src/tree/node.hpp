// What there is in the tree: which file a node id names, what stat(2) tells of it. A node id is the
// channel's id and the kind of file, so nothing has to be kept for a node that a client knows, and an
// id is never used twice. Values; any thread.
#pragma once

#include <cstdint>
#include <string_view>
#include <sys/types.h>

#include <base/clock.hpp>

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

// One file or directory that every channel (or the system part) shows.
struct FileSpec {
    Kind kind;
    Kind parent;
    std::string_view name;
    bool directory;
    mode_t mask;  // of the mode its channel was made with; for system files the mode itself
    bool reads, writes;
};

// Null when there is no such file. Names of a later version are reserved all the same.
const FileSpec* spec_of(Kind kind) noexcept;
const FileSpec* spec_of(Kind parent, std::string_view name) noexcept;
// The files below `parent`, in order; ends with null.
const FileSpec* first_spec() noexcept;
const FileSpec* end_spec() noexcept;
// Whether a channel's file or a future one has this name: no sub-channel may.
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
