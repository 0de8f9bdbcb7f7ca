// Each look_at_... is one line or more of `ipcfs doctor`. One thread.
#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <glob.h>
#include <string>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>
#include <vector>

#include <examination.hpp>
#include <failure.hpp>
#include <io.hpp>
#include <text.hpp>
#include <tree.hpp>

namespace ipcfs::client {
namespace {

struct Version {
    std::uint64_t major = 0;
    std::uint64_t minor = 0;
    auto operator<=>(const Version&) const = default;
};

// The first "N.M" of a text.
Version find_version(std::string_view text) {
    auto start = text.find_first_of("0123456789");
    if (start == std::string_view::npos) return {};
    auto parts = split(text.substr(start), '.');
    auto number = [](std::string_view part) {
        return parse_number(part.substr(0, part.find_first_not_of("0123456789"))).value_or(0);
    };
    return {number(parts[0]), parts.size() > 1 ? number(parts[1]) : 0};
}

// The first line of a file of /proc or /sys, or empty.
std::string line_of(const std::string& path) {
    std::string text = read_file(path).value_or("");
    return text.substr(0, text.find('\n'));
}

bool exists(const std::string& path) {
    return ::access(path.c_str(), F_OK) == 0;
}

class Examination {
public:
    explicit Examination(std::string root) : root_(std::move(root)) {
        utsname names{};
        ::uname(&names);
        release_ = names.release;
        kernel_ = find_version(release_);
        daemon_ = parse_pairs(read_file(root_ + "/kern/ipc/version").value_or(""));
    }

    std::vector<Finding> run() {
        look_at_device();
        look_at_kernel();
        look_at_libfuse();
        look_at_uring();
        look_at_passthrough();
        look_at_survival();
        look_at_fusermount();
        look_at_user_allow_other();
        look_at_userfaultfd();
        look_at_limits();
        look_at_timeouts();
        look_at_huge_pages();
        look_at_reserved_huge_pages();
        look_at_memfds();
        look_at_mounts();
        look_at_daemon();
        return std::move(findings_);
    }

private:
    void ok(std::string check, std::string found) {
        add(Level::kOk, std::move(check), std::move(found), "");
    }
    void warn(std::string check, std::string found, std::string advice) {
        add(Level::kWarn, std::move(check), std::move(found), std::move(advice));
    }
    void bad(std::string check, std::string found, std::string advice) {
        add(Level::kFail, std::move(check), std::move(found), std::move(advice));
    }
    void add(Level level, std::string check, std::string found, std::string advice) {
        findings_.push_back({level, std::move(check), std::move(found), std::move(advice)});
    }

    static constexpr const char* kAnotherLibfuse =
        "another libfuse: scripts/up builds one into a private prefix";

    bool root_user() const { return ::geteuid() == 0; }

    void look_at_device() {
        Fd device(::open("/dev/fuse", O_RDWR | O_CLOEXEC));
        if (device) return ok("/dev/fuse", "can be opened");
        if (errno == ENOENT || errno == ENODEV || errno == ENXIO) {
            return bad("/dev/fuse", "is not there",
                       "load the module (modprobe fuse); in a container, pass the device in");
        }
        bad("/dev/fuse", "cannot be opened: " + describe(errno),
            "it should have mode 0666: chmod 666 /dev/fuse as root; in a container, allow the "
            "device");
    }

    void look_at_kernel() {
        std::string found = "Linux " + release_;
        if (kernel_ >= Version{6, 14}) return ok("kernel", found);
        if (kernel_ >= Version{6, 9}) {
            return warn("kernel", found,
                        "6.14 or newer has FUSE over io_uring, several times faster");
        }
        if (kernel_ >= Version{5, 12}) {
            return warn("kernel", found,
                        "6.9 or newer has FUSE passthrough and request resending, 6.14 io_uring");
        }
        bad("kernel", found, "too old: 5.12 is the least, 6.14 or newer is best");
    }

    // The version in the name of the installed library, as libfuse3.so.3.14.0.
    std::string installed_libfuse() const {
        Version best;
        std::string name;
        for (const char* pattern :
             {"/lib/*-linux-gnu/libfuse3.so.3.*", "/usr/lib/libfuse3.so.3.*",
              "/usr/lib64/libfuse3.so.3.*", "/usr/local/lib/libfuse3.so.3.*",
              "/lib/*-linux-gnu/libfuse3.so.4", "/usr/local/lib/libfuse3.so.4"}) {
            glob_t found{};
            if (::glob(pattern, 0, nullptr, &found) == 0) {
                for (std::size_t i = 0; i < found.gl_pathc; ++i) {
                    std::error_code error;
                    auto real =
                        std::filesystem::canonical(found.gl_pathv[i], error).filename().string();
                    auto at = real.find(".so.");
                    if (error || at == std::string::npos) continue;
                    Version version = find_version(real.substr(at + 4));
                    if (version > best) {
                        best = version;
                        name = real.substr(at + 4);
                    }
                }
            }
            ::globfree(&found);
        }
        return name;
    }

    void look_at_libfuse() {
        std::string used;
        for (const auto& [key, value] : daemon_) {
            if (key.find("fuse") != std::string::npos && libfuse_ == Version{}) {
                libfuse_ = find_version(value);
                used = value;
            }
        }
        std::string installed = installed_libfuse();
        bool running = libfuse_ != Version{};
        if (!running) libfuse_ = find_version(installed);
        std::string found = running ? "the daemon uses " + used : "the daemon is not running";
        found +=
            installed.empty() ? "; none is installed for the system" : "; installed: " + installed;
        if (libfuse_ >= Version{3, 14}) return ok("libfuse", found);
        if (libfuse_ != Version{}) {
            return bad("libfuse", found,
                       "3.14 is the least; scripts/up builds a newer one into a private prefix");
        }
        warn("libfuse", found, "start the daemon to see which one it uses");
    }

    void look_at_uring() {
        std::string enabled = line_of("/sys/module/fuse/parameters/enable_uring");
        if (enabled.empty()) {
            warn("FUSE over io_uring", "this kernel does not have it",
                 "Linux 6.14 or newer with CONFIG_FUSE_IO_URING; everything works without, slower");
        } else if (enabled != "Y" && enabled != "1") {
            warn("FUSE over io_uring", "is switched off",
                 "as root: echo Y > /sys/module/fuse/parameters/enable_uring; for good, install "
                 "conf/ipcfs-modprobe.conf into /etc/modprobe.d/");
        } else {
            ok("FUSE over io_uring", "is enabled");
        }
        std::string disabled = line_of("/proc/sys/kernel/io_uring_disabled");
        bool refused = disabled == "2" || (disabled == "1" && !root_user());
        if (refused) {
            warn("io_uring", "kernel.io_uring_disabled is " + disabled,
                 "as root: sysctl kernel.io_uring_disabled=0");
        } else {
            ok("io_uring", disabled.empty() ? "no switch against it"
                                            : "kernel.io_uring_disabled is " + disabled);
        }
    }

    // What the running daemon says that it does without, and why.
    void without(std::string check, const std::string& key, const std::string& found,
                 std::string (*advice)(std::string_view why)) {
        std::string why(find(daemon_, "why-not-" + key));
        warn(std::move(check), found + ": " + why, advice(why));
    }

    // Mapping and copying large payloads without the daemon in between.
    void look_at_passthrough() {
        std::string_view state = find(daemon_, "passthrough");
        if (state == "on") return ok("passthrough", "the daemon uses it");
        if (!state.empty()) {
            return without("passthrough", "passthrough", "the daemon does without",
                           passthrough_advice);
        }
        if (kernel_ < Version{6, 9}) {
            return warn("passthrough", "this kernel does not have it", passthrough_advice({}));
        }
        if (!root_user()) {
            return warn("passthrough", "works for a daemon of root only",
                        "run ipcfsd as root for it; everything works without, with more copying");
        }
        ok("passthrough", "this kernel should have it; a daemon that runs knows");
    }

    static std::string passthrough_advice(std::string_view why) {
        if (why.find("turned off") != std::string_view::npos) {
            return "fuse.passthrough = \"auto\" in the configuration (see kern/ipc/config), then "
                   "restart the daemon";
        }
        if (why.find("CAP_SYS_ADMIN") != std::string_view::npos) {
            return "run ipcfsd as root for it; everything works without, with more copying";
        }
        if (why.find("custom io") != std::string_view::npos) return kAnotherLibfuse;
        return "Linux 6.9 or newer with CONFIG_FUSE_PASSTHROUGH; everything works without, with "
               "more copying";
    }

    // Whether the mount outlives a daemon that is killed.
    void look_at_survival() {
        std::string_view state = find(daemon_, "survives");
        if (state == "yes") return ok("survival", "a killed daemon is replaced under the mount");
        if (!state.empty()) {
            return without("survival", "survives", "the mount ends with its daemon",
                           survival_advice);
        }
        if (kernel_ < Version{6, 16}) {
            return warn("survival", "on this kernel the mount ends with its daemon",
                        survival_advice({}));
        }
        ok("survival",
           "this kernel can keep a mount for the next daemon; a daemon that runs knows");
    }

    static std::string survival_advice(std::string_view why) {
        if (why.find("nobody holds") != std::string_view::npos) {
            return "fuse.survive = true in the configuration (see kern/ipc/config), then restart "
                   "the daemon";
        }
        if (why.find("custom io") != std::string_view::npos) return kAnotherLibfuse;
        return "Linux 6.16 or newer; without it those who have files open get an error when the "
               "daemon is killed, what is durable comes back";
    }

    void look_at_fusermount() {
        std::string path = std::getenv("PATH") ? std::getenv("PATH") : "/usr/bin:/bin";
        for (std::string_view directory : split(path, ':')) {
            std::string program = std::string(directory) + "/fusermount3";
            struct stat info {};
            if (::stat(program.c_str(), &info) != 0) continue;
            if ((info.st_mode & S_ISUID) != 0 && info.st_uid == 0) {
                return ok("fusermount3", program + ", setuid root");
            }
            return add_unprivileged("fusermount3", program + " is not setuid root",
                                    "as root: chmod u+s " + program);
        }
        add_unprivileged("fusermount3", "is not installed",
                         "install it (Debian: apt-get install fuse3)");
    }

    // Root mounts without fusermount3; others cannot.
    void add_unprivileged(std::string check, std::string found, std::string advice) {
        if (root_user()) advice += "; only daemons of ordinary users need it";
        add(root_user() ? Level::kWarn : Level::kFail, std::move(check), std::move(found),
            std::move(advice));
    }

    void look_at_user_allow_other() {
        std::string text = read_file("/etc/fuse.conf").value_or("");
        for (std::string_view line : split(text, '\n')) {
            if (line.substr(0, line.find_last_not_of(" \t\r") + 1) == "user_allow_other") {
                return ok("user_allow_other", "is set in /etc/fuse.conf");
            }
        }
        if (root_user()) return ok("user_allow_other", "is not set; root does not need it");
        warn("user_allow_other", "is not set in /etc/fuse.conf",
             "only you will see your own tree; as root: echo user_allow_other >> /etc/fuse.conf");
    }

    // What a receiver of lazy payloads needs; it is this user who is asked for, not the daemon.
    void look_at_userfaultfd() {
        constexpr int kUserModeOnly = 1;
        std::string allowed = line_of("/proc/sys/vm/unprivileged_userfaultfd");
        bool device = ::access("/dev/userfaultfd", R_OK | W_OK) == 0;
        Fd whole = make_userfaultfd(0);
        Fd limited = make_userfaultfd(kUserModeOnly);
        if (whole || device) {
            std::string how = allowed == "1" ? "for everybody"
                              : root_user()  ? "for root"
                                             : "for you";
            if (!whole) how = "by /dev/userfaultfd";
            ok("userfaultfd", how);
        } else if (limited) {
            warn("userfaultfd", "for your own loads only",
                 "lazy payloads work, but read(2) and write(2) on missing pages fail (EFAULT); as "
                 "root: sysctl vm.unprivileged_userfaultfd=1, or setfacl -m u:" +
                     std::to_string(::geteuid()) + ":rw /dev/userfaultfd");
        } else if (allowed.empty() && !exists("/dev/userfaultfd")) {
            warn("userfaultfd", "this kernel does not have it",
                 "CONFIG_USERFAULTFD; without it lazy payloads are filled whole");
        } else {
            warn("userfaultfd", "is forbidden here",
                 "a seccomp filter, as containers have it, refuses it; lazy payloads are filled "
                 "whole");
        }
        if (kernel_ >= Version{6, 6}) {
            ok("UFFDIO_POISON", "this kernel has it");
        } else {
            warn("UFFDIO_POISON", "this kernel does not have it",
                 "Linux 6.6 or newer; without it touching a lazy page whose producer died is "
                 "SIGSEGV in place of SIGBUS");
        }
    }

    static Fd make_userfaultfd(int flags) {
        return Fd(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | flags)));
    }

    static std::string show_limit(rlim_t limit) {
        return limit == RLIM_INFINITY ? "unlimited" : std::to_string(limit);
    }

    void look_at_limits() {
        rlimit limit{};
        ::getrlimit(RLIMIT_NOFILE, &limit);
        std::string found =
            show_limit(limit.rlim_cur) + ", may be raised to " + show_limit(limit.rlim_max);
        if (limit.rlim_max >= 65536) {
            ok("open files", found);
        } else {
            warn("open files", found,
                 "raise it to 65536 or more (ulimit -n, LimitNOFILE=, limits.conf) for many "
                 "channels");
        }
        ::getrlimit(RLIMIT_MEMLOCK, &limit);
        found = show_limit(limit.rlim_max) + " bytes";
        if (root_user() || limit.rlim_max >= (8U << 20)) {
            ok("locked memory", found);
        } else {
            warn("locked memory", found, "raise it to 8 MiB or more (ulimit -l, LimitMEMLOCK=)");
        }
        look_at_inotify("max_user_watches", 65536);
        look_at_inotify("max_user_instances", 128);
    }

    void look_at_inotify(const std::string& name, std::uint64_t least) {
        auto value = parse_number(line_of("/proc/sys/fs/inotify/" + name));
        if (!value) {
            return warn("inotify " + name, "cannot be read",
                        "the kernel needs CONFIG_INOTIFY_USER");
        }
        if (*value >= least) return ok("inotify " + name, std::to_string(*value));
        warn("inotify " + name, std::to_string(*value),
             "as root: sysctl fs.inotify." + name + "=" + std::to_string(least));
    }

    void look_at_timeouts() {
        for (const char* name : {"default_request_timeout", "max_request_timeout"}) {
            std::string value = line_of(std::string("/proc/sys/fs/fuse/") + name);
            if (value.empty() || value == "0") {
                ok(name, value.empty() ? "this kernel has none" : "none");
                continue;
            }
            bad(name, value + " seconds",
                "the kernel ends the mount when a reader waits longer than that; as root: sysctl "
                "fs.fuse." +
                    std::string(name) + "=0, then restart the daemon");
        }
    }

    void look_at_huge_pages() {
        std::string modes = line_of("/sys/kernel/mm/transparent_hugepage/shmem_enabled");
        auto open = modes.find('[');
        auto close = modes.find(']');
        if (open == std::string::npos || close == std::string::npos) {
            return warn("huge pages of shared memory", "this kernel does not have them",
                        "CONFIG_TRANSPARENT_HUGEPAGE; large payloads are a little slower without");
        }
        std::string mode = modes.substr(open + 1, close - open - 1);
        if (mode != "never" && mode != "deny") return ok("huge pages of shared memory", mode);
        warn("huge pages of shared memory", mode,
             "large payloads are several times faster with them; as root: echo advise > "
             "/sys/kernel/mm/transparent_hugepage/shmem_enabled (\"advise\": for those who ask, as "
             "ipcfs does)");
    }

    // Pools take these first where there are some; they are nobody else's then, so none is fine.
    void look_at_reserved_huge_pages() {
        std::string size = "/sys/kernel/mm/hugepages/hugepages-2048kB/";
        auto all = parse_number(line_of(size + "nr_hugepages"));
        if (!all) return ok("reserved huge pages", "this kernel has none of 2 MiB");
        auto left = parse_number(line_of(size + "free_hugepages")).value_or(0);
        if (*all > 0) {
            return ok("reserved huge pages",
                      std::to_string(*all) + " of 2 MiB, " + std::to_string(left) + " free");
        }
        ok("reserved huge pages", "none; to reserve some for pools: sysctl vm.nr_hugepages=N");
    }

    void look_at_memfds() {
        std::string scope = line_of("/proc/sys/vm/memfd_noexec");
        Fd memory(::memfd_create("ipcfs-doctor", MFD_CLOEXEC | MFD_ALLOW_SEALING));
        if (memory) {
            return ok("memfd", scope.empty() || scope == "0"
                                   ? "can be made and sealed"
                                   : "can be made and sealed; vm.memfd_noexec is " + scope);
        }
        int error = errno;
        if (scope == "2") {
            return bad("memfd", "vm.memfd_noexec is 2, which refuses them: " + describe(error),
                       "as root: sysctl vm.memfd_noexec=1");
        }
        bad("memfd", "cannot be made: " + describe(error),
            "large payloads need memfd_create(2); a seccomp filter may refuse it");
    }

    void look_at_mounts() {
        bool dead = false;
        for (const Mount& mount : mounts()) {
            if (!mount.dead) continue;
            dead = true;
            bad("mount " + mount.path, "its daemon is gone",
                "ipcfs --mount " + mount.path + " down");
        }
        if (!dead) ok("dead mounts", "none");
    }

    void look_at_daemon() {
        if (health(root_) == Health::kMounted) {
            std::string text(find(daemon_, "version"));
            if (text.empty() && !daemon_.empty()) text = daemon_.front().second;
            return ok("daemon", "runs at " + root_ + (text.empty() ? "" : ", version " + text));
        }
        warn("daemon", "does not run at " + root_, "start it with: ipcfs up");
    }

    std::string root_;
    std::string release_;
    Version kernel_;
    Version libfuse_;  // the daemon's, else the installed one
    Pairs daemon_;
    std::vector<Finding> findings_;
};

}  // namespace

std::vector<Finding> examine(const std::string& root) {
    return Examination(root).run();
}

}  // namespace ipcfs::client
