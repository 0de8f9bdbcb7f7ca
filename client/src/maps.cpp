// `ipcfs maps`: who holds large payloads, pools and shared regions. The tree lists the objects,
// /proc shows who has them open or mapped (holders.hpp), and kern/ipc/stats/mappings has the
// totals.
#include <algorithm>
#include <array>
#include <cstdio>
#include <dirent.h>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <sys/stat.h>
#include <tuple>
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

struct Object {
    std::string kind;     // payload, region, put, pool, ledger, lazy
    std::string name;     // path below its channel, or a memfd's name
    std::string channel;  // empty if unknown
    std::uint64_t size = 0;
    bool sized = false;
    bool nameless = false;
    std::vector<Holder> holders;

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
            list(channel, "payload");
            list(channel, "share", "region");
        }
        try {
            for (const std::string& name : tree_.children(channel)) {
                walk({channel.name.empty() ? name : channel.name + "/" + name, channel.file(name)});
            }
        } catch (const Failure&) {
            // The channel may not be entered, or was removed meanwhile.
        }
    }

    void list(const Channel& channel, const std::string& directory,
              const std::string& kind = "payload") {
        const std::string path = channel.file(directory);
        std::unique_ptr<DIR, int (*)(DIR*)> open(::opendir(path.c_str()), &::closedir);
        while (const dirent* entry = open ? ::readdir(open.get()) : nullptr) {
            std::string name = entry->d_name;
            struct stat about {};
            if (name == "." || name == "..") continue;
            if (::lstat((path + "/" + name).c_str(), &about) != 0) continue;
            Object made;
            made.kind = kind;
            made.name = directory + "/" + name;
            made.channel = channel.name;
            made.size = static_cast<std::uint64_t>(about.st_size);
            made.sized = true;
            objects.emplace(about.st_ino, std::move(made));
        }
    }

    const Tree& tree_;
};

// Identifies a memfd by its name: "ipcfs-put-3" was filled in channel 3, "ipcfs-pool" is a pool's
// chunks.
Object of_memory(const Held& held, const Inventory& inventory) {
    struct Meaning {
        std::string_view name, kind;
    };
    constexpr std::array<Meaning, 8> kMeanings{{{"ipcfs-put", "payload"},
                                                {"ipcfs-payload", "payload"},
                                                {"ipcfs-copy", "payload"},
                                                {"ipcfs-region", "region"},
                                                {"ipcfs-handoff", "region"},
                                                {"ipcfs-pool", "pool"},
                                                {"ipcfs-ledger", "ledger"},
                                                {"ipcfs-lazy", "lazy"}}};
    Object made;
    made.kind = "memory";
    made.name = held.name;
    made.size = held.size;
    made.sized = held.size > 0;
    for (const Meaning& each : kMeanings) {
        if (held.name == each.name || held.name.starts_with(std::string(each.name) + "-")) {
            made.kind = each.kind;
        }
    }
    constexpr std::string_view kPut = "ipcfs-put-";
    if (held.name.starts_with(kPut)) {
        auto id = parse_number(std::string_view(held.name).substr(kPut.size()));
        auto at = inventory.channels.find(id.value_or(0));
        if (at != inventory.channels.end()) made.channel = at->second;
    }
    return made;
}

// A file of the tree that is not in the inventory: `put`, or a removed one.
Object of_file(const Held& held) {
    Object made;
    made.nameless = held.nameless;
    std::string_view path = held.name;
    std::string_view last = path.substr(path.rfind('/') + 1);
    std::string_view above = path.substr(0, path.rfind('/'));
    std::string_view directory = above.substr(above.rfind('/') + 1);
    if (last == "put") {
        made.kind = "put";
        made.name = directory == "framed" ? "framed/put" : "put";
        made.nameless = false;
    } else {
        made.kind = directory == "share" ? "region" : "payload";
        made.name = std::string(directory) + "/" + std::string(last);
    }
    made.channel = path.size() > made.name.size()
                       ? std::string(path.substr(0, path.size() - made.name.size() - 1))
                       : "";
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
        made.holders = held.holders;
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
                                     object.sized ? human_size(object.size) : "-", object.state()};
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

void write_json(const std::vector<Object>& objects, const Table& totals, std::uint64_t unseen) {
    Json json;
    json.begin_object().key("objects").begin_array();
    for (const Object& object : objects) {
        json.begin_object().key("object").value(object.kind).key("channel");
        if (object.channel.empty()) {
            json.null();
        } else {
            json.value(object.channel);
        }
        json.key("name").value(object.name).key("size");
        if (object.sized) {
            json.value(object.size);
        } else {
            json.null();
        }
        json.key("state").value(object.state()).key("gone").value(object.nameless);
        json.key("holders").begin_array();
        for (const Holder& each : object.holders) {
            json.begin_object().key("pid").value(static_cast<std::uint64_t>(each.pid));
            json.key("uid").value(std::uint64_t{each.uid}).key("command").value(each.command);
            json.key("access").value(each.writes ? "writable" : "read-only");
            json.key("opened").value(each.opens).key("mapped").value(each.mapped).end();
        }
        json.end().end();
    }
    json.end().key("totals").array(totals).key("unseen").value(unseen);
    print(json.end().take());
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
    Pairs version = parse_pairs(read_file(tree.file("kern/ipc/version")).value_or(""));
    auto daemon = static_cast<pid_t>(parse_number(find(version, "pid")).value_or(0));
    Inventory inventory(tree, top);
    Survey found = survey(tree.root(), daemon);
    auto objects = all_objects(found, inventory, top.name, options.all);
    if (globals.json) {
        write_json(objects, totals, found.unseen);
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
