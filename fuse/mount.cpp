#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fcntl.h>
#include <filesystem>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include <fuse/mount.hpp>
#include <fuse/probe.hpp>

extern char** environ;

namespace ipcfs::fuse {

namespace {

constexpr const char* kType = "fuse.ipcfs";

// Runs fusermount3 and gives its exit status, -1 if it could not be run.
int run_fusermount(std::vector<std::string> words, int keep_open) {
    std::vector<char*> argv;
    for (auto& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    std::string comm = "_FUSE_COMMFD=" + std::to_string(keep_open);
    std::vector<char*> env;
    for (char** entry = environ; *entry; ++entry)
        if (std::strncmp(*entry, "_FUSE_COMMFD=", 13) != 0) env.push_back(*entry);
    if (keep_open >= 0) env.push_back(comm.data());
    env.push_back(nullptr);

    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    if (keep_open >= 0)  // onto itself: clears FD_CLOEXEC in the child alone
        posix_spawn_file_actions_adddup2(&actions, keep_open, keep_open);
    pid_t child = -1;
    const int error = ::posix_spawnp(&child, argv[0], &actions, nullptr, argv.data(), env.data());
    posix_spawn_file_actions_destroy(&actions);
    if (error != 0) {
        errno = error;
        return -1;
    }
    int status = 0;
    while (::waitpid(child, &status, 0) < 0)
        if (errno != EINTR) return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

Result<Fd> receive_descriptor(int socket) {
    char byte = 0;
    iovec data{&byte, 1};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr message{};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    ssize_t got = 0;
    do got = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    while (got < 0 && errno == EINTR);
    const cmsghdr* header = got > 0 ? CMSG_FIRSTHDR(&message) : nullptr;
    if (!header || header->cmsg_type != SCM_RIGHTS)
        return Fault{EPERM, "fusermount3 handed over no device"};
    int fd = -1;
    std::memcpy(&fd, CMSG_DATA(header), sizeof fd);
    return Fd(fd);
}

Result<Fd> mount_by_fusermount(const MountOptions& options, const std::string& path,
                               bool allow_other) {
    int pair[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
        return errno_fault("socketpair");
    Fd ours(pair[0]), theirs(pair[1]);
    std::string list = "nosuid,nodev,fsname=ipcfs,subtype=ipcfs,default_permissions,max_read=" +
                       std::to_string(options.max_read);
    if (allow_other) list += ",allow_other";
    const int status = run_fusermount({"fusermount3", "-o", list, "--", path}, theirs.get());
    if (status < 0) return errno_fault("run fusermount3");
    if (status != 0) return Fault{EPERM, "fusermount3 refused to mount " + path};
    theirs.reset();
    return receive_descriptor(ours.get());
}

Result<Fd> mount_directly(const MountOptions& options, const std::string& path) {
    struct stat info {};
    if (::stat(path.c_str(), &info) != 0) return errno_fault("mount point " + path);
    Fd device(::open("/dev/fuse", O_RDWR | O_CLOEXEC));
    if (!device) return errno_fault("open /dev/fuse");
    char data[256];
    std::snprintf(data, sizeof data,
                  "fd=%d,rootmode=%o,user_id=%u,group_id=%u,default_permissions,max_read=%zu%s",
                  device.get(), info.st_mode & S_IFMT, ::getuid(), ::getgid(), options.max_read,
                  options.allow_other ? ",allow_other" : "");
    if (::mount("ipcfs", path.c_str(), kType, MS_NOSUID | MS_NODEV, data) != 0)
        return errno_fault("mount " + path);
    return device;
}

}  // namespace

std::string canonical_mount(const std::string& mount) {
    namespace fs = std::filesystem;
    std::error_code failed;
    fs::path path = fs::absolute(mount, failed).lexically_normal();
    for (int links = 0; links < 40; ++links) {
        if (!path.has_filename()) path = path.parent_path();
        if (path == path.root_path()) return "/";
        fs::path parent = fs::weakly_canonical(path.parent_path(), failed);
        if (failed) parent = path.parent_path();
        path = parent / path.filename();
        // Use readlink: stat fails with ENOTCONN on a dead mount and never returns on a stopped one.
        char target[PATH_MAX];
        ssize_t size = readlink(path.c_str(), target, sizeof target);
        if (size <= 0) break;
        path = (parent / std::string(target, static_cast<std::size_t>(size))).lexically_normal();
    }
    return path.string();
}

bool detach_mount(const std::string& path, bool aborts) {
    if (::umount2(path.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW | (aborts ? MNT_FORCE : 0)) == 0)
        return true;
    return run_fusermount({"fusermount3", "-u", "-q", "-z", "--", path}, -1) == 0;
}

Result<Mount> Mount::make(const MountOptions& options) {
    const std::string path = canonical_mount(options.path);
    Mount made;
    made.allow_other_ = options.allow_other;
    Result<Fd> device = Fault{EPERM, "mount"};
    if (::geteuid() == 0) {
        device = mount_directly(options, path);
    }
    if (!device && device.error().code == EPERM) {
        device = mount_by_fusermount(options, path, options.allow_other);
        if (!device && options.allow_other) {
            made.allow_other_ = false;
            device = mount_by_fusermount(options, path, false);
        }
    }
    if (!device) return device.error();
    made.device_ = std::move(*device);
    made.path_ = path;
    if (const auto entry = top_mount_at(made.path_)) made.number_ = entry->device;
    return made;
}

Result<Mount> Mount::share() const {
    Mount same;
    same.device_.reset(::fcntl(device_.get(), F_DUPFD_CLOEXEC, 3));
    if (!same.device_) return errno_fault("duplicate /dev/fuse");
    same.path_ = path_;
    same.number_ = number_;
    same.allow_other_ = allow_other_;
    return same;
}

bool Mount::unmount() noexcept {
    try {
        const std::string path = std::exchange(path_, {});
        if (path.empty()) return true;
        const auto top = top_mount_at(path);
        // An administrator may have unmounted it, and put something else there since.
        if (!top || top->type != kType || (!number_.empty() && top->device != number_)) return true;
        return detach_mount(path, true);
    } catch (const std::exception&) {
        return false;
    }
}

Result<bool> clear_stale_mount(const std::string& path) {
    const auto said = [](bool cleared) {
        return Result<bool>(boost::system::in_place_value, cleared);  // Fault takes a bool, too
    };
    // Not stat, which the kernel answers from attributes that it still has. ECANCELED: the daemon
    // was killed just now and its rings are still being taken down.
    struct statfs info {};
    int error = 0;
    for (int tries = 0; tries < 100; ++tries) {
        error = ::statfs(path.c_str(), &info) == 0 ? 0 : errno;
        if (error != ECANCELED && error != EINTR) break;
        ::usleep(10'000);
    }
    if (error != ENOTCONN && error != ECONNABORTED) return said(false);
    const std::string full = canonical_mount(path);
    const auto top = top_mount_at(full);
    if (!top || top->type != kType) return said(false);
    if (!detach_mount(full, true)) return Fault{EBUSY, "unmount the dead ipcfs on " + path};
    return said(true);
}

}  // namespace ipcfs::fuse
