// The tables of statistics: what the files show, and what the documentation says of them.
#include <fstream>
#include <iterator>
#include <string>

#include <gtest/gtest.h>

#include "control_world.hpp"
#include <daemon/statistics.hpp>
#include <tree/texts.hpp>

namespace ipcfs::tree {
namespace {

class Statistics : public control::ControlWorld {};

std::string first_line(const std::string& text) {
    return text.substr(0, text.find('\n'));
}

// Programs may count columns: these lines only ever grow at their ends.
TEST_F(Statistics, HaveTheColumnsThatTheyAlwaysHad) {
    EXPECT_EQ(
        first_line(stats_text(tree_, channel("jobs"))),
        "enqueued\tenqueued_bytes\tdelivered\tdelivered_bytes\tdepth\tbytes\trejected\t"
        "timed_out\tdropped_oldest\tdropped_newest\texpired\tpurged\twithdrawn\tgiven_back\t"
        "pauses\trings\tlatency_count\tlatency_p50\tlatency_p95\tlatency_p99\tlatency_max\t"
        "created\tleased\tacked\tnacked\tlease_timed_out\tdead\tredriven\tredelivered\tcopies\t"
        "unmatched\tlost");
    EXPECT_EQ(first_line(messages_text(tree_, nullptr)),
              "channel\tenqueued\tenqueued_bytes\tdelivered\tdelivered_bytes\tdepth\tbytes\t"
              "rejected\ttimed_out\tdropped_oldest\tdropped_newest\texpired\tpurged\twithdrawn\t"
              "given_back\tlatency_count\tlatency_p50\tlatency_p95\tlatency_p99\tlatency_max\t"
              "leased\tacked\tnacked\tlease_timed_out\tdead\tredelivered");
    EXPECT_EQ(first_line(channels_text(tree_, nullptr)),
              "channel\ttype\tstate\tdepth\tbytes\tcapacity\treaders\twriters\twaiting_readers\t"
              "waiting_writers\toldest_age\tlast_arrival\tlast_delivery\tcreated\tuid\tpauses\t"
              "subscribers\tleased\tdelayed\tdead");
    EXPECT_EQ(notifications_text(tree_, nullptr),
              "channel\tlisteners\tevents\trings\njobs\t0\t0\t0\n");
    EXPECT_EQ(first_line(resources_text(tree_, nullptr)), "scope\tid\tresource\tused\tlimit");
    const std::string status = status_text(tree_, channel("jobs"));
    EXPECT_EQ(
        status.substr(0, status.find("oldest")),
        "state ok\ntype queue\ndepth 0\ncapacity 1000\nbytes 0\nreaders 0\nwriters 0\nwaiting 0\n"
        "waiting-readers 0\nwaiting-writers 0\n");
    EXPECT_EQ(status.substr(status.find("oldest")),
              "oldest-age-ns 0\nleased 0\ndelayed 0\ndead 0\n");
}

TEST_F(Statistics, StatusSaysWhatWasRefusedAndWhyItIsPaused) {
    EXPECT_FALSE(channel("jobs")->control("no such\tsetting\n"));
    ASSERT_TRUE(channel("jobs")->control("type topic\npause\n"));
    const std::string status = status_text(tree_, channel("jobs"));
    EXPECT_TRUE(
        status.starts_with("state paused\nwhy by command; `resume` in ctl ends it\ntype topic\n"))
        << status;
    EXPECT_NE(status.find("\nsubscribers 0\nretained 0\nlast-error "), status.npos) << status;
    EXPECT_EQ(status.find("\nleased"), status.npos) << status;
}

TEST_F(Statistics, HaveOnePlaceForEachColumn) {
    for (const auto file : {&Places::status, &Places::stats, &Places::messages, &Places::channels,
                            &Places::notifications}) {
        std::set<unsigned> places;
        for (const ChannelMetric& row : channel_metrics()) {
            const unsigned place = row.in.*file;
            EXPECT_TRUE(place == 0 || places.insert(place).second) << row.metric.name;
        }
        EXPECT_EQ(*places.begin(), 1U);
        EXPECT_EQ(*places.rbegin(), places.size());
    }
}

// Its percentiles are evaluated by whoever reads it, after the channel's lock is released.
TEST_F(Statistics, ASnapshotKeepsItsOwnHistogram) {
    push("jobs", "a");
    take("jobs");
    const channel::Snapshot before = channel("jobs")->snapshot();
    push("jobs", "b");
    take("jobs");
    EXPECT_EQ(before.latency.count(), 1U);
    EXPECT_EQ(before.latency.percentile(1), before.latency.max());
    EXPECT_EQ(channel("jobs")->snapshot().latency.count(), 2U);
}

const char* name_of(insight::Unit unit) {
    switch (unit) {
        case insight::Unit::kCount: return "count";
        case insight::Unit::kBytes: return "bytes";
        case insight::Unit::kNanos: return "ns";
        case insight::Unit::kTime: return "ns since 1970";
        case insight::Unit::kFlag: return "0 or 1";
        case insight::Unit::kText: return "text";
    }
    return "";
}

TEST_F(Statistics, DocumentationTellsEveryRow) {
    std::ifstream file(IPCFS_SOURCE_DIR "/docs/tree.md");
    const std::string tree(std::istreambuf_iterator<char>(file), {});
    const auto code = [](std::string_view text) { return "`" + std::string(text) + "`"; };
    const auto expect_row = [&](const auto&... cell) {
        std::string row = "\n|";
        ((row.append(" ").append(cell).append(" |")), ...);
        EXPECT_NE(tree.find(row + "\n"), std::string::npos) << "tree.md:" << row;
    };
    for (const ChannelMetric& row : channel_metrics()) {
        std::string files;
        for (const auto& [name, place] :
             {std::pair("status", row.in.status), std::pair("stats", row.in.stats),
              std::pair("messages", row.in.messages), std::pair("channels", row.in.channels),
              std::pair("notifications", row.in.notifications)}) {
            if (place != 0) files.append(files.empty() ? "" : ", ").append(code(name));
        }
        expect_row(code(row.metric.name), name_of(row.metric.unit), files, row.metric.help);
    }
    for (const daemon::ResourceRow& each : daemon::resource_rows()) {
        expect_row(code(each.scope), code(each.row.name), name_of(each.row.unit), each.row.help);
    }
    for (const insight::Described& row : payload::counter_metrics()) {
        expect_row(code("counter"), code(row.name), row.help);
    }
}

}  // namespace
}  // namespace ipcfs::tree
