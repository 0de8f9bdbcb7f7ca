// `ipcfs up`, `down` and `version`: starts, stops and describes the daemon. One thread.
#include <algorithm>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <poll.h>
#include <spawn.h>
#include <string>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include <command.hpp>
#include <failure.hpp>
#include <io.hpp>
#include <json.hpp>
#include <text.hpp>
#include <tree.hpp>

namespace ipcfs::client {
namespace {

namespace fs = std::filesystem;

// Runs a program. Returns its exit code, 128 + the signal that killed it, or 127 if it does not exist.
int execute(const std::vector<std::string>& words) {
    std::vector<char*> argv;
    for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
    argv.push_back(nullptr);
    pid_t child = 0;
    int error = ::posix_spawnp(&child, argv[0], nullptr, nullptr, argv.data(), environ);
    if (error == ENOENT) return 127;
    if (error != 0) fail_errno(words.front(), error);
    int state = 0;
    while (::waitpid(child, &state, 0) < 0) {
        if (errno != EINTR) fail_errno("waitpid", errno);
    }
    return WIFEXITED(state) ? WEXITSTATUS(state) : 128 + WTERMSIG(state);
}

// Look beside this program first, so that a build or installation uses its own daemon.
std::string daemon_program() {
    std::error_code error;
    auto directory = fs::read_symlink("/proc/self/exe", error).parent_path();
    for (const char* place : {"ipcfsd", "../sbin/ipcfsd", "../libexec/ipcfsd"}) {
        if (::access((directory / place).c_str(), X_OK) == 0) return directory / place;
    }
    return "ipcfsd";
}

std::string mount_option(const std::vector<std::string>& options) {
    for (std::size_t i = 0; i < options.size(); ++i) {
        if (options[i].starts_with("--mount=")) return options[i].substr(8);
        if (options[i] == "--mount" && i + 1 < options.size()) return options[i + 1];
    }
    return {};
}

// Waits until the mounts of this namespace change, which poll on mountinfo reports by POLLERR |
// POLLPRI.
class MountWatch {
public:
    MountWatch() : fd_(::open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC)) {}
    void wait(std::int64_t most) { poll_one(fd_.get(), POLLPRI, most); }

private:
    Fd fd_;
};

// Starts the daemon; returns when it is ready and in the background. `mount` may be empty.
void start_daemon(const std::string& mount, const std::vector<std::string>& options) {
    std::vector<std::string> words{daemon_program()};
    if (!mount.empty()) words.insert(words.end(), {"--mount", mount});
    words.insert(words.end(), options.begin(), options.end());
    int code = execute(words);
    if (code == 127) {
        fail(kError,
             "ipcfsd was found neither beside this program nor in PATH; build or install it");
    }
    if (code != 0) {
        fail(kError, "ipcfsd did not start (exit code " + std::to_string(code) +
                         "); see the message above, its log, or \"ipcfs doctor\"");
    }
}

// Waits until the tree is mounted. If no mount point was chosen, sets `root` to the new mount.
void wait_for_mount(std::string& root, bool chosen, const std::vector<Mount>& before) {
    Deadline deadline(10 * kSecond);
    MountWatch watch;
    while (health(root) != Health::kMounted) {
        for (const Mount& mount : mounts()) {
            auto same = [&](const Mount& old) { return old.path == mount.path && !old.dead; };
            bool fresh = std::none_of(before.begin(), before.end(), same);
            if (!chosen && fresh && !mount.dead && mount.user == ::getuid()) root = mount.path;
        }
        if (health(root) == Health::kMounted) break;
        if (deadline.passed()) {
            fail(kError, "ipcfsd was started, but " + root + " is not mounted; see its log");
        }
        watch.wait(deadline.left(kSecond / 5));
    }
}

// The canonical path of the mount: links resolved without touching the mount point itself, which
// would fail on a dead mount.
std::string canonical(const std::string& root) {
    std::error_code error;
    fs::path path(root);
    for (int links = 0; links < 40; ++links) {
        fs::path parent = fs::weakly_canonical(path.parent_path(), error);
        path = (error ? path.parent_path() : parent) / path.filename();
        fs::path target = fs::read_symlink(path, error);
        if (error) break;
        path = (path.parent_path() / target).lexically_normal();
    }
    return path.string();
}

// The name of a mount's lock file; see ipcfsd(8).
std::string lock_name(const std::string& root) {
    std::string name;
    for (char c : root) {
        if (c == '!' || c == '%') {
            name += c == '!' ? "%21" : "%25";
        } else {
            name += c == '/' ? '!' : c;
        }
    }
    return name + ".lock";
}

bool mounted_at(const std::string& root) {
    auto all = mounts();
    return std::any_of(all.begin(), all.end(), [&](const Mount& m) { return m.path == root; });
}

// The directories that may hold a mount's lock; see ipcfsd(8).
std::vector<std::string> lock_directories(const std::string& root) {
    std::vector<uid_t> users{::getuid()};
    for (const Mount& mount : mounts()) {
        if (mount.path == root && mount.user != users.front()) users.push_back(mount.user);
    }
    std::vector<std::string> places;
    for (uid_t user : users) {
        if (user == 0) places.emplace_back("/run/ipcfs");
        const char* runtime = std::getenv("XDG_RUNTIME_DIR");
        if (user == ::getuid() && runtime && *runtime == '/')
            places.push_back(std::string(runtime) + "/ipcfs");
        places.push_back("/run/user/" + std::to_string(user) + "/ipcfs");
        places.push_back("/tmp/ipcfs-" + std::to_string(user));
    }
    return places;
}

struct Lock {
    std::string path;
    pid_t pid = 0;  // 0 if nobody holds it
};

// Accepts a lock only in a directory that only root or the mount's user could have created.
Lock find_lock(const std::string& root) {
    std::string name = lock_name(root);
    for (const std::string& directory : lock_directories(root)) {
        Lock lock{directory + "/" + name, 0};
        Fd fd(::open(lock.path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
        struct stat info {};
        struct stat home {};
        if (!fd || ::fstat(fd.get(), &info) != 0 || ::stat(directory.c_str(), &home) != 0) continue;
        if (!S_ISREG(info.st_mode) || info.st_uid != home.st_uid) continue;
        if (::getuid() != 0 && info.st_uid != ::getuid() && info.st_uid != 0) continue;
        if (::flock(fd.get(), LOCK_SH | LOCK_NB) == 0) continue;
        std::string text;
        read_more(fd.get(), text, lock.path);
        text.erase(text.find_last_not_of(" \n") + 1);
        auto pid = parse_number(text);
        if (text.empty()) fail(kError, "the daemon of " + root + " is still starting; try again");
        if (!pid || *pid < 2 || *pid > INT_MAX) {
            fail(kError, lock.path + ": contains no process id of a daemon");
        }
        lock.pid = static_cast<pid_t>(*pid);
        return lock;
    }
    return {};
}

int open_pidfd(pid_t pid) {
    return static_cast<int>(::syscall(SYS_pidfd_open, pid, 0));
}

void stop_daemon(const std::string& root, const Lock& lock, std::int64_t timeout) {
    std::string shown = "the daemon of " + root + " (process " + std::to_string(lock.pid) + ")";
    Fd process(open_pidfd(lock.pid));
    if (!process && errno == ESRCH) return;
    if (!process) fail_errno(shown, errno);
    if (::syscall(SYS_pidfd_send_signal, process.get(), SIGTERM, nullptr, 0) != 0) {
        if (errno == ESRCH) return;
        if (errno == EPERM) fail(kError, shown + " is not yours; run as root or as its user");
        fail_errno(shown, errno);
    }
    if (poll_one(process.get(), POLLIN, timeout) == 0) {
        fail(kError, shown + " has not ended within " + human_duration(timeout) +
                         "; its log says what it waits for");
    }
}

// Detaches a mount whose daemon died; otherwise it fails with ENOTCONN for ever.
bool detach(const std::string& root) {
    if (::umount2(root.c_str(), MNT_DETACH) == 0) return true;
    return execute({"fusermount3", "-u", "-z", "--", root}) == 0;
}

// Waits until the ending daemon has unmounted, or removes the mount of a dead one.
void unmount(const std::string& root, const Deadline& deadline) {
    MountWatch watch;
    while (mounted_at(root) && health(root) != Health::kDead) {
        if (deadline.passed()) {
            fail(kError, root + " is still mounted, but its daemon cannot be found" +
                             (::getuid() == 0 ? "" : " by you; run as root or as its user"));
        }
        watch.wait(deadline.left(kSecond / 5));
    }
    if (mounted_at(root) && !detach(root)) {
        fail(kError, root + ": the dead mount cannot be removed" +
                         (::getuid() == 0 ? "" : "; run as root or as its user"));
    }
}

struct UpOptions {
    std::vector<std::string> daemon_options;
};

int up(const Globals& globals, const UpOptions& options) {
    std::string inner = mount_option(options.daemon_options);
    std::string asked = globals.mount.empty() ? inner : globals.mount;
    const char* variable = std::getenv("IPCFS_MOUNT");
    bool chosen = !asked.empty() || (variable != nullptr && *variable != '\0');
    std::string root = choose_root(asked);
    bool mounted = health(root) == Health::kMounted;
    if (!mounted) {
        std::vector<Mount> before = mounts();
        start_daemon(chosen && inner.empty() ? root : "", options.daemon_options);
        wait_for_mount(root, chosen, before);
    }
    if (globals.json) {
        print_json({{"mount", root}, {"started", !mounted}});
    } else if (!globals.quiet) {
        print(for_output(root) + (mounted ? " is mounted already\n" : " is mounted\n"));
    }
    return kOk;
}

Registration<UpOptions> g_up(
    Group::kDaemon, "up", "Start the daemon and mount the tree, unless it is running",
    "  ipcfs up\n"
    "  ipcfs --mount ~/ipc up\n"
    "  ipcfs up -- --config /etc/ipcfs.toml",
    [](Command& takes, UpOptions& options) {
        takes.add("options", &options.daemon_options, "", "Options for ipcfsd(8), after \"--\"");
    },
    up);

int version(const Globals& globals, const NoOptions&) {
    std::string root = choose_root(globals.mount);
    Pairs daemon = read_version(root);
    if (globals.json) {
        print_json({{"client", IPCFS_VERSION},
                    {"mount", root},
                    {"daemon", daemon.empty() ? Json() : to_json(daemon)}});
        return kOk;
    }
    print("ipcfs " IPCFS_VERSION "\n");
    if (daemon.empty()) {
        print("ipcfsd is not running at " + for_output(root) + "\n");
        return kOk;
    }
    print("daemon at " + for_output(root) + ":\n" + render(daemon, output_is_terminal()));
    return kOk;
}

Registration<NoOptions> g_version(
    Group::kDaemon, "version", "Show the versions of this command and of the daemon",
    "  ipcfs version\n  ipcfs version --json", [](Command&, NoOptions&) {}, version);

struct DownOptions {
    std::optional<std::int64_t> timeout = 5 * kSecond;
};

int down(const Globals& globals, const DownOptions& options) {
    std::string root = canonical(choose_root(globals.mount));
    Lock lock = find_lock(root);
    bool runs = lock.pid != 0;
    bool found = runs || mounted_at(root);
    if (found) {
        if (runs) stop_daemon(root, lock, *options.timeout);
        unmount(root, Deadline(runs ? *options.timeout : 0));
    }
    if (globals.json) {
        print_json({{"mount", root}, {"stopped", found}});
    } else if (!globals.quiet) {
        print(for_output(root) + (found ? " is unmounted\n" : " is not mounted\n"));
    }
    return kOk;
}

Registration<DownOptions> g_down(
    Group::kDaemon, "down", "Stop the daemon, and clean up a dead mount",
    "  ipcfs down\n  ipcfs --mount ~/ipc down --timeout 30s",
    [](Command& takes, DownOptions& options) {
        takes.add("-t,--timeout", &options.timeout, "DURATION",
                  "Wait at most DURATION for it (default 5s)");
    },
    down);

}  // namespace
}  // namespace ipcfs::client
