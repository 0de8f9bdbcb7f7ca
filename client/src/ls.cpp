// `ipcfs ls`: a table of channels. One thread.
#include <array>
#include <cerrno>
#include <cstdio>
#include <grp.h>
#include <map>
#include <pwd.h>
#include <string>
#include <sys/stat.h>
#include <vector>

#include <command.hpp>
#include <failure.hpp>
#include <io.hpp>
#include <json.hpp>
#include <text.hpp>
#include <tree.hpp>

namespace ipcfs::client {
namespace {

std::string user_name(uid_t uid) {
    const passwd* entry = ::getpwuid(uid);
    return entry != nullptr ? entry->pw_name : std::to_string(uid);
}

std::string group_name(gid_t gid) {
    const group* entry = ::getgrgid(gid);
    return entry != nullptr ? entry->gr_name : std::to_string(gid);
}

std::string octal(mode_t mode) {
    std::array<char, 8> text{};
    std::snprintf(text.data(), text.size(), "%04o", static_cast<unsigned>(mode & 07777));
    return text.data();
}

// The state of channels: one read of stats/channels, and the `status` of channels that it does not
// list.
class Facts {
public:
    explicit Facts(const Tree& tree)
        : table_(parse_table(read_file(tree.file("kern/ipc/stats/channels")).value_or(""))) {
        for (std::size_t row = 0; row < table_.rows.size(); ++row) {
            rows_.emplace(table_.cell(table_.rows[row], "channel"), row);
        }
    }

    Pairs of(const Channel& channel) const {
        auto at = rows_.find(channel.name);
        if (at == rows_.end()) return channel.read("status");
        Pairs pairs;
        const auto& row = table_.rows[at->second];
        for (std::size_t c = 0; c < row.size() && c < table_.columns.size(); ++c) {
            pairs.emplace_back(table_.columns[c], row[c]);
        }
        return pairs;
    }

private:
    Table table_;
    std::map<std::string, std::size_t, std::less<>> rows_;
};

void collect(const Tree& tree, const Channel& parent, bool recursive, std::vector<Channel>& out) {
    for (const std::string& name : tree.children(parent)) {
        const Channel& child = out.emplace_back(parent.child(name));
        if (!recursive) continue;
        try {
            collect(tree, Channel(child), true, out);
        } catch (const Failure&) {
            // A channel that may not be entered or was removed meanwhile still gets its own line.
        }
    }
}

Table describe_all(const Facts& facts, const std::vector<Channel>& channels, bool json) {
    Table table;
    table.columns = {"mode",    "owner",    "group",   "type",   "depth", "bytes",       "readers",
                     "writers", "payloads", "regions", "leased", "dead",  "subscribers", "channel"};
    for (const Channel& channel : channels) {
        struct stat info {};
        bool there = ::lstat(channel.path.c_str(), &info) == 0;
        if (!there && errno == ENOENT) continue;
        Pairs known = facts.of(channel);
        std::vector<std::string> row;
        row.push_back(there ? octal(info.st_mode) : "-");
        row.push_back(there ? user_name(info.st_uid) : "-");
        row.push_back(there ? group_name(info.st_gid) : "-");
        for (std::string_view key : {"type", "depth", "bytes", "readers", "writers"}) {
            auto value = find(known, key);
            auto number = key == "bytes" && !json ? parse_number(value) : std::nullopt;
            row.push_back(number                   ? human_size(*number)
                          : value.empty() && !json ? "-"
                                                   : std::string(value));
        }
        for (const char* directory : {"payload", "share"}) {
            row.push_back(std::to_string(names_in(channel.file(directory)).size()));
        }
        // Show 0 for what the channel's type does not have.
        for (std::string_view key : {"leased", "dead", "subscribers"}) {
            auto value = find(known, key);
            row.emplace_back(value.empty() ? "0" : value);
        }
        row.push_back(channel.name);
        table.rows.push_back(std::move(row));
    }
    return table;
}

Table columns_of_channels(const Table& full) {
    Table table;
    table.columns = {"type", "depth", "bytes", "channel"};
    for (const auto& row : full.rows) {
        std::vector<std::string> cells;
        for (const auto& column : table.columns) cells.emplace_back(full.cell(row, column));
        table.rows.push_back(std::move(cells));
    }
    return table;
}

struct ListOptions {
    std::string channel;
    bool details = false;
    bool recursive = false;
};

int list(const Globals& globals, const ListOptions& options) {
    Tree tree(globals.mount);
    Channel top = options.channel.empty() ? Channel{"", tree.root()} : tree.locate(options.channel);
    if (!top.name.empty()) top = tree.channel(options.channel);
    std::vector<Channel> channels;
    collect(tree, top, options.recursive, channels);
    Table table = describe_all(Facts(tree), channels, globals.json);
    if (globals.json) {
        print_json(to_json(table));
    } else if (!table.rows.empty()) {
        print(render(options.details ? table : columns_of_channels(table), output_is_terminal()));
    }
    return kOk;
}

Registration<ListOptions> g_ls(
    Group::kChannels, "ls", "List channels", "  ipcfs ls\n  ipcfs ls -lR jobs",
    [](Command& takes, ListOptions& options) {
        takes.add("channel", &options.channel, "CHANNEL", "List the channels below this one");
        takes.flag("-l,--long", options.details, "Show owner, mode, readers and writers, too");
        takes.flag("-R,--recursive", options.recursive, "List sub-channels, too");
    },
    list);

}  // namespace
}  // namespace ipcfs::client
