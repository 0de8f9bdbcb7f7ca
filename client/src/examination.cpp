// Each check_... prints one or more lines of `ipcfs doctor`. One thread.
#include <cerrno>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <glob.h>
#include <string>
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

class Examination : public Findings {
public:
    explicit Examination(std::string root) : root_(std::move(root)) {
        utsname names{};
        ::uname(&names);
        release_ = names.release;
        kernel_ = find_version(release_);
        daemon_ = parse_pairs(read_file(root_ + "/kern/ipc/version").value_or(""));
    }

    std::vector<Finding> run() {
        check_device();
        check_kernel();
        check_libfuse();
        check_uring();
        check_passthrough();
        check_survival();
        check_fusermount();
        check_user_allow_other();
        examine_resources(*this, kernel_);
        check_mounts();
        check_daemon();
        return std::move(all);
    }

private:
    static constexpr const char* kAnotherLibfuse =
        "another libfuse: scripts/up builds one into a private prefix";

    void check_device() {
        Fd device(::open("/dev/fuse", O_RDWR | O_CLOEXEC));
        if (device) return ok("/dev/fuse", "can be opened");
        if (errno == ENOENT || errno == ENODEV || errno == ENXIO) {
            return bad("/dev/fuse", "does not exist",
                       "load the module (modprobe fuse); in a container, pass the device in");
        }
        bad("/dev/fuse", "cannot be opened: " + describe(errno),
            "it should have mode 0666: chmod 666 /dev/fuse as root; in a container, allow the "
            "device");
    }

    void check_kernel() {
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
        bad("kernel", found, "too old: 5.12 is required, 6.14 or newer is best");
    }

    // The installed version, from a file name such as libfuse3.so.3.14.0.
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

    void check_libfuse() {
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
            installed.empty() ? "; the system has none installed" : "; installed: " + installed;
        if (libfuse_ >= Version{3, 14}) return ok("libfuse", found);
        if (libfuse_ != Version{}) {
            return bad("libfuse", found,
                       "3.14 is required; scripts/up builds a newer one into a private prefix");
        }
        warn("libfuse", found, "start the daemon to see which one it uses");
    }

    void check_uring() {
        std::string enabled = line_of("/sys/module/fuse/parameters/enable_uring");
        if (enabled.empty()) {
            warn("FUSE over io_uring", "this kernel does not have it",
                 "Linux 6.14 or newer with CONFIG_FUSE_IO_URING; everything works without it, but "
                 "slower");
        } else if (enabled != "Y" && enabled != "1") {
            warn("FUSE over io_uring", "is switched off",
                 "as root: echo Y > /sys/module/fuse/parameters/enable_uring; permanently: install "
                 "conf/ipcfs-modprobe.conf into /etc/modprobe.d/");
        } else {
            ok("FUSE over io_uring", "is enabled");
        }
        std::string disabled = line_of("/proc/sys/kernel/io_uring_disabled");
        bool refused = disabled == "2" || (disabled == "1" && !is_root());
        if (refused) {
            warn("io_uring", "kernel.io_uring_disabled is " + disabled,
                 "as root: sysctl kernel.io_uring_disabled=0");
        } else {
            ok("io_uring",
               disabled.empty() ? "is not disabled" : "kernel.io_uring_disabled is " + disabled);
        }
    }

    // Warns about a feature that the running daemon does not use, with its reason.
    void without(std::string check, const std::string& key, const std::string& found,
                 std::string (*advice)(std::string_view why)) {
        std::string why(find(daemon_, "why-not-" + key));
        warn(std::move(check), found + ": " + why, advice(why));
    }

    // Whether clients map and copy large payloads without the daemon.
    void check_passthrough() {
        std::string_view state = find(daemon_, "passthrough");
        if (state == "on") return ok("passthrough", "the daemon uses it");
        if (!state.empty()) {
            return without("passthrough", "passthrough", "the daemon does not use it",
                           passthrough_advice);
        }
        if (kernel_ < Version{6, 9}) {
            return warn("passthrough", "this kernel does not have it", passthrough_advice({}));
        }
        if (!is_root()) {
            return warn(
                "passthrough", "works only if the daemon runs as root",
                "to use it, run ipcfsd as root; everything works without it, with more copying");
        }
        ok("passthrough", "this kernel should support it; start the daemon to be sure");
    }

    static std::string passthrough_advice(std::string_view why) {
        if (why.find("turned off") != std::string_view::npos) {
            return "fuse.passthrough = \"auto\" in the configuration (see kern/ipc/config), then "
                   "restart the daemon";
        }
        if (why.find("CAP_SYS_ADMIN") != std::string_view::npos) {
            return "to use it, run ipcfsd as root; everything works without it, with more copying";
        }
        if (why.find("custom io") != std::string_view::npos) return kAnotherLibfuse;
        return "Linux 6.9 or newer with CONFIG_FUSE_PASSTHROUGH; everything works without it, with "
               "more copying";
    }

    // Whether the mount outlives a daemon that is killed.
    void check_survival() {
        std::string_view state = find(daemon_, "survives");
        if (state == "yes") return ok("survival", "the mount survives a killed daemon");
        if (!state.empty()) {
            return without("survival", "survives", "the mount ends with its daemon",
                           survival_advice);
        }
        if (kernel_ < Version{6, 16}) {
            return warn("survival", "on this kernel the mount ends with its daemon",
                        survival_advice({}));
        }
        ok("survival", "this kernel should support it; start the daemon to be sure");
    }

    static std::string survival_advice(std::string_view why) {
        if (why.find("nobody holds") != std::string_view::npos) {
            return "fuse.survive = true in the configuration (see kern/ipc/config), then restart "
                   "the daemon";
        }
        if (why.find("custom io") != std::string_view::npos) return kAnotherLibfuse;
        return "Linux 6.16 or newer; without it, programs with open files get an error when the "
               "daemon is killed; durable messages come back";
    }

    void check_fusermount() {
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

    // Only ordinary users need fusermount3 to mount.
    void add_unprivileged(std::string check, std::string found, std::string advice) {
        if (is_root()) advice += "; only daemons of ordinary users need it";
        add(is_root() ? Level::kWarn : Level::kFail, std::move(check), std::move(found),
            std::move(advice));
    }

    void check_user_allow_other() {
        std::string text = read_file("/etc/fuse.conf").value_or("");
        for (std::string_view line : split(text, '\n')) {
            if (line.substr(0, line.find_last_not_of(" \t\r") + 1) == "user_allow_other") {
                return ok("user_allow_other", "is set in /etc/fuse.conf");
            }
        }
        if (is_root()) return ok("user_allow_other", "is not set; root does not need it");
        warn("user_allow_other", "is not set in /etc/fuse.conf",
             "only you will see your own tree; as root: echo user_allow_other >> /etc/fuse.conf");
    }

    void check_mounts() {
        bool dead = false;
        for (const Mount& mount : mounts()) {
            if (!mount.dead) continue;
            dead = true;
            bad("mount " + mount.path, "its daemon is gone",
                "ipcfs --mount " + mount.path + " down");
        }
        if (!dead) ok("dead mounts", "none");
    }

    void check_daemon() {
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
};

}  // namespace

Version find_version(std::string_view text) {
    auto start = text.find_first_of("0123456789");
    if (start == std::string_view::npos) return {};
    auto parts = split(text.substr(start), '.');
    auto number = [](std::string_view part) {
        return parse_number(part.substr(0, part.find_first_not_of("0123456789"))).value_or(0);
    };
    return {number(parts[0]), parts.size() > 1 ? number(parts[1]) : 0};
}

std::string line_of(const std::string& path) {
    std::string text = read_file(path).value_or("");
    return text.substr(0, text.find('\n'));
}

bool is_root() {
    return ::geteuid() == 0;
}

void Findings::add(Level level, std::string check, std::string found, std::string advice) {
    all.push_back({level, std::move(check), std::move(found), std::move(advice)});
}

std::vector<Finding> examine(const std::string& root) {
    return Examination(root).run();
}

}  // namespace ipcfs::client
