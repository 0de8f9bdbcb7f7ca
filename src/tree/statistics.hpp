// The statistics of a channel: one table of rows, from which `status`, `stats` and the tables of
// kern/ipc/stats that have a line a channel are made. A new statistic is a row. Private to src/tree.
#pragma once

#include <span>
#include <string>

#include <channel/endpoint.hpp>
#include <insight/metric.hpp>
#include <tree/file_kind.hpp>

namespace ipcfs::tree {

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

}  // namespace ipcfs::tree
