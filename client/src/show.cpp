// `ipcfs status`, `peek`, `stats` and `ctl`: show the tree's text files, for people or as JSON. One
// thread.
#include <algorithm>
#include <array>
#include <cstdio>
#include <ctime>
#include <string>

#include <command.hpp>
#include <failure.hpp>
#include <io.hpp>
#include <json.hpp>
#include <show.hpp>
#include <text.hpp>
#include <tree.hpp>

namespace ipcfs::client {
namespace {

// Formats ns since the epoch as local time, to the millisecond.
std::string local_time(std::uint64_t nanos) {
    auto seconds = static_cast<time_t>(nanos / 1'000'000'000);
    tm parts{};
    ::localtime_r(&seconds, &parts);
    std::array<char, 48> text{};
    std::size_t length = std::strftime(text.data(), text.size(), "%F %T", &parts);
    std::snprintf(text.data() + length, text.size() - length, ".%03u",
                  static_cast<unsigned>(nanos / 1'000'000 % 1000));
    return text.data();
}

// Formats times and durations for people, and omits columns that are all 0.
Table for_people(const Table& table) {
    constexpr std::array<std::string_view, 8> kAlways{"channel",  "depth", "bytes", "size",
                                                      "priority", "used",  "id",    "uid"};
    constexpr std::array<std::string_view, 5> kTimes{"time", "deadline", "created", "last_arrival",
                                                     "last_delivery"};
    auto any = [](const auto& names, std::string_view name) {
        return std::find(names.begin(), names.end(), name) != names.end();
    };
    if (table.rows.empty()) return table;
    Table out;
    out.rows.resize(table.rows.size());
    for (const std::string& column : table.columns) {
        auto empty = [&](const auto& row) { return table.cell(row, column) == "0"; };
        bool blank = std::all_of(table.rows.begin(), table.rows.end(), empty);
        if (blank && !any(kAlways, column)) continue;
        out.columns.push_back(column);
        bool latency = column.starts_with("latency_") && column != "latency_count";
        for (std::size_t r = 0; r < table.rows.size(); ++r) {
            std::string cell(table.cell(table.rows[r], column));
            auto number = parse_number(cell);
            bool span = latency || column == "oldest_age";
            bool time = any(kTimes, column);
            if (number == 0 && (span || time || column == "limit")) {
                cell = "-";  // none
            } else if (number && time) {
                cell = local_time(*number);
            } else if (number && span) {
                cell = human_duration(static_cast<std::int64_t>(*number));
            }
            out.rows[r].push_back(std::move(cell));
        }
    }
    return out;
}

}  // namespace

void show(const Globals& globals, const Pairs& pairs) {
    print(globals.json ? to_line(to_json(pairs)) : render(pairs, output_is_terminal()));
}

void show(const Globals& globals, const Table& table) {
    if (globals.json) return print_json(to_json(table));
    Table shown = for_people(table);
    // Show a single row with many columns, such as a channel's `stats`, vertically.
    if (shown.rows.size() == 1 && !shown.column("channel") && !shown.column("sequence")) {
        Pairs pairs;
        for (std::size_t c = 0; c < shown.columns.size(); ++c) {
            pairs.emplace_back(shown.columns[c], shown.rows[0][c]);
        }
        return print(render(pairs, output_is_terminal()));
    }
    print(render(shown, output_is_terminal()));
}

namespace {

std::uint64_t total(const Table& table, std::string_view column) {
    std::uint64_t sum = 0;
    for (const auto& row : table.rows) sum += parse_number(table.cell(row, column)).value_or(0);
    return sum;
}

Pairs summary(const Tree& tree) {
    Pairs pairs{{"mount", tree.root()}};
    for (auto& pair : tree.version()) pairs.push_back(std::move(pair));
    auto channels = read_file(tree.file("kern/ipc/stats/channels"));
    if (!channels) return pairs;
    Table table = parse_table(*channels);
    pairs.emplace_back("channels", std::to_string(table.rows.size()));
    for (std::string_view column :
         {"depth", "bytes", "readers", "writers", "waiting_readers", "waiting_writers", "leased",
          "delayed", "dead", "subscribers"}) {
        if (!table.column(column)) continue;
        std::string key(column == "depth" ? "messages" : column);
        std::replace(key.begin(), key.end(), '_', '-');
        pairs.emplace_back(key, std::to_string(total(table, column)));
    }
    Table held = parse_table(read_file(tree.file("kern/ipc/stats/mappings")).value_or(""));
    for (const char* object : {"payload", "pool", "region"}) {
        Table lines = held;
        std::erase_if(lines.rows,
                      [&](const auto& row) { return held.cell(row, "object") != object; });
        pairs.emplace_back(std::string(object) + "s", std::to_string(total(lines, "count")));
        pairs.emplace_back(std::string(object) + "-bytes", std::to_string(total(lines, "bytes")));
    }
    return pairs;
}

// Shows a file that is a table or key-value lines.
void show_file(const Globals& globals, const std::string& path, const std::string& shown) {
    std::string text = read_file_or_fail(path, shown);
    bool table = text.substr(0, text.find('\n')).find('\t') != std::string::npos;
    if (table) {
        show(globals, parse_table(text));
    } else {
        show(globals, parse_pairs(text));
    }
}

int status(const Globals& globals, const ChannelOption& options) {
    Tree tree(globals.mount);
    if (options.channel.empty() || tree.locate(options.channel).name.empty()) {
        show(globals, summary(tree));
        return kOk;
    }
    Channel channel = tree.channel(options.channel);
    Pairs pairs = channel.read_or_fail("status");
    pairs.insert(pairs.begin(), {"channel", channel.name});
    show(globals, pairs);
    return kOk;
}

Registration<ChannelOption> g_status(
    Group::kDaemon, "status", "Show the state of a channel or of the whole tree",
    "  ipcfs status\n  ipcfs status jobs\n  ipcfs status jobs --json",
    [](Command& takes, ChannelOption& options) {
        takes.add("channel", &options.channel, "CHANNEL", "The channel; without it the whole tree")
            .offer("@queue");
    },
    status);

int peek(const Globals& globals, const ChannelOption& options) {
    Tree tree(globals.mount);
    Channel channel = tree.channel(options.channel);
    Table table = parse_table(read_file_or_fail(channel.file("peek"), channel.shown("peek")));
    if (table.rows.empty() && !globals.json) {
        if (!globals.quiet && output_is_terminal()) print(channel.shown() + " is empty\n");
        return kOk;
    }
    show(globals, table);
    return kOk;
}

Registration<ChannelOption> g_peek(
    Group::kMessages, "peek", "Show what is queued, without taking it",
    "  ipcfs peek jobs\n  ipcfs peek jobs --json",
    [](Command& takes, ChannelOption& options) { takes.queue(options.channel, "The channel"); },
    peek);

struct StatsOptions {
    std::string subject;
    std::optional<std::int64_t> watch;
};

int stats(const Globals& globals, const StatsOptions& options) {
    Tree tree(globals.mount);
    std::string subject = options.subject.empty() ? "messages" : options.subject;
    std::string path = tree.file("kern/ipc/stats/" + subject);
    bool system = subject.find('/') == std::string::npos && read_file(path).has_value();
    std::string shown = "kern/ipc/stats/" + escape_controls(subject);
    if (!system) {
        Channel channel = tree.channel(subject);
        path = channel.file("stats");
        shown = channel.shown("stats");
    }
    for (;;) {
        if (options.watch && output_is_terminal() && !globals.json) print("\033[H\033[2J");
        show_file(globals, path, shown);
        if (!options.watch) return kOk;
        // At least 10 ms: each refresh takes a snapshot of all channels.
        poll_one(-1, 0, std::max<std::int64_t>(*options.watch, 10'000'000));
    }
}

Registration<StatsOptions> g_stats(
    Group::kDaemon, "stats", "Show statistics of the tree or of a channel",
    "  ipcfs stats\n  ipcfs stats resources\n  ipcfs stats jobs --watch 1",
    [](Command& takes, StatsOptions& options) {
        takes
            .add("subject", &options.subject, "SUBJECT",
                 "messages (default), channels, mappings, notifications, resources;\n"
                 "or a channel")
            .offer("messages channels mappings notifications resources @channel");
        takes.add("-w,--watch", &options.watch, "DURATION", "Refresh every DURATION");
    },
    stats);

}  // namespace
}  // namespace ipcfs::client
