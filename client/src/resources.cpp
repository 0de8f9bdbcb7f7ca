// The checks of `ipcfs doctor` on memory, limits and timeouts. Changes nothing. One thread.
#include <cerrno>
#include <fcntl.h>
#include <string>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <examination.hpp>
#include <failure.hpp>
#include <io.hpp>
#include <text.hpp>

namespace ipcfs::client {
namespace {

Fd make_userfaultfd(int flags) {
    return Fd(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | flags)));
}

// Receivers of lazy payloads need it, so this checks this user's rights, not the daemon's.
void check_userfaultfd(Findings& findings, const Version& kernel) {
    constexpr int kUserModeOnly = 1;
    std::string allowed = line_of("/proc/sys/vm/unprivileged_userfaultfd");
    bool device = ::access("/dev/userfaultfd", R_OK | W_OK) == 0;
    Fd whole = make_userfaultfd(0);
    Fd limited = make_userfaultfd(kUserModeOnly);
    if (whole || device) {
        std::string how = allowed == "1" ? "for everybody" : is_root() ? "for root" : "for you";
        if (!whole) how = "by /dev/userfaultfd";
        findings.ok("userfaultfd", how);
    } else if (limited) {
        findings.warn(
            "userfaultfd", "only for your own loads and stores",
            "lazy payloads work, but read(2) and write(2) on missing pages fail (EFAULT); as "
            "root: sysctl vm.unprivileged_userfaultfd=1, or setfacl -m u:" +
                std::to_string(::geteuid()) + ":rw /dev/userfaultfd");
    } else if (allowed.empty() && ::access("/dev/userfaultfd", F_OK) != 0) {
        findings.warn("userfaultfd", "this kernel does not have it",
                      "CONFIG_USERFAULTFD; without it, lazy payloads are copied completely");
    } else {
        findings.warn(
            "userfaultfd", "is forbidden here",
            "a seccomp filter, such as a container's, forbids it; lazy payloads are copied "
            "completely");
    }
    if (kernel >= Version{6, 6}) {
        findings.ok("UFFDIO_POISON", "this kernel has it");
    } else {
        findings.warn(
            "UFFDIO_POISON", "this kernel does not have it",
            "Linux 6.6 or newer; without it, access to a lazy page whose producer died is "
            "SIGSEGV instead of SIGBUS");
    }
}

std::string show_limit(rlim_t limit) {
    return limit == RLIM_INFINITY ? "unlimited" : std::to_string(limit);
}

void check_inotify(Findings& findings, const std::string& name, std::uint64_t least) {
    auto value = parse_number(line_of("/proc/sys/fs/inotify/" + name));
    if (!value) {
        return findings.warn("inotify " + name, "cannot be read",
                             "the kernel needs CONFIG_INOTIFY_USER");
    }
    if (*value >= least) return findings.ok("inotify " + name, std::to_string(*value));
    findings.warn("inotify " + name, std::to_string(*value),
                  "as root: sysctl fs.inotify." + name + "=" + std::to_string(least));
}

void check_limits(Findings& findings) {
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    std::string found =
        show_limit(limit.rlim_cur) + ", can be raised to " + show_limit(limit.rlim_max);
    if (limit.rlim_max >= 65536) {
        findings.ok("open files", found);
    } else {
        findings.warn("open files", found,
                      "raise it to 65536 or more (ulimit -n, LimitNOFILE=, limits.conf) for many "
                      "channels");
    }
    ::getrlimit(RLIMIT_MEMLOCK, &limit);
    found = show_limit(limit.rlim_max) + " bytes";
    if (is_root() || limit.rlim_max >= (8U << 20)) {
        findings.ok("locked memory", found);
    } else {
        findings.warn("locked memory", found,
                      "raise it to 8 MiB or more (ulimit -l, LimitMEMLOCK=)");
    }
    check_inotify(findings, "max_user_watches", 65536);
    check_inotify(findings, "max_user_instances", 128);
}

void check_timeouts(Findings& findings) {
    for (const char* name : {"default_request_timeout", "max_request_timeout"}) {
        std::string value = line_of(std::string("/proc/sys/fs/fuse/") + name);
        if (value.empty() || value == "0") {
            findings.ok(name, value.empty() ? "this kernel has none" : "none");
            continue;
        }
        findings.bad(
            name, value + " seconds",
            "the kernel ends the mount when a reader waits longer than that; as root: sysctl "
            "fs.fuse." +
                std::string(name) + "=0, then restart the daemon");
    }
}

void check_huge_pages(Findings& findings) {
    std::string modes = line_of("/sys/kernel/mm/transparent_hugepage/shmem_enabled");
    auto open = modes.find('[');
    auto close = modes.find(']');
    if (open == std::string::npos || close == std::string::npos) {
        return findings.warn(
            "huge pages of shared memory", "this kernel does not have them",
            "CONFIG_TRANSPARENT_HUGEPAGE; large payloads are a little slower without it");
    }
    std::string mode = modes.substr(open + 1, close - open - 1);
    if (mode != "never" && mode != "deny") return findings.ok("huge pages of shared memory", mode);
    findings.warn("huge pages of shared memory", mode,
                  "large payloads are several times faster with them; as root: echo advise > "
                  "/sys/kernel/mm/transparent_hugepage/shmem_enabled (\"advise\": on request, as "
                  "ipcfs does)");
}

// Pools use reserved huge pages first, but other programs then cannot use them, so having none is
// fine.
void check_reserved_huge_pages(Findings& findings) {
    std::string size = "/sys/kernel/mm/hugepages/hugepages-2048kB/";
    auto all = parse_number(line_of(size + "nr_hugepages"));
    if (!all) return findings.ok("reserved huge pages", "this kernel has none of 2 MiB");
    auto left = parse_number(line_of(size + "free_hugepages")).value_or(0);
    if (*all > 0) {
        return findings.ok("reserved huge pages",
                           std::to_string(*all) + " of 2 MiB, " + std::to_string(left) + " free");
    }
    findings.ok("reserved huge pages", "none; to reserve some for pools: sysctl vm.nr_hugepages=N");
}

void check_memfds(Findings& findings) {
    std::string scope = line_of("/proc/sys/vm/memfd_noexec");
    Fd memory(::memfd_create("ipcfs-doctor", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (memory) {
        return findings.ok("memfd", scope.empty() || scope == "0"
                                        ? "can be created and sealed"
                                        : "can be created and sealed; vm.memfd_noexec is " + scope);
    }
    int error = errno;
    if (scope == "2") {
        return findings.bad("memfd", "vm.memfd_noexec is 2, which forbids them: " + describe(error),
                            "as root: sysctl vm.memfd_noexec=1");
    }
    findings.bad("memfd", "cannot be created: " + describe(error),
                 "large payloads need memfd_create(2); a seccomp filter may forbid it");
}

}  // namespace

void examine_resources(Findings& findings, const Version& kernel) {
    check_userfaultfd(findings, kernel);
    check_limits(findings);
    check_timeouts(findings);
    check_huge_pages(findings);
    check_reserved_huge_pages(findings);
    check_memfds(findings);
}

}  // namespace ipcfs::client
