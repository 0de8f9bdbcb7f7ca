// Node ids, and what stat(2) tells of a node. A node id is the channel's id and the kind of file, so
// nothing has to be kept for a node that a client knows, and no id is used twice. Values; any thread.
#pragma once

#include <cstdint>
#include <sys/types.h>

#include <base/clock.hpp>

namespace ipcfs::tree {

// The number of a file, those that code names; file_kind.cpp has the table of all. Durable records
// identify files by these numbers; never reuse one.
enum class Kind : std::uint8_t {
    kChannel = 0,  // the directory of a channel
    kRoot = 1,     // with channel id 0: the top
    kQueue = 2,
    kStream = 4,
    kPriorityDir = 6,
    kFramedDir = 11,
    kNotify = 18,
    kPut = 19,
    kPutAside = 20,  // `put` again, for opens that cannot share what another one has
    kPayloadDir = 22,
    kPayload = 23,  // the id is the payload's, not the channel's
    kShareDir = 24,
    kRegion = 25,  // the id is the region's
    kKern = 32,
    kKernIpc = 33,
    kStatsDir = 34,
    kDeadDir = 66,
    kSubsDir = 70,  // below it: directories of subscriptions, which are channels
};

constexpr std::uint8_t raw(Kind kind) noexcept {
    return static_cast<std::uint8_t>(kind);
}

struct NodeId {
    std::uint64_t channel = 0;
    Kind kind = Kind::kRoot;

    static NodeId from(std::uint64_t raw) noexcept {
        return {raw >> 8, static_cast<Kind>(raw & 0xff)};
    }
    std::uint64_t raw() const noexcept { return channel << 8 | tree::raw(kind); }
    bool operator==(const NodeId&) const = default;
};

// What a client's kernel may cache of a node.
enum class Keep : std::uint8_t {
    kAll,
    kName,     // its attributes change without that kernel's knowledge
    kNothing,  // its name does, too
};

struct NodeInfo {
    NodeId id;
    std::uint64_t inode = 0;  // what stat(2) shows
    Keep keep = Keep::kAll;
    mode_t mode = 0;  // with the type bits
    uid_t uid = 0;
    gid_t gid = 0;
    std::uint64_t links = 1;
    std::uint64_t size = 0;
    Nanos accessed = 0, modified = 0, changed = 0;  // since the epoch
};

}  // namespace ipcfs::tree
