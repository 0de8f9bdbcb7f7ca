// `ipcfs maps`: who holds large payloads, pools and shared regions. The tree lists the objects, /proc
// shows who has them open or mapped (holders.hpp), and kern/ipc/stats/mappings has the totals.
#include <algorithm>
#include <array>
#include <cstdio>
#include <map>
#include <string>
#include <string_view>
#include <sys/stat.h>
#include <tuple>
#include <utility>
#include <vector>

#include <command.hpp>
#include <failure.hpp>
#include <holders.hpp>
#include <io.hpp>
#include <json.hpp>
#include <text.hpp>
#include <tree.hpp>

namespace ipcfs::client {
namespace {

// What processes hold, and where it belongs.
struct Object : Held {
    std::string kind;     // payload, region, put, pool, ledger, lazy, memory
    std::string channel;  // empty if unknown

    std::string state() const {
        auto maps = [](const Holder& each) { return each.mapped > 0; };
        if (kind == "put") return "filling";
        if (std::any_of(holders.begin(), holders.end(), maps)) return "mapped";
        return holders.empty() ? "idle" : "open";
    }
};

// The files of every channel's payload/ and share/, and the channels, by inode number.
class Inventory {
public:
    Inventory(const Tree& tree, const Channel& top) : tree_(tree) { walk(top); }

    std::map<std::uint64_t, Object> objects;
    // An inode number is 256 times the channel's number plus the kind of file.
    std::map<std::uint64_t, std::string> channels;

private:
    void walk(const Channel& channel) {
        struct stat about {};
        if (!channel.name.empty() && ::lstat(channel.path.c_str(), &about) == 0) {
            channels[about.st_ino / 256] = channel.name;
            list(channel, "payload", "payload");
            list(channel, "share", "region");
        }
        try {
            for (const std::string& name : tree_.children(channel)) walk(channel.child(name));
        } catch (const Failure&) {
            // The channel may not be entered, or was removed meanwhile.
        }
    }

    void list(const Channel& channel, const std::string& directory, const std::string& kind) {
        for (const std::string& each : names_in(channel.file(directory))) {
            const std::string name = directory + "/" + each;
            struct stat about {};
            if (::lstat(channel.file(name).c_str(), &about) != 0) continue;
            Object made{{.name = name}, kind, channel.name};
            made.size = static_cast<std::uint64_t>(about.st_size);
            objects.emplace(about.st_ino, std::move(made));
        }
    }

    const Tree& tree_;
};

// Identifies a memfd by its name: "ipcfs-put-3" was filled in channel 3, "ipcfs-pool" is a pool's
// chunks.
Object of_memory(const Held& held, const Inventory& inventory) {
    constexpr std::array<std::pair<std::string_view, const char*>, 8> kKinds{
        {{"put", "payload"},
         {"payload", "payload"},
         {"copy", "payload"},
         {"region", "region"},
         {"handoff", "region"},
         {"pool", "pool"},
         {"ledger", "ledger"},
         {"lazy", "lazy"}}};
    Object made{held, "memory", {}};
    auto words = split(held.name, '-');  // ipcfs, kind, and for some a number
    for (const auto& [word, kind] : kKinds) {
        if (words[1] == word) made.kind = kind;
    }
    if (words[1] != "put" || words.size() < 3) return made;
    auto at = inventory.channels.find(parse_number(words[2]).value_or(0));
    if (at != inventory.channels.end()) made.channel = at->second;
    return made;
}

// A file of the tree that is not in the inventory: `put`, or a removed one.
Object of_file(const Held& held) {
    Object made{held, "put", {}};
    auto words = split(held.name, '/');
    const std::string_view last = words.back();
    const std::string_view directory = words.size() > 1 ? words[words.size() - 2] : "";
    if (last == "put") {
        made.name = directory == "framed" ? "framed/put" : "put";
        made.nameless = false;
    } else {
        made.kind = directory == "share" ? "region" : "payload";
        made.name = std::string(directory) + "/" + std::string(last);
    }
    if (held.name.size() > made.name.size()) {
        made.channel = held.name.substr(0, held.name.size() - made.name.size() - 1);
    }
    return made;
}

std::vector<Object> all_objects(const Survey& survey, Inventory& inventory,
                                const std::string& channel, bool all) {
    std::vector<Object> objects;
    auto below = [&](const std::string& name) {
        return channel.empty() || name == channel || name.starts_with(channel + "/");
    };
    for (const Held& held : survey.held) {
        auto at = held.memory ? inventory.objects.end() : inventory.objects.find(held.inode);
        if (at != inventory.objects.end()) {
            at->second.holders = held.holders;
            continue;
        }
        // Skip memfds of another tree, or of a client that has not handed them over yet.
        if (held.memory && survey.daemon_seen && !held.known && !all) continue;
        Object made = held.memory ? of_memory(held, inventory) : of_file(held);
        if (below(made.channel)) objects.push_back(std::move(made));
    }
    for (auto& [inode, object] : inventory.objects) {
        if (!object.holders.empty() || all) objects.push_back(std::move(object));
    }
    std::stable_sort(objects.begin(), objects.end(), [](const Object& a, const Object& b) {
        return std::tie(a.channel, a.kind) < std::tie(b.channel, b.kind);
    });
    return objects;
}

Table for_people(const std::vector<Object>& objects) {
    Table table;
    table.columns = {"object", "channel", "name",    "size",   "state", "pid",
                     "uid",    "access",  "command", "opened", "mapped"};
    auto add = [&](const Object& object, const Holder* holder) {
        std::vector<std::string> row{object.kind, object.channel.empty() ? "-" : object.channel,
                                     object.name + (object.nameless ? " (gone)" : ""),
                                     object.size ? human_size(*object.size) : "-", object.state()};
        for (const char* none : {"-", "-", "-", "-", "-", "-"}) row.emplace_back(none);
        if (holder) {
            row[5] = std::to_string(holder->pid);
            row[6] = std::to_string(holder->uid);
            row[7] = holder->writes ? "writable" : "read-only";
            row[8] = holder->command;
            if (holder->opens > 0) row[9] = std::to_string(holder->opens);
            if (holder->mapped > 0) row[10] = human_size(holder->mapped);
        }
        table.rows.push_back(std::move(row));
    };
    for (const Object& object : objects) {
        if (object.holders.empty()) add(object, nullptr);
        for (const Holder& holder : object.holders) add(object, &holder);
    }
    return table;
}

Json as_json(const Object& object) {
    Json holders = Json::array();
    for (const Holder& each : object.holders) {
        holders.push_back({{"pid", each.pid},
                           {"uid", each.uid},
                           {"command", each.command},
                           {"access", each.writes ? "writable" : "read-only"},
                           {"opened", each.opens},
                           {"mapped", each.mapped}});
    }
    return {{"object", object.kind},
            {"channel", object.channel.empty() ? Json() : Json(object.channel)},
            {"name", object.name},
            {"size", object.size ? Json(*object.size) : Json()},
            {"state", object.state()},
            {"gone", object.nameless},
            {"holders", holders}};
}

// The totals with a nonzero count, with sizes for people.
Table columns_of_totals(const Table& totals) {
    Table out;
    out.columns = totals.columns;
    for (auto row : totals.rows) {
        if (totals.cell(row, "count") == "0") continue;
        bool counter = totals.cell(row, "object") == "counter";
        if (auto at = totals.column("bytes"); at && *at < row.size()) {
            auto bytes = parse_number(row[*at]);
            row[*at] = counter || !bytes ? "-" : human_size(*bytes);
        }
        if (auto at = totals.column("uid"); counter && at && *at < row.size()) row[*at] = "-";
        out.rows.push_back(std::move(row));
    }
    return out;
}

struct MapsOptions {
    std::string channel;
    bool all = false;
};

int maps(const Globals& globals, const MapsOptions& options) {
    Tree tree(globals.mount);
    Channel top{"", tree.root()};
    if (!options.channel.empty() && !tree.locate(options.channel).name.empty()) {
        top = tree.channel(options.channel);
    }
    const std::string totals_path = "kern/ipc/stats/mappings";
    Table totals = parse_table(read_file_or_fail(tree.file(totals_path), totals_path));
    Pairs version = tree.version();
    auto daemon = static_cast<pid_t>(parse_number(find(version, "pid")).value_or(0));
    Inventory inventory(tree, top);
    Survey found = survey(tree.root(), daemon);
    auto objects = all_objects(found, inventory, top.name, options.all);
    if (globals.json) {
        Json list = Json::array();
        for (const Object& object : objects) list.push_back(as_json(object));
        print_json({{"objects", list}, {"totals", to_json(totals)}, {"unseen", found.unseen}});
        return kOk;
    }
    std::string out;
    if (!objects.empty()) out = render(for_people(objects), output_is_terminal());
    Table sums = columns_of_totals(totals);
    // The totals cover the whole tree.
    if (top.name.empty() && !sums.rows.empty()) {
        out += (out.empty() ? "" : "\n") + render(sums, output_is_terminal());
    }
    print(out);
    if (found.unseen > 0 && !globals.quiet) {
        std::fprintf(
            stderr,
            "ipcfs: %llu processes of other users could not be inspected; run as root to see all\n",
            static_cast<unsigned long long>(found.unseen));
    }
    return kOk;
}

Registration<MapsOptions> g_maps(
    Group::kDaemon, "maps", "Show who holds large payloads, pools and shared regions",
    "  ipcfs maps\n  ipcfs maps video --all\n"
    "  sudo ipcfs maps --json     # root sees into every process",
    [](Command& takes, MapsOptions& options) {
        takes.add("channel", &options.channel, "CHANNEL", "Only what is below this channel");
        takes.flag("-a,--all", options.all, "Also what nobody has open or mapped");
    },
    maps);

}  // namespace
}  // namespace ipcfs::client
