// What the files that show a text say, and what those that take one do with it: the functions that the
// table of files names. Private to src/tree. Any thread; each text is one consistent snapshot of a channel.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include <access/subject.hpp>
#include <base/result.hpp>
#include <channel/endpoint.hpp>
#include <insight/metric.hpp>
#include <tree/file_kind.hpp>

namespace ipcfs::tree {

// Of a channel.
std::string main_peek_text(Tree& tree, const ChannelPtr& channel);
std::string dead_peek_text(Tree& tree, const ChannelPtr& channel);
std::string filter_text(Tree& tree, const ChannelPtr& channel);
std::string ctl_text(Tree& tree, const ChannelPtr& channel);
std::string status_text(Tree& tree, const ChannelPtr& channel);
std::string stats_text(Tree& tree, const ChannelPtr& channel);
// Of the system; `channel` is null.
std::string messages_text(Tree& tree, const ChannelPtr& channel);
std::string channels_text(Tree& tree, const ChannelPtr& channel);
std::string notifications_text(Tree& tree, const ChannelPtr& channel);
std::string mappings_text(Tree& tree, const ChannelPtr& channel);
std::string resources_text(Tree& tree, const ChannelPtr& channel);
std::string config_text(Tree& tree, const ChannelPtr& channel);
std::string version_text(Tree& tree, const ChannelPtr& channel);
std::string settings_text(Tree& tree, const ChannelPtr& channel);

// ---- statistics of a channel: one row each, from which `status`, `stats` and the files with a line a
// channel are made. A new one is a row. ----

// What the getters look at.
struct ChannelFigures {
    Tree& tree;
    channel::Endpoint& channel;
    std::string path;
    channel::Snapshot now;
    std::string degraded = {};  // what the daemon is short of; `status` shows it
};

// The place of a statistic in each file that shows it, from 1; 0: not there. New ones come last in a
// file, since programs may count columns.
struct Places {
    std::uint8_t status = 0, stats = 0, messages = 0, channels = 0, notifications = 0;
};

struct ChannelMetric {
    insight::Metric<ChannelFigures> metric;
    Places in;
    bool (*is_shown)(const ChannelFigures& of) = nullptr;  // in `status`; null: always
};

std::span<const ChannelMetric> channel_metrics() noexcept;

// A fault's code is the error of the write.
Result<void> take_filter(Tree& tree, const ChannelPtr& channel, std::string_view text,
                         const access::Subject& by);
Result<void> take_ctl(Tree& tree, const ChannelPtr& channel, std::string_view text,
                      const access::Subject& by);
Result<void> take_config(Tree& tree, const ChannelPtr& channel, std::string_view text,
                         const access::Subject& by);
bool is_slow_ctl(std::string_view text);

}  // namespace ipcfs::tree
