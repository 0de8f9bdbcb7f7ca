// Reads /proc; see proc(5) for the formats parsed here.
#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <climits>
#include <dirent.h>
#include <map>
#include <memory>
#include <optional>
#include <string_view>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include <utility>

#include <holders.hpp>
#include <io.hpp>
#include <text.hpp>

namespace ipcfs::client {
namespace {

constexpr std::string_view kMemfd = "/memfd:";
constexpr std::string_view kDeleted = " (deleted)";

template <class Use>
bool for_each_entry(const std::string& path, Use&& use) {
    std::unique_ptr<DIR, int (*)(DIR*)> directory(::opendir(path.c_str()), &::closedir);
    if (!directory) return false;
    while (const dirent* entry = ::readdir(directory.get())) {
        if (entry->d_name[0] != '.') use(std::string(entry->d_name));
    }
    return true;
}

std::string link_of(const std::string& path) {
    std::array<char, PATH_MAX> text;
    ssize_t size = ::readlink(path.c_str(), text.data(), text.size());
    return {text.data(), static_cast<std::size_t>(std::max<ssize_t>(size, 0))};
}

std::uint64_t number(std::string_view text, int base) {
    std::uint64_t value = 0;
    std::from_chars(text.data(), text.data() + text.size(), value, base);
    return value;
}

// The value of "key:\tvalue" in a file of /proc such as status and fdinfo.
std::string_view field(std::string_view text, std::string_view key) {
    for (std::string_view line : split(text, '\n')) {
        if (!line.starts_with(key) || line.substr(key.size(), 1) != ":") continue;
        line.remove_prefix(key.size() + 1);
        line.remove_prefix(std::min(line.find_first_not_of("\t "), line.size()));
        return line.substr(0, line.find_first_of("\t "));
    }
    return {};
}

// Removes the next word and the blanks after it from a line.
std::string_view take_word(std::string_view& line) {
    std::string_view word = line.substr(0, line.find(' '));
    line.remove_prefix(word.size());
    line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
    return word;
}

// Whether a file of the tree refers to shared memory.
bool holds_memory(std::string_view below) {
    auto slash = below.rfind('/');
    if (slash == std::string_view::npos) return false;
    if (below.substr(slash + 1) == "put") return true;
    std::string_view above = below.substr(0, slash);
    std::string_view directory = above.substr(above.rfind('/') + 1);
    return directory == "payload" || directory == "share";
}

class Search {
public:
    Search(const std::string& root, pid_t daemon) : root_(root + "/"), daemon_(daemon) {
        struct stat about {};
        if (::stat(root.c_str(), &about) == 0) device_ = about.st_dev;
    }

    Survey run() {
        look_at_daemon();
        for_each_entry("/proc", [&](const std::string& name) {
            auto pid = parse_number(name);
            if (pid) inspect(static_cast<pid_t>(*pid), "/proc/" + name);
        });
        for (auto& [key, held] : held_) survey_.held.push_back(std::move(held));
        return std::move(survey_);
    }

private:
    struct Found {
        bool memory;
        std::string name;
        bool nameless;
    };

    // Identifies a path from maps or a link from fd/; empty if it is not ours.
    std::optional<Found> identify(std::string_view path, bool of_mount) const {
        bool gone = path.ends_with(kDeleted);
        if (gone) path.remove_suffix(kDeleted.size());
        if (path.starts_with(kMemfd)) {
            path.remove_prefix(kMemfd.size());
            if (!path.starts_with("ipcfs-")) return std::nullopt;
            return Found{true, std::string(path), false};
        }
        if (path.starts_with(root_)) {
            path.remove_prefix(root_.size());
        } else if (!of_mount) {
            return std::nullopt;
        }
        if (!holds_memory(path)) return std::nullopt;
        return Found{false, std::string(path), gone};
    }

    Holder& holder(const Found& found, std::uint64_t inode, pid_t pid, const std::string& process) {
        Held& held = held_[{found.memory, inode}];
        if (held.name.empty()) {
            held.memory = found.memory;
            held.inode = inode;
            held.name = found.name;
            held.nameless = found.nameless;
            if (auto at = daemons_.find(inode); found.memory && at != daemons_.end()) {
                held.known = true;
                held.size = at->second;
            }
        }
        if (held.holders.empty() || held.holders.back().pid != pid) {
            std::string status = read_file(process + "/status").value_or("");
            std::string command = read_file(process + "/comm").value_or("");
            Holder made;
            made.pid = pid;
            made.uid = static_cast<uid_t>(number(field(status, "Uid"), 10));
            made.command = command.substr(0, command.find('\n'));
            held.holders.push_back(std::move(made));
        }
        return held.holders.back();
    }

    void look_at_daemon() {
        const std::string place = "/proc/" + std::to_string(daemon_) + "/fd";
        survey_.daemon_seen = for_each_entry(place, [&](const std::string& name) {
            const std::string path = place + "/" + name;
            if (!link_of(path).starts_with(kMemfd)) return;
            struct stat about {};
            if (::stat(path.c_str(), &about) == 0) {
                daemons_[about.st_ino] = static_cast<std::uint64_t>(about.st_size);
            }
        });
    }

    void inspect(pid_t pid, const std::string& process) {
        if (pid == daemon_ || pid == ::getpid()) return;
        bool allowed = for_each_entry(process + "/fd", [&](const std::string& name) {
            auto found = identify(link_of(process + "/fd/" + name), false);
            if (!found) return;
            std::string info = read_file(process + "/fdinfo/" + name).value_or("");
            std::uint64_t inode = number(field(info, "ino"), 10);
            if (inode == 0) return;
            Holder& each = holder(*found, inode, pid, process);
            ++each.opens;
            if ((number(field(info, "flags"), 8) & 3) != 0) each.writes = true;
            struct stat about {};  // stat on a memfd never blocks
            if (found->memory && ::stat((process + "/fd/" + name).c_str(), &about) == 0) {
                held_[{true, inode}].size = static_cast<std::uint64_t>(about.st_size);
            }
        });
        if (!allowed) {
            // Kernel threads and zombies have no memory, so they hold none of ours.
            bool refused = errno == EACCES || errno == EPERM;
            std::string status = refused ? read_file(process + "/status").value_or("") : "";
            if (!field(status, "VmSize").empty()) ++survey_.unseen;
            return;
        }
        std::string maps = read_file(process + "/maps").value_or("");
        for (std::string_view line : split(maps, '\n')) inspect_mapping(line, pid, process);
    }

    // address perms offset dev inode path
    void inspect_mapping(std::string_view line, pid_t pid, const std::string& process) {
        std::string_view range = take_word(line);
        std::string_view rights = take_word(line);
        std::string_view offset = take_word(line);
        std::string_view device = take_word(line);
        std::string_view inode = take_word(line);
        auto dash = range.find('-'), colon = device.find(':');
        if (line.empty() || dash == std::string_view::npos || colon == std::string_view::npos) {
            return;
        }
        bool of_mount =
            device_ == makedev(static_cast<unsigned>(number(device.substr(0, colon), 16)),
                               static_cast<unsigned>(number(device.substr(colon + 1), 16)));
        if (!of_mount && !line.starts_with(kMemfd)) return;
        auto found = identify(line, of_mount);
        if (!found) return;
        std::uint64_t length =
            number(range.substr(dash + 1), 16) - number(range.substr(0, dash), 16);
        Holder& each = holder(*found, number(inode, 10), pid, process);
        each.mapped += length;
        // A writable private mapping changes only the process's own copy.
        if (rights.size() == 4 && rights[1] == 'w' && rights[3] == 's') each.writes = true;
        Held& held = held_[{found->memory, number(inode, 10)}];
        if (found->memory && !held.known) {
            held.size = std::max(held.size, number(offset, 16) + length);
        }
    }

    const std::string root_;
    const pid_t daemon_;
    dev_t device_ = 0;
    std::map<std::uint64_t, std::uint64_t> daemons_;  // the daemon's memfds: inode, size
    std::map<std::pair<bool, std::uint64_t>, Held> held_;
    Survey survey_;
};

}  // namespace

Survey survey(const std::string& root, pid_t daemon) {
    return Search(root, daemon).run();
}

}  // namespace ipcfs::client
