// What the files that show a text say.
#include <channel/subscription.hpp>
#include <insight/table.hpp>
#include <ipcfs/frame.hpp>
#include <tree/texts.hpp>
#include <tree/tree.hpp>

namespace ipcfs::tree {

using channel::Snapshot;
using channel::State;
using insight::Table;

namespace {

const char* name_of(State state) {
    switch (state) {
        case State::kOk: return "ok";
        case State::kPaused: return "paused";
        case State::kDegraded: return "degraded";
        case State::kClosed: return "closed";
    }
    return "ok";
}

void line(std::string& text, std::string_view key, std::string_view value) {
    text.append(key).append(" ").append(value).append("\n");
}
void line(std::string& text, std::string_view key, std::uint64_t value) {
    line(text, key, std::to_string(value));
}

std::string path_cell(const std::string& path) {
    return path.empty() ? std::string("/") : path;
}

std::string peek_text(const channel::Channel& channel, queue::Lane lane) {
    Table t({"sequence", "id", "time", "priority", "type", "size", "pid", "tid", "uid", "gid",
             "correlation", "deadline", "redelivered", "deliveries"});
    for (const channel::Listed& m : channel.list(lane)) {
        const queue::Envelope& e = m.envelope;
        t.row().cell(e.sequence).cell(e.id).cell(e.time).cell(unsigned{e.priority});
        t.cell(to_string(static_cast<FrameType>(e.type))).cell(m.size);
        t.cell(e.sender.pid).cell(e.sender.tid).cell(e.sender.uid).cell(e.sender.gid);
        t.cell(e.correlation).cell(e.deadline).cell(e.redelivered ? 1 : 0);
        t.cell(e.deliveries);
    }
    return std::move(t).text();
}

}  // namespace

std::string main_peek_text(Tree&, const ChannelPtr& channel) {
    return peek_text(*channel, queue::Lane::kMain);
}

std::string dead_peek_text(Tree&, const ChannelPtr& channel) {
    return peek_text(*channel, queue::Lane::kDead);
}

std::string filter_text(Tree&, const ChannelPtr& channel) {
    return channel->subscription()->filter();
}

std::string ctl_text(Tree&, const ChannelPtr& channel) {
    return channel::print(channel->settings());
}

std::string config_text(Tree& tree, const ChannelPtr&) {
    return tree.system().config ? tree.system().config() : std::string();
}

std::string version_text(Tree& tree, const ChannelPtr&) {
    return tree.system().version ? tree.system().version() : std::string();
}

std::string settings_text(Tree&, const ChannelPtr&) {
    Table t({"key", "values", "help"});
    for (const channel::SettingRow& row : channel::setting_rows()) {
        t.row().cell(row.key).cell(row.values).cell(row.help);
    }
    return std::move(t).text();
}

std::string status_text(Tree& tree, const ChannelPtr& channel) {
    const std::string degraded = tree.system().degraded ? tree.system().degraded() : std::string();
    Snapshot s = channel->snapshot();
    std::string text;
    bool short_of = s.state == State::kOk && !degraded.empty();
    line(text, "state", short_of ? "degraded" : name_of(s.state));
    if (short_of) line(text, "why", degraded);
    if (*s.why) line(text, "why", s.why);
    line(text, "type", channel::name_of(s.settings.type));
    line(text, "depth", s.depth);
    line(text, "capacity", s.settings.capacity);
    line(text, "bytes", s.bytes);
    line(text, "readers", s.readers);
    line(text, "writers", s.writers);
    line(text, "waiting", s.waiting_readers + s.waiting_writers);
    line(text, "waiting-readers", s.waiting_readers);
    line(text, "waiting-writers", s.waiting_writers);
    line(text, "oldest-age-ns", static_cast<std::uint64_t>(s.oldest_age));
    if (((kQueueShape | kBatchShape | kSubscriptionShape) & shape_of(*channel)) != 0) {
        line(text, "leased", s.leased);
        line(text, "delayed", s.delayed);
        line(text, "dead", s.dead);
    }
    if (s.settings.publishes()) {
        line(text, "subscribers", s.subscriptions);
        line(text, "retained", s.retained);
    }
    if (s.role == channel::Role::kSubscription) line(text, "lost", s.counters.lost);
    if (!s.last_error.empty()) line(text, "last-error", insight::escaped(s.last_error));
    return text;
}

std::string stats_text(Tree&, const ChannelPtr& channel) {
    Snapshot s = channel->snapshot();
    const channel::Counters& c = s.counters;
    Table t({"enqueued",       "enqueued_bytes",  "delivered",   "delivered_bytes",
             "depth",          "bytes",           "rejected",    "timed_out",
             "dropped_oldest", "dropped_newest",  "expired",     "purged",
             "withdrawn",      "given_back",      "pauses",      "rings",
             "latency_count",  "latency_p50",     "latency_p95", "latency_p99",
             "latency_max",    "created",         "leased",      "acked",
             "nacked",         "lease_timed_out", "dead",        "redriven",
             "redelivered",    "copies",          "unmatched",   "lost"});
    t.row().cell(c.enqueued).cell(c.enqueued_bytes).cell(c.delivered).cell(c.delivered_bytes);
    t.cell(s.depth).cell(s.bytes).cell(c.rejected).cell(c.timed_out).cell(c.dropped_oldest);
    t.cell(c.dropped_newest).cell(c.expired).cell(c.purged).cell(c.withdrawn).cell(c.given_back);
    t.cell(c.pauses).cell(c.rings).cell(s.samples).cell(s.p50).cell(s.p95).cell(s.p99).cell(s.max);
    t.cell(s.created).cell(c.leased).cell(c.acked).cell(c.nacked).cell(c.lease_timeouts);
    t.cell(c.dead).cell(c.redriven).cell(c.redelivered).cell(c.copies).cell(c.unmatched);
    t.cell(c.lost);
    return std::move(t).text();
}

std::string messages_text(Tree& tree, const ChannelPtr&) {
    Table t(
        {"channel",        "enqueued",    "enqueued_bytes", "delivered",       "delivered_bytes",
         "depth",          "bytes",       "rejected",       "timed_out",       "dropped_oldest",
         "dropped_newest", "expired",     "purged",         "withdrawn",       "given_back",
         "latency_count",  "latency_p50", "latency_p95",    "latency_p99",     "latency_max",
         "leased",         "acked",       "nacked",         "lease_timed_out", "dead",
         "redelivered"});
    tree.registry().for_each([&](const auto& channel, const std::string& path) {
        Snapshot s = channel->snapshot();
        const channel::Counters& c = s.counters;
        t.row().cell(path_cell(path)).cell(c.enqueued).cell(c.enqueued_bytes).cell(c.delivered);
        t.cell(c.delivered_bytes).cell(s.depth).cell(s.bytes).cell(c.rejected).cell(c.timed_out);
        t.cell(c.dropped_oldest).cell(c.dropped_newest).cell(c.expired).cell(c.purged);
        t.cell(c.withdrawn).cell(c.given_back).cell(s.samples).cell(s.p50).cell(s.p95).cell(s.p99);
        t.cell(s.max).cell(c.leased).cell(c.acked).cell(c.nacked).cell(c.lease_timeouts);
        t.cell(c.dead).cell(c.redelivered);
    });
    return std::move(t).text();
}

std::string channels_text(Tree& tree, const ChannelPtr&) {
    Table t({"channel",    "type",         "state",         "depth",           "bytes",
             "capacity",   "readers",      "writers",       "waiting_readers", "waiting_writers",
             "oldest_age", "last_arrival", "last_delivery", "created",         "uid",
             "pauses",     "subscribers",  "leased",        "delayed",         "dead"});
    tree.registry().for_each([&](const auto& channel, const std::string& path) {
        Snapshot s = channel->snapshot();
        uid_t uid = 0;
        tree.read_attributes({channel->id(), Kind::kChannel},
                             [&](const auto& attributes) { uid = attributes.uid; });
        t.row().cell(path_cell(path)).cell(channel::name_of(s.settings.type));
        t.cell(name_of(s.state)).cell(s.depth).cell(s.bytes).cell(s.settings.capacity);
        t.cell(s.readers).cell(s.writers).cell(s.waiting_readers).cell(s.waiting_writers);
        t.cell(s.oldest_age).cell(s.last_arrival).cell(s.last_delivery).cell(s.created).cell(uid);
        t.cell(s.counters.pauses).cell(s.subscriptions).cell(s.leased).cell(s.delayed);
        t.cell(s.dead);
    });
    return std::move(t).text();
}

std::string notifications_text(Tree& tree, const ChannelPtr&) {
    Table t({"channel", "listeners", "events", "rings"});
    tree.registry().for_each([&](const auto& channel, const std::string& path) {
        t.row().cell(path_cell(path)).cell(channel->events().sweep());
        t.cell(channel->events().published()).cell(channel->snapshot().counters.rings);
    });
    return std::move(t).text();
}

std::string mappings_text(Tree& tree, const ChannelPtr&) {
    auto usage = tree.shares().usage();
    const auto payloads = tree.payloads().usage();
    usage.insert(usage.end(), payloads.begin(), payloads.end());
    Table t({"object", "state", "uid", "count", "bytes"});
    for (const payload::Usage& line : usage) {
        t.row().cell(line.object).cell(line.state).cell(line.uid).cell(line.count).cell(line.bytes);
    }
    return std::move(t).text();
}

std::string resources_text(Tree& tree, const ChannelPtr&) {
    const access::Ledger& ledger = tree.ledger();
    Table t({"scope", "id", "resource", "used", "limit"});
    ledger.for_each([&](const access::Account& account) {
        for (std::size_t i = 0; i < access::kResources; ++i) {
            auto resource = static_cast<access::Resource>(i);
            std::uint64_t limit = account.limit(resource);
            t.row().cell("user").cell(account.uid()).cell(access::kResourceNames[i]);
            t.cell(account.used(resource)).cell(limit == access::kUnlimited ? 0 : limit);
        }
    });
    std::uint64_t limit = ledger.total_limit();
    t.row().cell("total").cell(0).cell("bytes").cell(ledger.total_bytes());
    t.cell(limit == access::kUnlimited ? 0 : limit);
    if (tree.system().resources) tree.system().resources(t);
    return std::move(t).text();
}

}  // namespace ipcfs::tree
