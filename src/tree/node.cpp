// The table of files. Any thread.
#include <algorithm>
#include <array>

#include <tree/node.hpp>

namespace ipcfs::tree {
namespace {

constexpr Shapes kNowhere = 0, kTopics = kTopicShape | kMulticastShape,
                 kQueues = kQueueShape | kBatchShape,    // whose messages are leased
    kSends = kQueues | kSyncShape | kTopics,             // messages are sent there
    kTakes = kQueues | kSyncShape | kSubscriptionShape,  // and taken there
    kLeases = kQueues | kSubscriptionShape, kMessages = kSends | kTakes;  // all but bytes

constexpr std::array kFiles{
    FileSpec{Kind::kQueue, Kind::kChannel, "queue", false, 0666, kTakes, kSends},
    FileSpec{Kind::kNext, Kind::kChannel, "next", false, 0666, kMessages, kNowhere},
    FileSpec{Kind::kStream, Kind::kChannel, "stream", false, 0666, kAllShapes, kStreamShape},
    FileSpec{Kind::kLease, Kind::kChannel, "lease", false, 0666, kLeases, kLeases},
    FileSpec{Kind::kPut, Kind::kChannel, "put", false, 0666, kNowhere, kSends},
    FileSpec{Kind::kPeek, Kind::kChannel, "peek", false, 0666, kTakes, kNowhere},
    FileSpec{Kind::kPriorityDir, Kind::kChannel, "priority", true, 0777, kSends, kNowhere},
    FileSpec{Kind::kDeadDir, Kind::kChannel, "dead", true, 0777, kLeases, kNowhere},
    FileSpec{Kind::kSubsDir, Kind::kChannel, "subs", true, 01777, kTopics, kNowhere},
    FileSpec{Kind::kFramedDir, Kind::kChannel, "framed", true, 0777, kMessages, kNowhere},
    FileSpec{Kind::kPayloadDir, Kind::kChannel, "payload", true, 0777, kSends, kNowhere},
    FileSpec{Kind::kShareDir, Kind::kChannel, "share", true, 0777, kSends | kStreamShape, kNowhere},
    FileSpec{Kind::kFilter, Kind::kChannel, "filter", false, 0644, kSubscriptionShape,
             kSubscriptionShape},
    FileSpec{Kind::kNotify, Kind::kChannel, "notify", false, 0644, kAllShapes, kAllShapes},
    FileSpec{Kind::kCtl, Kind::kChannel, "ctl", false, 0644, kAllShapes, kAllShapes},
    FileSpec{Kind::kStatus, Kind::kChannel, "status", false, 0666, kAllShapes, kNowhere},
    FileSpec{Kind::kStats, Kind::kChannel, "stats", false, 0666, kAllShapes, kNowhere},
    FileSpec{Kind::kCritical, Kind::kPriorityDir, "critical", false, 0666, kNowhere, kSends},
    FileSpec{Kind::kHigh, Kind::kPriorityDir, "high", false, 0666, kNowhere, kSends},
    FileSpec{Kind::kNormal, Kind::kPriorityDir, "normal", false, 0666, kNowhere, kSends},
    FileSpec{Kind::kLow, Kind::kPriorityDir, "low", false, 0666, kNowhere, kSends},
    FileSpec{Kind::kDeadQueue, Kind::kDeadDir, "queue", false, 0666, kLeases, kNowhere},
    FileSpec{Kind::kDeadNext, Kind::kDeadDir, "next", false, 0666, kLeases, kNowhere},
    FileSpec{Kind::kDeadPeek, Kind::kDeadDir, "peek", false, 0666, kLeases, kNowhere},
    FileSpec{Kind::kFramedQueue, Kind::kFramedDir, "queue", false, 0666, kTakes, kSends},
    FileSpec{Kind::kFramedNext, Kind::kFramedDir, "next", false, 0666, kMessages, kNowhere},
    FileSpec{Kind::kFramedStream, Kind::kFramedDir, "stream", false, 0666, kMessages, kNowhere},
    FileSpec{Kind::kFramedLease, Kind::kFramedDir, "lease", false, 0666, kLeases, kLeases},
    FileSpec{Kind::kFramedPut, Kind::kFramedDir, "put", false, 0666, kNowhere, kSends},
    // Not at a fixed place: nothing is listed below a file.
    FileSpec{Kind::kPutAside, Kind::kPutAside, "put", false, 0666, kNowhere, kSends},
    FileSpec{Kind::kPayload, Kind::kPayload, "payload", false, 0444, kAllShapes, kNowhere},
    FileSpec{Kind::kRegion, Kind::kRegion, "region", false, 0666, kAllShapes, kAllShapes},
    FileSpec{Kind::kKern, Kind::kRoot, "kern", true, 0755, kAllShapes, kNowhere},
    FileSpec{Kind::kKernIpc, Kind::kKern, "ipc", true, 0755, kAllShapes, kNowhere},
    FileSpec{Kind::kStatsDir, Kind::kKernIpc, "stats", true, 0755, kAllShapes, kNowhere},
    FileSpec{Kind::kConfig, Kind::kKernIpc, "config", false, 0644, kAllShapes, kAllShapes},
    FileSpec{Kind::kVersion, Kind::kKernIpc, "version", false, 0444, kAllShapes, kNowhere},
    FileSpec{Kind::kStatsMessages, Kind::kStatsDir, "messages", false, 0444, kAllShapes, kNowhere},
    FileSpec{Kind::kStatsChannels, Kind::kStatsDir, "channels", false, 0444, kAllShapes, kNowhere},
    FileSpec{Kind::kStatsMappings, Kind::kStatsDir, "mappings", false, 0444, kAllShapes, kNowhere},
    FileSpec{Kind::kControl, Kind::kKernIpc, "control", false, 0777, kAllShapes, kNowhere},
    FileSpec{Kind::kStatsNotifications, Kind::kStatsDir, "notifications", false, 0444, kAllShapes,
             kNowhere},
    FileSpec{Kind::kStatsResources, Kind::kStatsDir, "resources", false, 0444, kAllShapes,
             kNowhere},
};

// Files of the contract that later versions bring.
constexpr std::array<std::string_view, 3> kLater{"call", "serve", "instances"};
constexpr std::array<std::string_view, 3> kRootNames{"kern", "cap", "net"};

}  // namespace

Shape shape_of(const channel::Channel& channel) noexcept {
    if (channel.role() == channel::Role::kSubscription) return kSubscriptionShape;
    switch (channel.settings().type) {
        case channel::Type::kQueue: return kQueueShape;
        case channel::Type::kSync: return kSyncShape;
        case channel::Type::kBatch: return kBatchShape;
        case channel::Type::kTopic: return kTopicShape;
        case channel::Type::kMulticast: return kMulticastShape;
        case channel::Type::kStream: return kStreamShape;
    }
    return kQueueShape;
}

bool is_message_file(Kind kind) noexcept {
    switch (kind) {
        case Kind::kQueue:
        case Kind::kNext:
        case Kind::kStream:
        case Kind::kLease:
        case Kind::kCritical:
        case Kind::kHigh:
        case Kind::kNormal:
        case Kind::kLow:
        case Kind::kDeadQueue:
        case Kind::kDeadNext:
        case Kind::kFramedQueue:
        case Kind::kFramedNext:
        case Kind::kFramedStream:
        case Kind::kFramedLease: return true;
        default: return false;
    }
}

const FileSpec* first_spec() noexcept {
    return kFiles.data();
}
const FileSpec* end_spec() noexcept {
    return kFiles.data() + kFiles.size();
}

const FileSpec* spec_of(Kind kind) noexcept {
    for (const FileSpec& file : kFiles) {
        if (file.kind == kind) return &file;
    }
    return nullptr;
}

const FileSpec* spec_of(Kind parent, std::string_view name) noexcept {
    for (const FileSpec& file : kFiles) {
        if (file.parent == parent && file.name == name) return &file;
    }
    return nullptr;
}

bool reserved(bool below_root, std::string_view name) noexcept {
    if (below_root)
        return std::find(kRootNames.begin(), kRootNames.end(), name) != kRootNames.end();
    return spec_of(Kind::kChannel, name) != nullptr ||
           std::find(kLater.begin(), kLater.end(), name) != kLater.end();
}

}  // namespace ipcfs::tree
