// The table of files. Any thread.
#include <algorithm>
#include <array>

#include <tree/node.hpp>

namespace ipcfs::tree {
namespace {

constexpr std::array kFiles{
    FileSpec{Kind::kQueue, Kind::kChannel, "queue", false, 0666, true, true},
    FileSpec{Kind::kNext, Kind::kChannel, "next", false, 0666, true, false},
    FileSpec{Kind::kStream, Kind::kChannel, "stream", false, 0666, true, false},
    FileSpec{Kind::kPut, Kind::kChannel, "put", false, 0666, false, true},
    FileSpec{Kind::kPeek, Kind::kChannel, "peek", false, 0666, true, false},
    FileSpec{Kind::kPriorityDir, Kind::kChannel, "priority", true, 0777, true, false},
    FileSpec{Kind::kFramedDir, Kind::kChannel, "framed", true, 0777, true, false},
    FileSpec{Kind::kPayloadDir, Kind::kChannel, "payload", true, 0777, true, false},
    FileSpec{Kind::kShareDir, Kind::kChannel, "share", true, 0777, true, false},
    FileSpec{Kind::kNotify, Kind::kChannel, "notify", false, 0644, true, true},
    FileSpec{Kind::kCtl, Kind::kChannel, "ctl", false, 0644, true, true},
    FileSpec{Kind::kStatus, Kind::kChannel, "status", false, 0666, true, false},
    FileSpec{Kind::kStats, Kind::kChannel, "stats", false, 0666, true, false},
    FileSpec{Kind::kCritical, Kind::kPriorityDir, "critical", false, 0666, false, true},
    FileSpec{Kind::kHigh, Kind::kPriorityDir, "high", false, 0666, false, true},
    FileSpec{Kind::kNormal, Kind::kPriorityDir, "normal", false, 0666, false, true},
    FileSpec{Kind::kLow, Kind::kPriorityDir, "low", false, 0666, false, true},
    FileSpec{Kind::kFramedQueue, Kind::kFramedDir, "queue", false, 0666, true, true},
    FileSpec{Kind::kFramedNext, Kind::kFramedDir, "next", false, 0666, true, false},
    FileSpec{Kind::kFramedStream, Kind::kFramedDir, "stream", false, 0666, true, false},
    FileSpec{Kind::kFramedPut, Kind::kFramedDir, "put", false, 0666, false, true},
    // Not at a fixed place: nothing is listed below a file.
    FileSpec{Kind::kPutAside, Kind::kPutAside, "put", false, 0666, false, true},
    FileSpec{Kind::kPayload, Kind::kPayload, "payload", false, 0444, true, false},
    FileSpec{Kind::kRegion, Kind::kRegion, "region", false, 0666, true, true},
    FileSpec{Kind::kKern, Kind::kRoot, "kern", true, 0755, true, false},
    FileSpec{Kind::kKernIpc, Kind::kKern, "ipc", true, 0755, true, false},
    FileSpec{Kind::kStatsDir, Kind::kKernIpc, "stats", true, 0755, true, false},
    FileSpec{Kind::kConfig, Kind::kKernIpc, "config", false, 0644, true, true},
    FileSpec{Kind::kVersion, Kind::kKernIpc, "version", false, 0444, true, false},
    FileSpec{Kind::kStatsMessages, Kind::kStatsDir, "messages", false, 0444, true, false},
    FileSpec{Kind::kStatsChannels, Kind::kStatsDir, "channels", false, 0444, true, false},
    FileSpec{Kind::kStatsMappings, Kind::kStatsDir, "mappings", false, 0444, true, false},
    FileSpec{Kind::kControl, Kind::kKernIpc, "control", false, 0777, false, false},
    FileSpec{Kind::kStatsNotifications, Kind::kStatsDir, "notifications", false, 0444, true, false},
    FileSpec{Kind::kStatsResources, Kind::kStatsDir, "resources", false, 0444, true, false},
};

// Files of the contract that later versions bring.
constexpr std::array<std::string_view, 7> kLater{"lease", "dead",      "subs",  "call",
                                                 "serve", "instances", "filter"};
constexpr std::array<std::string_view, 3> kRootNames{"kern", "cap", "net"};

}  // namespace

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
