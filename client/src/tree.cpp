#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <dirent.h>
#include <memory>
#include <optional>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <failure.hpp>
#include <io.hpp>
#include <tree.hpp>

#include <ipcfs/wait.hpp>

namespace ipcfs::client {
namespace {

constexpr std::string_view kDefaultRoot = "/ipc";
// Directory names that belong to a channel, or to the system at the root.
constexpr std::array<std::string_view, 10> kReserved{
    "priority", "framed", "dead", "payload", "subs", "instances", "share", "kern", "cap", "net"};

// mountinfo escapes blanks, tabs, newlines and backslashes as \ooo.
std::string unescape_octal(std::string_view text) {
    std::string out;
    for (std::size_t i = 0; i < text.size(); ++i) {
        bool octal = text[i] == '\\' && i + 3 < text.size();
        out += octal ? static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 +
                                         (text[i + 3] - '0'))
                     : text[i];
        if (octal) i += 3;
    }
    return out;
}

std::string working_directory() {
    std::unique_ptr<char, decltype(&std::free)> here(::get_current_dir_name(), &std::free);
    if (!here) fail_errno("working directory", errno);
    return here.get();
}

// Removes empty components, `.` and `..` lexically. Absolute; "" for the root directory.
std::string normalize(std::string_view path) {
    std::vector<std::string_view> parts;
    for (std::string_view part : split(path, '/')) {
        if (part.empty() || part == ".") continue;
        if (part != "..") {
            parts.push_back(part);
        } else if (!parts.empty()) {
            parts.pop_back();
        }
    }
    std::string out;
    for (std::string_view part : parts) out.append("/").append(part);
    return out;
}

std::string absolute(std::string_view path) {
    if (path.starts_with('/')) return normalize(path);
    return normalize(working_directory() + "/" + std::string(path));
}

// The part of `path` below `root`; empty optional if it is elsewhere.
std::optional<std::string> below(const std::string& root, const std::string& path) {
    if (path == root) return "";
    if (!path.starts_with(root + "/")) return std::nullopt;
    return path.substr(root.size() + 1);
}

}  // namespace

std::vector<Mount> mounts() {
    std::vector<Mount> found;
    std::string text = read_file("/proc/self/mountinfo").value_or("");
    for (std::string_view line : split(text, '\n')) {
        auto fields = split(line, ' ');
        auto dash = std::find(fields.begin(), fields.end(), "-");
        if (fields.size() < 7 || fields.end() - dash < 4 || dash[1] != "fuse.ipcfs") continue;
        Mount mount;
        mount.path = unescape_octal(fields[4]);
        for (std::string_view option : split(dash[3], ',')) {
            if (!option.starts_with("user_id=")) continue;
            mount.user = static_cast<uid_t>(parse_number(option.substr(8)).value_or(0));
        }
        mount.dead = health(mount.path) == Health::kDead;
        found.push_back(std::move(mount));
    }
    return found;
}

Health health(const std::string& root) {
    // statfs reaches the daemon; the kernel may answer names and attributes from its cache.
    struct statfs about {};
    std::string version = root + "/kern/ipc/version";
    const int failed = detail::retry_if_lost(
        [&] { return ::statfs(root.c_str(), &about) != 0 ? -1 : ::access(version.c_str(), F_OK); });
    if (failed == 0) return Health::kMounted;
    return daemon_is_gone(errno) ? Health::kDead : Health::kNotMounted;
}

std::string choose_root(std::string_view option) {
    if (!option.empty()) return absolute(option);
    if (const char* variable = std::getenv("IPCFS_MOUNT"); variable && *variable != '\0') {
        return absolute(variable);
    }
    std::string usual(kDefaultRoot);
    if (health(usual) == Health::kMounted) return usual;
    // Root's tree is /ipc; trees of other users do not count.
    if (::getuid() == 0) return usual;
    std::string dead;
    for (const Mount& mount : mounts()) {
        if (mount.user != ::getuid()) continue;
        if (!mount.dead) return mount.path;
        dead = mount.path;
    }
    if (!dead.empty()) return dead;
    return usual;
}

std::string Channel::shown(std::string_view below) const {
    std::string text = name.empty() ? path : name;
    if (!below.empty()) text.append("/").append(below);
    return escape_controls(text);
}

std::string Channel::payload(std::uint64_t id) const {
    std::string_view above = std::string_view(path).substr(0, path.rfind('/'));
    std::string file = "payload/" + std::to_string(id);
    if (!above.ends_with("/subs")) return path + "/" + file;
    return std::string(above.substr(0, above.rfind('/') + 1)) + file;
}

Pairs Channel::read(std::string_view entry) const {
    return parse_pairs(read_file(file(entry)).value_or(""));
}

Pairs Channel::read_or_fail(std::string_view entry) const {
    return parse_pairs(read_file_or_fail(file(entry), shown(entry)));
}

std::string Channel::find(std::string_view entry, std::string_view key) const {
    return std::string(client::find(read(entry), key));
}

std::string Channel::reason(int error) const {
    std::string text = error == EINVAL || error == ENOENT ? find("status", "last-error") : "";
    return text.empty() ? describe(error) : escape_controls(text);
}

std::vector<std::string> Channel::subscriptions() const {
    return names_in(file("subs"));
}

Channel Channel::subscription(std::string_view each) const {
    std::string below = "/subs/" + std::string(each);
    return Channel{name + below, path + below};
}

Tree::Tree(std::string_view mount_option) : root_(choose_root(mount_option)) {
    Health state = health(root_);
    if (state == Health::kMounted) return;
    std::string option = root_ == kDefaultRoot ? "" : " --mount " + root_;
    if (state == Health::kDead) {
        fail(kGone, root_ + ": the daemon of this mount is gone; clean up with: ipcfs" + option +
                        " down, then start it with: ipcfs" + option + " up");
    }
    fail(kError, root_ + " is not mounted; start it with: ipcfs" + option + " up");
}

Channel Tree::locate(std::string_view argument) const {
    std::string path;
    bool here = argument == "." || argument == ".." || argument.starts_with("./") ||
                argument.starts_with("../");
    if (argument.empty()) fail(kUsage, "a channel's name must not be empty");
    if (here || argument.starts_with('/')) {
        path = absolute(argument);
        // Within the tree, links of the path to the mount are already resolved in neither.
        if (!below(root_, path)) {
            std::unique_ptr<char, decltype(&std::free)> real(::realpath(root_.c_str(), nullptr),
                                                             &std::free);
            auto rest = real ? below(real.get(), path) : std::nullopt;
            if (!rest) {
                fail(kUsage, std::string(argument) + " is not below " + root_ +
                                 "; name a channel \"jobs\", \"a/b\" or \"" + root_ +
                                 "/jobs\", or the tree with --mount");
            }
            path = normalize(root_ + "/" + *rest);
        }
    } else {
        path = normalize(root_ + "/" + std::string(argument));
        if (!below(root_, path)) fail(kUsage, std::string(argument) + " is outside the tree");
    }
    return Channel{*below(root_, path), path};
}

bool is_channel(const std::string& path) {
    return ::access((path + "/ctl").c_str(), F_OK) == 0;
}

Channel Tree::channel(std::string_view argument) const {
    Channel channel = locate(argument);
    if (channel.name.empty()) fail(kUsage, root_ + " is the root of the tree, not a channel");
    if (is_channel(channel.path)) return channel;
    int error = errno;
    if (::access(channel.path.c_str(), F_OK) == 0) {
        if (error == EACCES) fail_errno(channel.shown(), error);
        fail(kError, channel.shown() + " is not a channel");
    }
    if (errno != ENOENT) fail_errno(channel.shown(), errno);
    fail(kError, "there is no channel " + channel.shown() + "; create it with: ipcfs mkdir " +
                     channel.shown());
}

std::vector<std::string> Tree::children(const Channel& parent) const {
    auto names = names_in(parent.path, true);
    if (errno != 0) fail_errno(parent.shown(), errno);
    std::erase_if(names, [&](const std::string& name) {
        if (std::find(kReserved.begin(), kReserved.end(), name) != kReserved.end()) return true;
        // A directory that may not be entered cannot be distinguished from a channel; treat it as one.
        return !is_channel(parent.file(name)) && errno != EACCES;
    });
    return names;
}

int make_directory(const std::string& path, const std::string& text) {
    if (text.empty()) return ::mkdir(path.c_str(), 0777) == 0 ? 0 : errno;
    char* end = nullptr;
    unsigned long mode = std::strtoul(text.c_str(), &end, 8);
    if (text.empty() || *end != '\0' || text.find_first_not_of("01234567") != std::string::npos ||
        mode > 07777) {
        fail(kUsage, escape_controls(text) + " is not an octal mode such as 750");
    }
    // The channel's files get their modes from the directory at creation, so the mode must be right
    // from the start; mkdir(2) would apply the umask.
    mode_t mask = ::umask(0);
    int error = ::mkdir(path.c_str(), static_cast<mode_t>(mode)) == 0 ? 0 : errno;
    ::umask(mask);
    return error;
}

std::vector<std::string> names_in(const std::string& path, bool directories) {
    std::vector<std::string> names;
    std::unique_ptr<DIR, int (*)(DIR*)> open(::opendir(path.c_str()), &::closedir);
    if (!open) return names;
    while (const dirent* entry = ::readdir(open.get())) {
        std::string_view name = entry->d_name;
        bool other = entry->d_type != DT_DIR && entry->d_type != DT_UNKNOWN;
        if (name != "." && name != ".." && !(directories && other)) names.emplace_back(name);
    }
    std::sort(names.begin(), names.end());
    errno = 0;
    return names;
}

Pairs read_version(const std::string& root) {
    return parse_pairs(read_file(root + "/kern/ipc/version").value_or(""));
}

}  // namespace ipcfs::client
