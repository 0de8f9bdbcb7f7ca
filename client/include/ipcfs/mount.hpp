// Finds the mount of a channel and its path below it. Internal to the client header. Stateless; any
// thread.
#pragma once

#include <cerrno>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <sys/stat.h>

#include <ipcfs/result.hpp>
#include <ipcfs/wait.hpp>

namespace ipcfs::detail {

inline constexpr const char* kDefaultMount = "/ipc";

// Turns a name into a path: one that starts with / stays, ./ and ../ are relative to the working
// directory, anything else is below $IPCFS_MOUNT, or /ipc if that is unset.
inline std::string path_of(std::string_view name) {
    std::string path(name);
    if (path.starts_with('/') || path.starts_with("./") || path.starts_with("../")) return path;
    const char* variable = std::getenv("IPCFS_MOUNT");
    const std::string mount = variable != nullptr && *variable != '\0' ? variable : kDefaultMount;
    return mount + "/" + path;
}

// Resolves symbolic links, like realpath(3).
inline Expected<std::string> resolve(const std::string& path, const char* operation) {
    std::unique_ptr<char, decltype(&std::free)> real(nullptr, &std::free);
    const int found = retry_if_lost([&] {
        real.reset(::realpath(path.c_str(), nullptr));
        return real ? 0 : -1;
    });
    if (found != 0) return last_error(operation);
    return std::string(real.get());
}

// A path within a mount; `relative` has no leading slash and is empty for the mount itself.
struct Place {
    std::string mount;
    std::string relative;

    std::string path() const { return relative.empty() ? mount : mount + "/" + relative; }
};

// Finds the mount of an existing, resolved `path`: its topmost ancestor on the same device. ENOTSUP
// if that has no kern/ipc (a bind mount of a single channel); payloads are then unavailable.
inline Expected<Place> place_of(const std::string& path) {
    struct stat about {};
    const auto stat_of = [&](const std::string& file) {
        return retry_if_lost([&] { return ::stat(file.c_str(), &about); });
    };
    if (stat_of(path) != 0) return last_error("find mount");
    const dev_t device = about.st_dev;
    std::string mount = path;
    while (mount.size() > 1) {
        const std::size_t slash = mount.rfind('/');
        const std::string above = slash == 0 ? "/" : mount.substr(0, slash);
        if (stat_of(above) != 0 || about.st_dev != device) break;
        mount = above;
    }
    const std::string version = mount + "/kern/ipc/version";
    if (stat_of(version) != 0 || !S_ISREG(about.st_mode) || about.st_dev != device)
        return Error{ENOTSUP, "find mount", path + " is not in an ipcfs mount"};
    const std::size_t skip = mount.size() == 1 ? 1 : mount.size() + 1;
    return Place{mount, path.size() > skip ? path.substr(skip) : std::string()};
}

// place_of() for the name of an existing channel.
inline Expected<Place> locate(std::string_view name) {
    auto real = resolve(path_of(name), "open channel");
    if (!real) return std::move(real).error();
    return place_of(*real);
}

}  // namespace ipcfs::detail
