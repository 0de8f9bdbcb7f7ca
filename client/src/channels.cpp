// `ipcfs ls`, `mkdir` and `rm`. One thread.
#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <grp.h>
#include <map>
#include <memory>
#include <pwd.h>
#include <string>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

#include <commands.hpp>
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

// What is known of channels: one read of stats/channels for all of them, and the `status` of those
// that it does not show.
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
        if (at == rows_.end()) return read_status(channel);
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
        std::string full = parent.name.empty() ? name : parent.name + "/" + name;
        out.push_back(Channel{full, parent.file(name)});
        if (!recursive) continue;
        std::size_t self = out.size() - 1;
        try {
            collect(tree, Channel(out[self]), true, out);
        } catch (const Failure&) {
            // A channel that may not be entered, or is gone by now: its own line is shown all the
            // same.
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
        // What its type does not have is none.
        for (std::string_view key : {"leased", "dead", "subscribers"}) {
            auto value = find(known, key);
            row.emplace_back(value.empty() ? "0" : value);
        }
        row.push_back(channel.name);
        table.rows.push_back(std::move(row));
    }
    return table;
}

// The columns of the short form.
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

std::string settings_text(const MakeOptions& options) {
    std::string text;
    if (!options.type.empty()) text += "type " + options.type + "\n";
    for (const std::string& setting : options.settings) {
        auto equals = setting.find('=');
        if (equals == std::string::npos || equals == 0) {
            fail(kUsage, "--set wants KEY=VALUE, not " + escape_controls(setting));
        }
        text += setting.substr(0, equals) + " " + setting.substr(equals + 1) + "\n";
    }
    return text;
}

void make_parents(const Tree& tree, const Channel& channel) {
    for (auto at = channel.name.find('/'); at != std::string::npos;
         at = channel.name.find('/', at + 1)) {
        std::string name = channel.name.substr(0, at);
        if (::mkdir(tree.file(name).c_str(), 0777) != 0 && errno != EEXIST) {
            fail_errno(escape_controls(name), errno);
        }
    }
}

void make_one(const Tree& tree, const MakeOptions& options, const Channel& channel,
              const std::string& settings) {
    if (channel.name.empty()) fail(kUsage, tree.root() + " is the root of the tree");
    if (options.parents) make_parents(tree, channel);
    mode_t mode = 0777;
    mode_t mask = 0;
    // The files of the channel take their modes from the directory's at once, so the mode must be
    // right from the start; mkdir(2) alone applies the umask to it.
    if (!options.mode.empty()) {
        mode = parse_mode(options.mode);
        mask = ::umask(0);
    }
    int error = ::mkdir(channel.path.c_str(), mode) == 0 ? 0 : errno;
    if (!options.mode.empty()) ::umask(mask);
    bool existed = error == EEXIST && options.parents && is_channel(channel.path);
    if (error == EEXIST && !existed) {
        fail(kError, channel.shown() + (is_channel(channel.path)
                                            ? " exists already"
                                            : ": this name is reserved for a file of the channel"));
    }
    if (error == ENOENT) {
        fail(kError,
             channel.shown() + ": its parent does not exist; make it too with: ipcfs mkdir -p");
    }
    if (error != 0 && !existed) fail_errno(channel.shown(), error);
    if (settings.empty()) return;
    error = write_once(channel.file("ctl"), settings);
    if (error == 0) return;
    std::string reason(find(read_status(channel), "last-error"));
    if (!existed) ::rmdir(channel.path.c_str());
    std::string why =
        error == EINVAL && !reason.empty() ? escape_controls(reason) : describe(error);
    fail(kError, channel.shown("ctl") + ": " + why + (existed ? "" : "; the channel was not made"));
}

class Remover {
public:
    Remover(const Tree& tree, const RemoveOptions& options) : tree_(tree), options_(options) {}

    void remove(const Channel& channel) {
        if (options_.recursive) {
            for (const std::string& name : tree_.children(channel)) {
                remove(Channel{channel.name + "/" + name, channel.file(name)});
            }
            for (const std::string& name : channel.subscriptions()) {
                remove(channel.subscription(name));
            }
        }
        int error = remove_one(channel);
        if (error == ENOTEMPTY) explain(channel);
        if (error != 0 && !(error == ENOENT && options_.recursive))
            fail_errno(channel.shown(), error);
        ++removed_;
        if (removed_ % 100 == 0) show_progress(std::to_string(removed_) + " channels removed...");
    }

    std::uint64_t removed() const { return removed_; }

private:
    int remove_one(const Channel& channel) {
        // Between purge and rmdir a sender may add another message; not for ever.
        for (int attempt = 0;; ++attempt) {
            if (options_.force) {
                int error = write_once(channel.file("ctl"), "purge\n");
                if (error != 0) return error;
                for (const std::string& name : names_in(channel.file("share"))) {
                    ::unlink(channel.file("share/" + name).c_str());
                }
            }
            if (::rmdir(channel.path.c_str()) == 0) return 0;
            if (errno != ENOTEMPTY || !options_.force || attempt == 100) return errno;
            if (!tree_.children(channel).empty() || !channel.subscriptions().empty()) {
                return ENOTEMPTY;
            }
        }
    }

    [[noreturn]] void explain(const Channel& channel) const {
        if (!tree_.children(channel).empty()) {
            fail(kError, channel.shown() + " has sub-channels; remove them too with: ipcfs rm -r");
        }
        if (!channel.subscriptions().empty()) {
            fail(kError, channel.shown() +
                             " has subscriptions; remove them too with: ipcfs rm -r, and what they "
                             "hold with: ipcfs rm -rf");
        }
        if (auto regions = names_in(channel.file("share")); !regions.empty()) {
            fail(kError, channel.shown() + " has " + std::to_string(regions.size()) +
                             (regions.size() == 1 ? " region" : " regions") +
                             " in share/; to remove it with all that: ipcfs rm --force");
        }
        if (options_.force)
            fail(kError, channel.shown() + ": messages come in faster than they can be purged");
        fail(kError, channel.shown() + " holds " + held(channel) +
                         "; to remove it with all that: ipcfs rm --force");
    }

    // "3 messages, 1 leased, 2 dead"
    static std::string held(const Channel& channel) {
        Pairs state = read_status(channel);
        std::string depth(find(state, "depth"));
        std::string text =
            (depth.empty() ? "" : depth + " ") + (depth == "1" ? "message" : "messages");
        for (const char* key : {"leased", "delayed", "dead"}) {
            auto count = find(state, key);
            if (!count.empty() && count != "0") text += ", " + std::string(count) + " " + key;
        }
        return text;
    }

    const Tree& tree_;
    const RemoveOptions& options_;
    std::uint64_t removed_ = 0;
};

}  // namespace

int list(const Globals& globals, const ListOptions& options) {
    Tree tree(globals.mount);
    Channel top = options.channel.empty() ? Channel{"", tree.root()} : tree.locate(options.channel);
    if (!top.name.empty()) top = tree.channel(options.channel);
    std::vector<Channel> channels;
    collect(tree, top, options.recursive, channels);
    Table table = describe_all(Facts(tree), channels, globals.json);
    if (globals.json) {
        print(Json().array(table).take());
    } else if (!table.rows.empty()) {
        print(render(options.details ? table : columns_of_channels(table), output_is_terminal()));
    }
    return kOk;
}

int make(const Globals& globals, const MakeOptions& options) {
    Tree tree(globals.mount);
    std::string settings = settings_text(options);
    for (const std::string& name : options.channels) {
        make_one(tree, options, tree.locate(name), settings);
    }
    return kOk;
}

int remove(const Globals& globals, const RemoveOptions& options) {
    Tree tree(globals.mount);
    Remover remover(tree, options);
    for (const std::string& name : options.channels) {
        Channel channel = tree.locate(name);
        if (options.force && ::access(channel.path.c_str(), F_OK) != 0 && errno == ENOENT) continue;
        remover.remove(tree.channel(name));
    }
    clear_progress();
    if (globals.json) {
        print(Json().object({{"removed", std::to_string(remover.removed())}}).take());
    }
    return kOk;
}

}  // namespace ipcfs::client
