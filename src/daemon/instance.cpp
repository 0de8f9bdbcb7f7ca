// The instance lock uses flock(2).
#include <climits>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <base/units.hpp>
#include <daemon/instance.hpp>
#include <fuse/mount.hpp>
#include <fuse/probe.hpp>

namespace ipcfs::daemon {
namespace {

constexpr std::string_view kFsType = "fuse.ipcfs";
constexpr int kLockAttempts = 20;
constexpr useconds_t kRetryMicroseconds = 5'000;

// Others could have created the directory in /tmp: it must be ours, and writable only for us.
Result<void> check_private(const std::string& directory) {
    struct stat about {};
    if (lstat(directory.c_str(), &about) != 0) return errno_fault("stat " + directory);
    if (!S_ISDIR(about.st_mode) || about.st_uid != geteuid() || (about.st_mode & 022) != 0) {
        return Fault{EPERM, "use " + directory + ": it must be a directory of uid " +
                                std::to_string(geteuid())};
    }
    return {};
}

std::optional<pid_t> read_pid(int fd) {
    char text[32];
    ssize_t size = 0;
    do {
        size = pread(fd, text, sizeof text, 0);
    } while (size < 0 && errno == EINTR);
    if (size <= 1 || text[size - 1] != '\n') return std::nullopt;
    auto pid = parse_number(std::string_view(text, static_cast<std::size_t>(size - 1)));
    if (!pid || *pid > INT_MAX) return std::nullopt;
    return static_cast<pid_t>(*pid);
}

int lock(int fd, int kind) {
    int result = 0;
    do {
        result = flock(fd, kind | LOCK_NB);
    } while (result != 0 && errno == EINTR);
    return result;
}

}  // namespace

std::string lock_path(const std::string& mount, uid_t uid, std::string_view runtime_dir) {
    std::string path;
    if (uid == 0) {
        path = "/run/ipcfs";
    } else if (runtime_dir.starts_with('/')) {
        path = std::string(runtime_dir) + "/ipcfs";
    } else {
        path = "/tmp/ipcfs-" + std::to_string(uid);
    }
    path += '/';
    for (char c : mount) {
        if (c == '/') {
            path += '!';
        } else if (c == '!') {
            path += "%21";
        } else if (c == '%') {
            path += "%25";
        } else {
            path += c;
        }
    }
    return path += ".lock";
}

Result<InstanceLock> InstanceLock::take(const std::string& lock_file, pid_t* holder) {
    const std::string directory = std::filesystem::path(lock_file).parent_path().string();
    if (auto made = ensure_directory(directory, geteuid() == 0 ? 0755 : 0700); !made) {
        return made.error();
    }
    if (auto checked = check_private(directory); !checked) return checked.error();
    for (int tries = 0;; ++tries) {
        Fd fd(open(lock_file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644));
        if (!fd) return errno_fault("open " + lock_file);
        if (lock(fd.get(), LOCK_EX) != 0) {
            if (errno != EWOULDBLOCK) return errno_fault("lock " + lock_file);
            // `ipcfs status` takes the lock for a moment, a daemon keeps it: retry briefly.
            if (tries < kLockAttempts) {
                usleep(kRetryMicroseconds);
                continue;
            }
            *holder = read_pid(fd.get()).value_or(0);
            return Fault{EBUSY, "lock " + lock_file};
        }
        // The previous holder may have removed the file between open and lock.
        struct stat opened {
        }, named{};
        if (fstat(fd.get(), &opened) != 0) return errno_fault("stat " + lock_file);
        if (stat(lock_file.c_str(), &named) != 0 || opened.st_ino != named.st_ino ||
            opened.st_dev != named.st_dev) {
            continue;
        }
        const std::string pid = std::to_string(getpid()) + '\n';
        if (ftruncate(fd.get(), 0) != 0 ||
            pwrite(fd.get(), pid.data(), pid.size(), 0) != static_cast<ssize_t>(pid.size())) {
            return errno_fault("write " + lock_file);
        }
        return InstanceLock(std::move(fd), lock_file);
    }
}

InstanceLock::~InstanceLock() {
    if (fd_) unlink(path_.c_str());
}

Result<int> clear_dead_mounts(const std::string& mount) {
    int cleared = 0;
    for (; ipcfs_mounted(mount); ++cleared) {
        auto dead = fuse::clear_stale_mount(mount);
        if (!dead) return dead.error();
        if (!*dead) {
            return Fault{EBUSY, mount +
                                    " is served by an ipcfsd that does not hold this lock "
                                    "(another user's, or one in a container)"};
        }
    }
    return {boost::system::in_place_value, cleared};
}

bool ipcfs_mounted(const std::string& mount) {
    auto top = fuse::top_mount_at(mount);
    return top && top->type == kFsType;
}

Result<void> ensure_directory(const std::string& path, mode_t mode) {
    // mkdir first: EEXIST suffices for a mount point, dead or alive.
    if (mkdir(path.c_str(), mode) == 0 || errno == EEXIST) return {};
    if (errno != ENOENT) return errno_fault("create the directory " + path);
    std::filesystem::path parent = std::filesystem::path(path).parent_path();
    if (parent.empty() || parent == path) return Fault{ENOENT, "create the directory " + path};
    if (auto made = ensure_directory(parent.string(), 0755); !made) return made;
    if (mkdir(path.c_str(), mode) == 0 || errno == EEXIST) return {};
    return errno_fault("create the directory " + path);
}

bool fuse_conf_allows_other() {
    std::ifstream file("/etc/fuse.conf");
    for (std::string line; std::getline(file, line);) {
        std::istringstream words(line);
        std::string first;
        if (words >> first && first == "user_allow_other") return true;
    }
    return false;
}

}  // namespace ipcfs::daemon
