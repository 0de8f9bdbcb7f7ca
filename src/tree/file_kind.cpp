// The table of files. Any thread.
#include <algorithm>
#include <array>
#include <sys/stat.h>

#include <tree/directory.hpp>
#include <tree/file_kind.hpp>
#include <tree/openers.hpp>
#include <tree/texts.hpp>

namespace ipcfs::tree {
namespace {

using queue::Lane, queue::Via;
using Read = MessageStyle::Read;

constexpr Kind kChannel = Kind::kChannel, kFramed = Kind::kFramedDir, kDead = Kind::kDeadDir,
               kPriority = Kind::kPriorityDir, kIpc = Kind::kKernIpc, kStats = Kind::kStatsDir;

constexpr Shapes kNowhere = 0, kTopics = kTopicShape | kMulticastShape,
                 kQueues = kQueueShape | kBatchShape,    // whose messages are leased
    kSends = kQueues | kSyncShape | kTopics,             // messages are sent there
    kTakes = kQueues | kSyncShape | kSubscriptionShape,  // and taken there
    kLeases = kQueues | kSubscriptionShape, kMessages = kSends | kTakes,  // all but bytes
    kAll = kAllShapes;

constexpr FileKind directory(Kind kind, Kind parent, std::string_view name, mode_t mask,
                             Shapes shapes,
                             std::shared_ptr<Directory> (*make)(Tree&) = make_fixed_directory,
                             Rights rights = Rights::kOwn) {
    FileKind row{kind, parent, name, S_IFDIR, mask, shapes, kNowhere};
    row.directory = make;
    row.rights = rights;
    if (rights == Rights::kQueue) row.keep = Keep::kNothing;
    return row;
}

constexpr FileKind messages(Kind kind, Kind parent, std::string_view name, Shapes reads,
                            Shapes writes, MessageStyle style,
                            Opened (*open)(const OpenRequest&) = open_messages) {
    FileKind row{kind, parent, name, S_IFREG, 0666, reads, writes, open};
    row.messages = style;
    row.has_times = true;
    return row;
}

constexpr FileKind put(Kind kind, Kind parent, std::string_view name, MessageStyle style,
                       Keep keep = Keep::kAll) {
    FileKind row{kind, parent, name, S_IFREG, 0666, kNowhere, kSends, open_put};
    row.messages = style;
    row.keep = keep;
    row.length = Length::kIgnored;
    if (kind == Kind::kPut) row.aside = Kind::kPutAside;
    if (kind == Kind::kPutAside) row.aside_of = Kind::kPut;
    return row;
}

constexpr FileKind text(Kind kind, Kind parent, std::string_view name, mode_t mask, Shapes shapes,
                        TextStyle style) {
    const Shapes writes = style.take ? shapes : kNowhere;
    FileKind row{kind, parent, name, S_IFREG, mask, shapes, writes, open_text};
    row.text = style;
    return row;
}

// A file whose id is its own and not the channel's.
constexpr FileKind memory(Kind kind, Kind parent, mode_t mask, Shapes writes,
                          Opened (*open)(const OpenRequest&), Rights rights) {
    FileKind row{kind, parent, {}, S_IFREG, mask, kAll, writes, open};
    row.keep = Keep::kNothing;
    row.rights = rights;
    row.has_own_id = true;
    row.length = writes ? Length::kSet : Length::kSealed;
    return row;
}

constexpr FileKind link(Kind kind, Kind parent, std::string_view name) {
    return {kind, parent, name, S_IFLNK, 0777, kAll, kNowhere};
}

constexpr std::array kFiles{
    directory(Kind::kRoot, Kind::kRoot, {}, 07777, kAll, make_channel_directory, Rights::kMade),
    directory(kChannel, kChannel, {}, 07777, kAll, make_channel_directory, Rights::kMade),
    messages(Kind::kQueue, kChannel, "queue", kTakes, kSends, {.via = Via::kQueueFile}),
    messages(Kind{3}, kChannel, "next", kMessages, kNowhere, {.read = Read::kOne}),
    messages(Kind::kStream, kChannel, "stream", kAll, kStreamShape, {.read = Read::kFollow},
             open_stream),
    messages(Kind{64}, kChannel, "lease", kLeases, kLeases, {}, open_lease),
    // Its size changes without the daemon.
    put(Kind::kPut, kChannel, "put", {}, Keep::kName),
    put(Kind::kPutAside, kChannel, {}, {}, Keep::kNothing),
    text(Kind{5}, kChannel, "peek", 0666, kTakes, {main_peek_text}),
    directory(kPriority, kChannel, "priority", 0777, kSends),
    directory(kDead, kChannel, "dead", 0777, kLeases),
    directory(Kind::kSubsDir, kChannel, "subs", 01777, kTopics, make_subs_directory),
    directory(kFramed, kChannel, "framed", 0777, kMessages),
    directory(Kind::kPayloadDir, kChannel, "payload", 0777, kSends, make_payload_directory,
              Rights::kQueue),
    directory(Kind::kShareDir, kChannel, "share", 0777, kSends | kStreamShape,
              make_share_directory),
    text(Kind{71}, kChannel, "filter", 0644, kSubscriptionShape, {filter_text, take_filter}),
    FileKind{Kind::kNotify, kChannel, "notify", S_IFREG, 0644, kAll, kAll, open_notify},
    text(Kind{15}, kChannel, "ctl", 0644, kAll, {ctl_text, take_ctl, is_slow_ctl}),
    text(Kind{16}, kChannel, "status", 0666, kAll, {status_text}),
    text(Kind{17}, kChannel, "stats", 0666, kAll, {stats_text}),
    messages(Kind{7}, kPriority, "critical", kNowhere, kSends, {.priority = queue::kCritical}),
    messages(Kind{8}, kPriority, "high", kNowhere, kSends, {.priority = queue::kHigh}),
    messages(Kind{9}, kPriority, "normal", kNowhere, kSends, {}),
    messages(Kind{10}, kPriority, "low", kNowhere, kSends, {.priority = queue::kLow}),
    messages(Kind{67}, kDead, "queue", kLeases, kNowhere, {.lane = Lane::kDead}),
    messages(Kind{68}, kDead, "next", kLeases, kNowhere, {.read = Read::kOne, .lane = Lane::kDead}),
    text(Kind{69}, kDead, "peek", 0666, kLeases, {dead_peek_text}),
    messages(Kind{12}, kFramed, "queue", kTakes, kSends, {.framed = true}),
    messages(Kind{13}, kFramed, "next", kMessages, kNowhere, {.read = Read::kOne, .framed = true}),
    messages(Kind{14}, kFramed, "stream", kMessages, kNowhere,
             {.read = Read::kFollow, .framed = true}),
    messages(Kind{65}, kFramed, "lease", kLeases, kLeases, {.framed = true}, open_lease),
    put(Kind{21}, kFramed, "put", {.framed = true}),
    memory(Kind::kPayload, Kind::kPayloadDir, 0444, kNowhere, open_payload, Rights::kQueue),
    memory(Kind::kRegion, Kind::kShareDir, 0666, kAll, open_region, Rights::kOwn),
    directory(Kind::kKern, Kind::kRoot, "kern", 0755, kAll),
    directory(kIpc, Kind::kKern, "ipc", 0755, kAll),
    directory(kStats, kIpc, "stats", 0755, kAll),
    text(Kind{39}, kIpc, "config", 0644, kAll, {config_text, take_config}),
    text(Kind{40}, kIpc, "version", 0444, kAll, {version_text}),
    text(Kind{43}, kIpc, "settings", 0444, kAll, {settings_text}),
    text(Kind{35}, kStats, "messages", 0444, kAll, {messages_text}),
    text(Kind{36}, kStats, "channels", 0444, kAll, {channels_text}),
    text(Kind{41}, kStats, "mappings", 0444, kAll, {mappings_text}),
    link(Kind{42}, kIpc, "control"),
    text(Kind{37}, kStats, "notifications", 0444, kAll, {notifications_text}),
    text(Kind{38}, kStats, "resources", 0444, kAll, {resources_text}),
};

// Names of files that later versions bring.
constexpr std::array<std::string_view, 3> kLater{"call", "serve", "instances"};
constexpr std::array<std::string_view, 3> kRootNames{"kern", "cap", "net"};

// Rows by their number.
constexpr auto kByNumber = [] {
    std::array<const FileKind*, 256> rows{};
    for (const FileKind& row : kFiles) rows[raw(row.kind)] = &row;
    return rows;
}();

constexpr bool has_each_number_once() {
    for (const FileKind& row : kFiles)
        if (kByNumber[raw(row.kind)] != &row) return false;
    return true;
}
static_assert(has_each_number_once());

// The seals of a file do not keep a mapping that goes past the daemon from writing: what may be backed
// whole (OpenFile::backing) is never open for reading and writing both.
constexpr bool has_one_direction_for_whole_backings() {
    return std::all_of(kFiles.begin(), kFiles.end(), [](const FileKind& row) {
        return row.length == Length::kIgnored  ? row.reads == kNowhere
               : row.length == Length::kSealed ? row.writes == kNowhere
                                               : true;
    });
}
static_assert(has_one_direction_for_whole_backings());

}  // namespace

Shape shape_of(const channel::Endpoint& channel) noexcept {
    if (channel.role() == channel::Role::kSubscription) return kSubscriptionShape;
    switch (channel.settings().type) {
        case channel::Type::kSync: return kSyncShape;
        case channel::Type::kBatch: return kBatchShape;
        case channel::Type::kTopic: return kTopicShape;
        case channel::Type::kMulticast: return kMulticastShape;
        case channel::Type::kStream: return kStreamShape;
        default: return kQueueShape;  // types that show what a queue does
    }
}

std::span<const FileKind> file_kinds() noexcept {
    return kFiles;
}

const FileKind* file_kind(Kind kind) noexcept {
    return kByNumber[raw(kind)];
}

const FileKind* file_kind(Kind parent, std::string_view name) noexcept {
    if (name.empty()) return nullptr;
    const auto row = std::find_if(kFiles.begin(), kFiles.end(), [&](const FileKind& each) {
        return each.parent == parent && each.name == name;
    });
    return row == kFiles.end() ? nullptr : row;
}

bool is_directory(Kind kind) noexcept {
    const FileKind* row = file_kind(kind);
    return row && row->is_directory();
}

bool is_reserved(bool below_root, std::string_view name) noexcept {
    if (below_root)
        return std::find(kRootNames.begin(), kRootNames.end(), name) != kRootNames.end();
    return file_kind(kChannel, name) != nullptr ||
           std::find(kLater.begin(), kLater.end(), name) != kLater.end();
}

std::optional<NodeId> aside(NodeId node) noexcept {
    const FileKind* row = file_kind(node.kind);
    return row && row->aside ? std::optional(NodeId{node.channel, *row->aside}) : std::nullopt;
}

bool is_aside(NodeId node) noexcept {
    return without_aside(node) != node;
}

NodeId without_aside(NodeId node) noexcept {
    const FileKind* row = file_kind(node.kind);
    return row && row->aside_of ? NodeId{node.channel, *row->aside_of} : node;
}

}  // namespace ipcfs::tree
