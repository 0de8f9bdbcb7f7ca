// The directory of a channel. Internal to the client header. Any thread.
#pragma once

#include <array>
#include <cerrno>
#include <climits>
#include <cstddef>
#include <fcntl.h>
#include <memory>
#include <string>
#include <string_view>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>
#include <utility>

#include <ipcfs/mount.hpp>
#include <ipcfs/options.hpp>
#include <ipcfs/process.hpp>
#include <ipcfs/result.hpp>

namespace ipcfs::detail {

// Holds a channel's directory open, so that it is found again after the channel was renamed.
class Directory {
public:
    static Expected<std::shared_ptr<Directory>> open(std::string_view name,
                                                     const ChannelOptions& options) {
        constexpr const char* kOperation = "open channel";
        const std::string path = path_of(name);
        if (options.create &&
            retry_if_lost([&] { return ::mkdir(path.c_str(), options.mode); }) != 0 &&
            errno != EEXIST)
            return last_error("create channel");
        auto real = resolve(path, kOperation);
        if (!real) return std::move(real).error();
        Fd fd(open_at(AT_FDCWD, real->c_str(), O_PATH | O_DIRECTORY));
        if (!fd) return last_error(kOperation);
        // Small messages need only the files, so a channel outside a complete mount is fine.
        auto place = place_of(*real);
        if (place && place->relative.empty())
            return Error{EINVAL, kOperation, "the root of the tree is not a channel"};
        auto made = std::make_shared<Directory>();
        made->fd_ = std::move(fd);
        if (place) made->place_ = std::move(*place);
        return made;
    }
    // The same channel in a forked child.
    std::shared_ptr<Directory> copy() const {
        auto made = std::make_shared<Directory>();
        made->fd_ = Fd(::fcntl(fd_.get(), F_DUPFD_CLOEXEC, 0));
        made->place_ = place_;
        return made;
    }

    int fd() const noexcept { return fd_.get(); }
    const std::string& mount() const noexcept { return place_.mount; }  // empty if unknown
    std::string link() const { return "/proc/self/fd/" + std::to_string(fd_.get()); }

    // The channel's present path below its mount.
    std::string relative() const {
        std::array<char, PATH_MAX> target;
        const ssize_t length = ::readlink(link().c_str(), target.data(), target.size());
        const std::string prefix = place_.mount == "/" ? "/" : place_.mount + "/";
        const std::string_view now(target.data(),
                                   length > 0 ? static_cast<std::size_t>(length) : 0);
        return now.starts_with(prefix) ? std::string(now.substr(prefix.size())) : place_.relative;
    }
    // Whether this is TOPIC/subs/NAME; no channel may be called `subs`.
    bool is_subscription() const noexcept {
        const std::string_view path(place_.relative);
        const std::size_t name = path.rfind('/');
        return name != std::string_view::npos && path.substr(0, name).ends_with("/subs");
    }
    // A setting of the channel; empty if it cannot be read.
    std::string setting(const char* name) const {
        std::array<char, 64> value;
        const std::string attribute = std::string("user.ipcfs.") + name;
        const std::string path = link();
        const ssize_t length = retry_if_lost([&] {
            return ::getxattr(path.c_str(), attribute.c_str(), value.data(), value.size());
        });
        return {value.data(), length > 0 ? static_cast<std::size_t>(length) : 0};
    }

private:
    Fd fd_;
    Place place_;
};

}  // namespace ipcfs::detail
