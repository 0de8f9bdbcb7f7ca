// The table of a channel's statistics, and the files made from it. Any thread.
#include <algorithm>
#include <array>
#include <type_traits>
#include <vector>

#include <tree/texts.hpp>
#include <tree/tree.hpp>

namespace ipcfs::tree {

using channel::Snapshot;
using channel::State;

namespace {

using Figures = ChannelFigures;
using C = channel::Counters;
using S = Snapshot;
using insight::Value;
using enum insight::Unit;

const char* name_of(State state) {
    switch (state) {
        case State::kOk: return "ok";
        case State::kPaused: return "paused";
        case State::kDegraded: return "degraded";
        case State::kClosed: return "closed";
    }
    return "ok";
}

// The value of a counter or of a member of the snapshot.
template <auto kMember>
Value at(const Figures& of) {
    if constexpr (std::is_invocable_v<decltype(kMember), const Snapshot&>) {
        return static_cast<std::uint64_t>(of.now.*kMember);
    } else {
        return of.now.counters.*kMember;
    }
}
template <int kPercent>
Value latency(const Figures& of) {
    return of.now.latency.percentile(kPercent / 100.0);
}

struct Get {
    static Value samples(const Figures& of) { return of.now.latency.count(); }
    static Value slowest(const Figures& of) { return of.now.latency.max(); }
    static Value path(const Figures& of) { return of.path.empty() ? "/" : of.path; }
    static Value type(const Figures& of) { return channel::name_of(of.now.settings.type); }
    static Value capacity(const Figures& of) { return of.now.settings.capacity; }
    static Value waiting(const Figures& of) {
        return of.now.waiting_readers + of.now.waiting_writers;
    }
    static Value listeners(const Figures& of) { return of.channel.events().sweep(); }
    static Value events(const Figures& of) { return of.channel.events().published(); }
    static Value last_error(const Figures& of) { return insight::escaped(of.now.last_error); }
    static Value state(const Figures& of) {
        return is_short(of) ? "degraded" : name_of(of.now.state);
    }
    static Value why(const Figures& of) { return is_short(of) ? of.degraded : of.now.why; }
    static Value owner(const Figures& of) {
        std::uint64_t uid = 0;
        of.tree.read_attributes({of.channel.id(), Kind::kChannel},
                                [&](const auto& attributes) { uid = attributes.uid; });
        return uid;
    }

    static bool is_short(const Figures& of) {
        return of.now.state == State::kOk && !of.degraded.empty();
    }
    static bool is_not_ok(const Figures& of) { return is_short(of) || *of.now.why; }
    static bool leases(const Figures& of) {
        return ((kQueueShape | kBatchShape | kSubscriptionShape) & shape_of(of.channel)) != 0;
    }
    static bool publishes(const Figures& of) { return of.now.settings.publishes(); }
    static bool subscribes(const Figures& of) {
        return of.now.role == channel::Role::kSubscription;
    }
    static bool has_error(const Figures& of) { return !of.now.last_error.empty(); }
};

using IsShown = bool (*)(const Figures&);

constexpr ChannelMetric row(std::string_view name, Value (*get)(const Figures&), Places in,
                            std::string_view help, insight::Unit unit = kCount,
                            IsShown is_shown = nullptr) {
    return {{{name, unit, help}, get}, in, is_shown};
}

// ---- the table ----------------------------------------------------------------------------------

constexpr std::array kMetrics{
    // In status, stats, messages, channels, notifications.
    row("channel", Get::path, {0, 0, 1, 1, 1}, "its path below the mount", kText),
    row("state", Get::state, {1, 0, 0, 3},
        "`ok`, `paused`, `closed` (removed, but open somewhere), `degraded`", kText),
    row("why", Get::why, {2}, "the reason for another state than `ok`", kText, Get::is_not_ok),
    row("type", Get::type, {3, 0, 0, 2}, "see [ctl](#ctl)", kText),
    row("enqueued", at<&C::enqueued>, {0, 1, 2}, "messages accepted"),
    row("enqueued_bytes", at<&C::enqueued_bytes>, {0, 2, 3}, "of them", kBytes),
    row("delivered", at<&C::delivered>, {0, 3, 4}, "taken by readers; one given back counts again"),
    row("delivered_bytes", at<&C::delivered_bytes>, {0, 4, 5}, "of them", kBytes),
    row("depth", at<&S::depth>, {4, 5, 6, 4}, "messages queued now"),
    row("capacity", Get::capacity, {5, 0, 0, 6}, "how many may be queued"),
    row("bytes", at<&S::bytes>, {6, 6, 7, 5}, "of the messages queued now", kBytes),
    row("readers", at<&S::readers>, {7, 0, 0, 7}, "open for reading; O_RDWR counts as both"),
    row("writers", at<&S::writers>, {8, 0, 0, 8}, "open for writing"),
    row("waiting", Get::waiting, {9}, "operations that wait"),
    row("waiting_readers", at<&S::waiting_readers>, {10, 0, 0, 9}, "reads that wait"),
    row("waiting_writers", at<&S::waiting_writers>, {11, 0, 0, 10},
        "writes that wait, and opens at the gate"),
    row("oldest_age", at<&S::oldest_age>, {12, 0, 0, 11}, "how long the oldest message has waited",
        kNanos),
    row("rejected", at<&C::rejected>, {0, 7, 8}, "messages refused with ENOBUFS"),
    row("timed_out", at<&C::timed_out>, {0, 8, 9},
        "writes that waited in vain (EAGAIN, ETIMEDOUT)"),
    row("dropped_oldest", at<&C::dropped_oldest>, {0, 9, 10}, "by `overflow drop-oldest`"),
    row("dropped_newest", at<&C::dropped_newest>, {0, 10, 11}, "by `overflow drop-newest`"),
    row("expired", at<&C::expired>, {0, 11, 12}, "messages whose time was over"),
    row("purged", at<&C::purged>, {0, 12, 13}, "messages discarded by `purge`"),
    row("withdrawn", at<&C::withdrawn>, {0, 13, 14},
        "sync: not taken in time, or the writer was interrupted"),
    row("given_back", at<&C::given_back>, {0, 14, 15},
        "taken by a reader that was gone at the answer; next again, as redelivered"),
    row("pauses", at<&C::pauses>, {0, 15, 0, 16}, "times the high mark was reached"),
    row("rings", at<&C::rings>, {0, 16, 0, 0, 4}, "doorbell rings asked for"),
    row("latency_count", Get::samples, {0, 17, 16}, "deliveries measured from the arrival on"),
    row("latency_p50", latency<50>, {0, 18, 17},
        "their median; percentiles are at most 1/16 too high", kNanos),
    row("latency_p95", latency<95>, {0, 19, 18}, "their 95th percentile", kNanos),
    row("latency_p99", latency<99>, {0, 20, 19}, "their 99th percentile", kNanos),
    row("latency_max", Get::slowest, {0, 21, 20}, "the longest of them", kNanos),
    row("last_arrival", at<&S::last_arrival>, {0, 0, 0, 12}, "0: never", kTime),
    row("last_delivery", at<&S::last_delivery>, {0, 0, 0, 13}, "0: never", kTime),
    row("created", at<&S::created>, {0, 22, 0, 14}, "when the channel was made", kTime),
    row("uid", Get::owner, {0, 0, 0, 15}, "the channel's owner"),
    row("leased", at<&C::leased>, {0, 23, 21}, "given out on lease so far (also in `delivered`)"),
    row("acked", at<&C::acked>, {0, 24, 22}, "leases that ended with `ack`"),
    row("nacked", at<&C::nacked>, {0, 25, 23}, "leases that ended with `nack`"),
    row("lease_timed_out", at<&C::lease_timeouts>, {0, 26, 24}, "leases whose time was over"),
    row("dead", at<&C::dead>, {0, 27, 25}, "that became dead letters"),
    row("redriven", at<&C::redriven>, {0, 28}, "dead letters that went back"),
    row("redelivered", at<&C::redelivered>, {0, 29, 26}, "deliveries of messages given out before"),
    row("copies", at<&C::copies>, {0, 30}, "of a topic: entries made for subscribers"),
    row("unmatched", at<&C::unmatched>, {0, 31}, "of a topic: messages that nobody took"),
    row("leased", at<&S::leased>, {13, 0, 0, 18}, "on lease now; where there are leases", kCount,
        Get::leases),
    row("delayed", at<&S::delayed>, {14, 0, 0, 19},
        "waiting for a delay to pass; where there are leases", kCount, Get::leases),
    row("dead", at<&S::dead>, {15, 0, 0, 20}, "dead letters now; where there are leases", kCount,
        Get::leases),
    row("subscribers", at<&S::subscriptions>, {16, 0, 0, 17}, "of a topic: its subscriptions",
        kCount, Get::publishes),
    row("retained", at<&S::retained>, {17}, "of a topic: messages for newcomers", kCount,
        Get::publishes),
    row("lost", at<&C::lost>, {18, 32},
        "of a subscription: did not fit, or over its owner's limits", kCount, Get::subscribes),
    row("last_error", Get::last_error, {19}, "what was refused last, and why", kText,
        Get::has_error),
    row("listeners", Get::listeners, {0, 0, 0, 0, 2},
        "open `notify` files and signal registrations"),
    row("events", Get::events, {0, 0, 0, 0, 3}, "events told so far"),
};

// ---- the files ----------------------------------------------------------------------------------

// The rows that a file shows, in its order.
std::vector<const ChannelMetric*> shown_in(std::uint8_t Places::*file) {
    std::vector<const ChannelMetric*> rows;
    for (const ChannelMetric& row : kMetrics) {
        if (row.in.*file != 0) rows.push_back(&row);
    }
    std::sort(rows.begin(), rows.end(),
              [&](auto* one, auto* other) { return one->in.*file < other->in.*file; });
    return rows;
}

// A table with a line for each channel that `for_each` visits.
template <class ForEach>
std::string table(Tree& tree, std::uint8_t Places::*file, ForEach&& for_each) {
    const auto rows = shown_in(file);
    std::vector<std::string_view> names;
    for (const ChannelMetric* row : rows) names.push_back(row->metric.name);
    insight::Table table(names);
    for_each([&](const ChannelPtr& channel, const std::string& path) {
        const Figures of{tree, *channel, path, channel->snapshot()};
        table.row();
        for (const ChannelMetric* row : rows) table.cell(insight::text_of(row->metric.get(of)));
    });
    return std::move(table).text();
}

std::string table_of_all(Tree& tree, std::uint8_t Places::*file) {
    return table(tree, file, [&](const auto& visit) { tree.registry().for_each(visit); });
}

}  // namespace

std::span<const ChannelMetric> channel_metrics() noexcept {
    return kMetrics;
}

std::string status_text(Tree& tree, const ChannelPtr& channel) {
    std::string text;
    Figures of{tree, *channel, {}, channel->snapshot()};
    if (tree.system().degraded) of.degraded = tree.system().degraded();
    for (const ChannelMetric* row : shown_in(&Places::status)) {
        if (row->is_shown && !row->is_shown(of)) continue;
        std::string key(row->metric.name);
        std::replace(key.begin(), key.end(), '_', '-');
        if (row->metric.unit == kNanos) key += "-ns";
        text.append(key).append(" ").append(insight::text_of(row->metric.get(of))).append("\n");
    }
    return text;
}

std::string stats_text(Tree& tree, const ChannelPtr& channel) {
    return table(tree, &Places::stats, [&](const auto& visit) { visit(channel, std::string()); });
}

std::string messages_text(Tree& tree, const ChannelPtr&) {
    return table_of_all(tree, &Places::messages);
}

std::string channels_text(Tree& tree, const ChannelPtr&) {
    return table_of_all(tree, &Places::channels);
}

std::string notifications_text(Tree& tree, const ChannelPtr&) {
    return table_of_all(tree, &Places::notifications);
}

}  // namespace ipcfs::tree
