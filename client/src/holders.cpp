// Reads /proc; see proc(5) for the formats parsed here.
#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <climits>
#include <cstdio>
#include <map>
#include <optional>
#include <string_view>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include <utility>

#include <holders.hpp>
#include <io.hpp>
#include <text.hpp>
#include <tree.hpp>

namespace ipcfs::client {
namespace {

constexpr std::string_view kMemfd = "/memfd:";
constexpr std::string_view kDeleted = " (deleted)";

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
        for (const std::string& name : names_in("/proc")) {
            if (auto pid = parse_number(name)) inspect(static_cast<pid_t>(*pid), "/proc/" + name);
        }
        for (auto& [key, held] : held_) survey_.held.push_back(std::move(held));
        return std::move(survey_);
    }

private:
    // Identifies a path from maps or a link from fd/; empty if it is not ours.
    std::optional<Held> identify(std::string_view path, bool of_mount, std::uint64_t inode) const {
        Held found;
        found.inode = inode;
        found.nameless = path.ends_with(kDeleted);
        if (found.nameless) path.remove_suffix(kDeleted.size());
        found.memory = path.starts_with(kMemfd);
        if (found.memory) {
            found.name = path.substr(kMemfd.size());
            found.nameless = false;
            if (!found.name.starts_with("ipcfs-")) return std::nullopt;
            return found;
        }
        if (path.starts_with(root_)) {
            path.remove_prefix(root_.size());
        } else if (!of_mount) {
            return std::nullopt;
        }
        found.name = path;
        if (!holds_memory(path)) return std::nullopt;
        return found;
    }

    // What was found, and the process among its holders; both are added if they are new.
    std::pair<Held&, Holder&> add(const Held& found, pid_t pid, const std::string& process) {
        auto [at, fresh] = held_.try_emplace({found.memory, found.inode}, found);
        Held& held = at->second;
        if (auto known = daemons_.find(found.inode);
            fresh && found.memory && known != daemons_.end()) {
            held.known = true;
            held.size = known->second;
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
        return {held, held.holders.back()};
    }

    void look_at_daemon() {
        const std::string place = "/proc/" + std::to_string(daemon_) + "/fd";
        for (const std::string& name : names_in(place)) {
            const std::string path = place + "/" + name;
            survey_.daemon_seen = true;
            struct stat about {};
            if (link_of(path).starts_with(kMemfd) && ::stat(path.c_str(), &about) == 0) {
                daemons_[about.st_ino] = static_cast<std::uint64_t>(about.st_size);
            }
        }
    }

    void inspect(pid_t pid, const std::string& process) {
        if (pid == daemon_ || pid == ::getpid()) return;
        const auto names = names_in(process + "/fd");
        if (const int error = errno; error != 0) {
            // Kernel threads and zombies have no memory, so they hold none of ours.
            bool refused = error == EACCES || error == EPERM;
            std::string status = refused ? read_file(process + "/status").value_or("") : "";
            if (!field(status, "VmSize").empty()) ++survey_.unseen;
            return;
        }
        for (const std::string& name : names) inspect_file(name, pid, process);
        std::string maps = read_file(process + "/maps").value_or("");
        for (std::string_view line : split(maps, '\n')) {
            inspect_mapping(std::string(line), pid, process);
        }
    }

    void inspect_file(const std::string& name, pid_t pid, const std::string& process) {
        const std::string path = process + "/fd/" + name;
        auto found = identify(link_of(path), false, 0);
        if (!found) return;
        std::string info = read_file(process + "/fdinfo/" + name).value_or("");
        found->inode = number(field(info, "ino"), 10);
        if (found->inode == 0) return;
        auto [held, holder] = add(*found, pid, process);
        ++holder.opens;
        if ((number(field(info, "flags"), 8) & 3) != 0) holder.writes = true;
        struct stat about {};  // stat on a memfd never blocks
        if (held.memory && ::stat(path.c_str(), &about) == 0) {
            held.size = static_cast<std::uint64_t>(about.st_size);
        }
    }

    // address perms offset dev inode path
    void inspect_mapping(const std::string& line, pid_t pid, const std::string& process) {
        unsigned long begin = 0, end = 0, offset = 0, inode = 0;
        unsigned major = 0, minor = 0;
        std::array<char, 5> rights{};
        int path = 0;
        if (std::sscanf(line.c_str(), "%lx-%lx %4s %lx %x:%x %lu %n", &begin, &end, rights.data(),
                        &offset, &major, &minor, &inode, &path) != 7) {
            return;
        }
        const std::string_view name = std::string_view(line).substr(static_cast<std::size_t>(path));
        bool of_mount = device_ == makedev(major, minor);
        if (!of_mount && !name.starts_with(kMemfd)) return;
        auto found = identify(name, of_mount, inode);
        if (!found) return;
        auto [held, holder] = add(*found, pid, process);
        holder.mapped += end - begin;
        // A writable private mapping changes only the process's own copy.
        if (rights[1] == 'w' && rights[3] == 's') holder.writes = true;
        if (held.memory && !held.known) {
            held.size = std::max(held.size.value_or(0), offset + (end - begin));
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
