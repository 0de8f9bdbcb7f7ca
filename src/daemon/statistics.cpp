// The daemon's lines of kern/ipc/stats/resources: one row a statistic. Any thread.
#include <array>
#include <fstream>
#include <iterator>
#include <sstream>
#include <unistd.h>

#include <daemon/state.hpp>
#include <daemon/statistics.hpp>

namespace ipcfs::daemon {
namespace {

using insight::member;
using insight::Metric;
using enum insight::Unit;

struct Process {
    const channel::Registry& registry;
};
struct Fuse {
    const fuse::Session& session;
    fuse::Overload overload = session.overload();
};

insight::Value resident_bytes(const Process&) {
    std::ifstream statm("/proc/self/statm");
    std::uint64_t size = 0, resident = 0;
    statm >> size >> resident;
    return resident * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}
insight::Value channels(const Process& of) {
    return of.registry.size();
}
insight::Value parked(const Fuse& of) {
    return of.session.parked();
}
insight::Value rotations(const Fuse& of) {
    return of.overload.rotations;
}
insight::Value is_overloaded(const Fuse& of) {
    return of.overload.since ? 1U : 0U;
}
std::uint64_t ring_entries(const Fuse& of) {
    return std::uint64_t{of.session.report().depth} * of.session.report().queues;
}

using store::Health;
using Bell = fuse::Doorbell;

constexpr std::array<Metric<Process>, 2> kProcess{{
    {{"rss", kBytes, "of memory"}, resident_bytes},
    {{"channels", kCount, "channels, subscriptions with a name included"}, channels},
}};
constexpr std::array<Metric<Health>, 9> kStore{{
    {{"messages", kCount, "kept now"}, member<&Health::messages>},
    {{"puts", kCount, "messages since the start"}, member<&Health::puts>},
    {{"syncs", kCount, "of the log"}, member<&Health::syncs>},
    {{"failed_syncs", kCount, "syncs that failed"}, member<&Health::failed_syncs>},
    {{"cleaned_segments", kCount, "segments emptied since the start"}, member<&Health::cleaned>},
    {{"copied_bytes", kBytes, "copied forward for that"}, member<&Health::copied_bytes>},
    {{"journal_bytes", kBytes, "of segments in use"}, member<&Health::journal_bytes>},
    {{"salvaged", kCount, "messages saved out of a damaged store"}, member<&Health::salvaged>},
    {{"degraded", kFlag, "see `status` of durable channels"}, member<&Health::degraded>},
}};
constexpr std::array<Metric<Fuse>, 3> kFuse{{
    {{"parked", kCount, "operations that wait; limit: io_uring entries"}, parked, ring_entries},
    {{"rotations", kCount, "reads asked to come again"}, rotations},
    {{"overloaded", kFlag, "more operations wait than there are entries"}, is_overloaded},
}};
constexpr std::array<Metric<Bell>, 2> kDoorbell{{
    {{"rung", kCount, "rings"}, member<&Bell::rung>},
    {{"failed", kCount, "rings that failed"}, member<&Bell::failed>},
}};

// Names of FUSE requests by opcode (linux/fuse.h).
std::vector<std::string> request_names() {
    std::istringstream names(
        "0 LOOKUP FORGET GETATTR SETATTR READLINK SYMLINK 7 MKNOD MKDIR UNLINK RMDIR RENAME LINK "
        "OPEN READ WRITE STATFS RELEASE 19 FSYNC SETXATTR GETXATTR LISTXATTR REMOVEXATTR FLUSH "
        "INIT OPENDIR READDIR RELEASEDIR FSYNCDIR GETLK SETLK SETLKW ACCESS CREATE INTERRUPT BMAP "
        "DESTROY IOCTL POLL NOTIFY_REPLY BATCH_FORGET FALLOCATE READDIRPLUS RENAME2 LSEEK "
        "COPY_FILE_RANGE SETUPMAPPING REMOVEMAPPING SYNCFS TMPFILE STATX");
    return {std::istream_iterator<std::string>(names), {}};
}

}  // namespace

std::vector<ResourceRow> resource_rows() {
    std::vector<ResourceRow> all;
    const auto add = [&](std::string_view scope, const auto& rows) {
        for (const insight::Described& row : rows) all.push_back({scope, row});
    };
    add("user", access::kResourceRows);
    add("daemon", kProcess);
    add("store", kStore);
    add("fuse", kFuse);
    add("doorbell", kDoorbell);
    return all;
}

void Daemon::State::resources(insight::Table& table) const {
    insight::add_lines(table, "daemon", Process{registry}, kProcess);
    if (kept) insight::add_lines(table, "store", kept->health(), kStore);
    if (!session) return;
    insight::add_lines(table, "fuse", Fuse{*session}, kFuse);
    if (bell) insight::add_lines(table, "doorbell", *bell, kDoorbell);
    static const std::vector<std::string> names = request_names();
    const fuse::RequestCounts counts = session->requests();
    for (std::size_t i = 0; i < counts.size(); ++i) {
        if (counts[i] == 0) continue;
        table.row().cell("request").cell(0).cell(i < names.size() ? names[i] : std::to_string(i));
        table.cell(counts[i]).cell(0);
    }
}

}  // namespace ipcfs::daemon
