#include <array>
#include <cerrno>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <glob.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <checks.hpp>
#include <failure.hpp>
#include <io.hpp>
#include <tree.hpp>

namespace ipcfs::client {
namespace {

constexpr const char* kAnotherLibfuse =
    "another libfuse: scripts/up builds one into a private prefix";
constexpr const char* kRunAsRoot =
    "to use it, run ipcfsd as root; everything works without it, with more copying";

Finding check_device(const Machine&) {
    Fd device(::open("/dev/fuse", O_RDWR | O_CLOEXEC));
    if (device) return ok("can be opened");
    if (errno == ENOENT || errno == ENODEV || errno == ENXIO) {
        return bad("does not exist",
                   "load the module (modprobe fuse); in a container, pass the device in");
    }
    return bad("cannot be opened: " + describe(errno),
               "it should have mode 0666: chmod 666 /dev/fuse as root; in a container, allow the "
               "device");
}

Finding check_kernel(const Machine& machine) {
    std::string found = "Linux " + machine.release;
    if (machine.kernel >= Version{6, 14}) return ok(found);
    if (machine.kernel < Version{5, 12}) {
        return bad(found, "too old: 5.12 is required, 6.14 or newer is best");
    }
    return warn(found, machine.kernel >= Version{6, 9}
                           ? "6.14 or newer has FUSE over io_uring, several times faster"
                           : "6.9 or newer has FUSE passthrough and request resending, 6.14 "
                             "io_uring");
}

// The installed version, from a file name such as libfuse3.so.3.14.0.
std::string installed_libfuse() {
    std::string best;
    for (const char* pattern : {"/lib/*-linux-gnu/libfuse3.so.3.*", "/usr/lib/libfuse3.so.3.*",
                                "/usr/lib64/libfuse3.so.3.*", "/usr/local/lib/libfuse3.so.3.*",
                                "/lib/*-linux-gnu/libfuse3.so.4", "/usr/local/lib/libfuse3.so.4"}) {
        glob_t found{};
        ::glob(pattern, 0, nullptr, &found);
        for (std::size_t i = 0; i < found.gl_pathc; ++i) {
            std::error_code error;
            auto name = std::filesystem::canonical(found.gl_pathv[i], error).filename().string();
            auto at = name.find(".so.");
            if (error || at == std::string::npos) continue;
            if (find_version(name.substr(at + 4)) > find_version(best)) best = name.substr(at + 4);
        }
        ::globfree(&found);
    }
    return best;
}

Finding check_libfuse(const Machine& machine) {
    std::string used;
    for (const auto& [key, value] : machine.daemon) {
        if (key.find("fuse") != std::string::npos && find_version(used) == Version{}) used = value;
    }
    std::string installed = installed_libfuse();
    bool running = find_version(used) != Version{};
    Version version = find_version(running ? used : installed);
    std::string found = running ? "the daemon uses " + used : "the daemon is not running";
    found += installed.empty() ? "; the system has none installed" : "; installed: " + installed;
    if (version >= Version{3, 14}) return ok(found);
    if (version == Version{}) return warn(found, "start the daemon to see which one it uses");
    return bad(found, "3.14 is required; scripts/up builds a newer one into a private prefix");
}

Finding check_fuse_uring(const Machine&) {
    std::string enabled = line_of("/sys/module/fuse/parameters/enable_uring");
    if (enabled == "Y" || enabled == "1") return ok("is enabled");
    if (enabled.empty()) {
        return warn("this kernel does not have it",
                    "Linux 6.14 or newer with CONFIG_FUSE_IO_URING; everything works without it, "
                    "but slower");
    }
    return warn("is switched off",
                "as root: echo Y > /sys/module/fuse/parameters/enable_uring; permanently: install "
                "conf/ipcfs-modprobe.conf into /etc/modprobe.d/");
}

Finding check_uring(const Machine& machine) {
    std::string disabled = line_of("/proc/sys/kernel/io_uring_disabled");
    if (disabled.empty()) return ok("is not disabled");
    std::string found = "kernel.io_uring_disabled is " + disabled;
    bool refused = disabled == "2" || (disabled == "1" && !machine.is_root);
    return refused ? warn(found, "as root: sysctl kernel.io_uring_disabled=0") : ok(found);
}

std::string passthrough_advice(std::string_view why) {
    if (why.find("turned off") != why.npos) {
        return "fuse.passthrough = \"auto\" in the configuration (see kern/ipc/config), then "
               "restart the daemon";
    }
    if (why.find("CAP_SYS_ADMIN") != why.npos) return kRunAsRoot;
    if (why.find("custom io") != why.npos) return kAnotherLibfuse;
    return "Linux 6.9 or newer with CONFIG_FUSE_PASSTHROUGH; everything works without it, with "
           "more copying";
}

// Whether clients map and copy large payloads without the daemon.
Finding check_passthrough(const Machine& machine) {
    std::string_view state = find(machine.daemon, "passthrough");
    if (state == "on") return ok("the daemon uses it");
    if (!state.empty()) {
        std::string why(find(machine.daemon, "why-not-passthrough"));
        return warn("the daemon does not use it: " + why, passthrough_advice(why));
    }
    if (machine.kernel < Version{6, 9}) {
        return warn("this kernel does not have it", passthrough_advice({}));
    }
    if (!machine.is_root) return warn("works only if the daemon runs as root", kRunAsRoot);
    return ok("this kernel should support it; start the daemon to be sure");
}

std::string survival_advice(std::string_view why) {
    if (why.find("nobody holds") != why.npos) {
        return "fuse.survive = true in the configuration (see kern/ipc/config), then restart the "
               "daemon";
    }
    if (why.find("custom io") != why.npos) return kAnotherLibfuse;
    return "Linux 6.16 or newer; without it, programs with open files get an error when the "
           "daemon is killed; durable messages come back";
}

// Whether the mount outlives a daemon that is killed.
Finding check_survival(const Machine& machine) {
    std::string_view state = find(machine.daemon, "survives");
    if (state == "yes") return ok("the mount survives a killed daemon");
    if (!state.empty()) {
        std::string why(find(machine.daemon, "why-not-survives"));
        return warn("the mount ends with its daemon: " + why, survival_advice(why));
    }
    if (machine.kernel < Version{6, 16}) {
        return warn("on this kernel the mount ends with its daemon", survival_advice({}));
    }
    return ok("this kernel should support it; start the daemon to be sure");
}

Finding check_fusermount(const Machine& machine) {
    std::string found = "is not installed";
    std::string advice = "install it (Debian: apt-get install fuse3)";
    std::string path = std::getenv("PATH") ? std::getenv("PATH") : "/usr/bin:/bin";
    for (std::string_view directory : split(path, ':')) {
        std::string program = std::string(directory) + "/fusermount3";
        struct stat info {};
        if (::stat(program.c_str(), &info) != 0) continue;
        if ((info.st_mode & S_ISUID) != 0 && info.st_uid == 0) return ok(program + ", setuid root");
        found = program + " is not setuid root";
        advice = "as root: chmod u+s " + program;
        break;
    }
    if (!machine.is_root) return bad(found, advice);
    return warn(found, advice + "; only daemons of ordinary users need it");
}

Finding check_user_allow_other(const Machine& machine) {
    std::string text = read_file("/etc/fuse.conf").value_or("");
    for (std::string_view line : split(text, '\n')) {
        if (line.substr(0, line.find_last_not_of(" \t\r") + 1) == "user_allow_other") {
            return ok("is set in /etc/fuse.conf");
        }
    }
    if (machine.is_root) return ok("is not set; root does not need it");
    return warn("is not set in /etc/fuse.conf",
                "only you will see your own tree; as root: echo user_allow_other >> "
                "/etc/fuse.conf");
}

Finding check_mounts(const Machine&) {
    std::string dead;
    std::string advice;
    for (const Mount& mount : mounts()) {
        if (!mount.dead) continue;
        dead += (dead.empty() ? "" : ", ") + mount.path;
        advice += (advice.empty() ? "ipcfs --mount " : "; ipcfs --mount ") + mount.path + " down";
    }
    return dead.empty() ? ok("none") : bad("the daemon is gone of " + dead, advice);
}

Finding check_daemon(const Machine& machine) {
    if (health(machine.root) != Health::kMounted) {
        return warn("does not run at " + machine.root, "start it with: ipcfs up");
    }
    std::string version(find(machine.daemon, "version"));
    return ok("runs at " + machine.root + (version.empty() ? "" : ", version " + version));
}

constexpr std::array<Check, 11> kSystem{{{"/dev/fuse", check_device},
                                         {"kernel", check_kernel},
                                         {"libfuse", check_libfuse},
                                         {"FUSE over io_uring", check_fuse_uring},
                                         {"io_uring", check_uring},
                                         {"passthrough", check_passthrough},
                                         {"survival", check_survival},
                                         {"fusermount3", check_fusermount},
                                         {"user_allow_other", check_user_allow_other},
                                         {"dead mounts", check_mounts},
                                         {"daemon", check_daemon}}};

}  // namespace

Machine::Machine(std::string mount_point)
    : root(std::move(mount_point)), daemon(read_version(root)), is_root(::geteuid() == 0) {
    utsname names{};
    ::uname(&names);
    release = names.release;
    kernel = find_version(release);
}

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

std::span<const Check> system_checks() {
    return kSystem;
}

}  // namespace ipcfs::client
