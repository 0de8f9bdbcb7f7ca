#include <array>
#include <cerrno>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <checks.hpp>
#include <failure.hpp>
#include <io.hpp>

#include <ipcfs/userfaultfd.hpp>

namespace ipcfs::client {
namespace {

// Receivers of lazy payloads need it, so this checks this user's rights, not the daemon's.
Finding check_userfaultfd(const Machine& machine) {
    namespace uffd = ipcfs::detail::uffd;
    std::string allowed = line_of("/proc/sys/vm/unprivileged_userfaultfd");
    if (uffd::create(0)) {
        return ok(allowed == "1" ? "for everybody" : machine.is_root ? "for root" : "for you");
    }
    if (::access("/dev/userfaultfd", R_OK | W_OK) == 0) return ok("by /dev/userfaultfd");
    if (uffd::create(uffd::kUserModeOnly)) {
        return warn("only for your own loads and stores",
                    "lazy payloads work, but read(2) and write(2) on missing pages fail (EFAULT); "
                    "as root: sysctl vm.unprivileged_userfaultfd=1, or setfacl -m u:" +
                        std::to_string(::geteuid()) + ":rw /dev/userfaultfd");
    }
    if (allowed.empty() && ::access("/dev/userfaultfd", F_OK) != 0) {
        return warn("this kernel does not have it",
                    "CONFIG_USERFAULTFD; without it, lazy payloads are copied completely");
    }
    return warn("is forbidden here",
                "a seccomp filter, such as a container's, forbids it; lazy payloads are copied "
                "completely");
}

Finding check_poison(const Machine& machine) {
    if (machine.kernel >= Version{6, 6}) return ok("this kernel has it");
    return warn("this kernel does not have it",
                "Linux 6.6 or newer; without it, access to a lazy page whose producer died is "
                "SIGSEGV instead of SIGBUS");
}

std::string show_limit(rlim_t limit) {
    return limit == RLIM_INFINITY ? "unlimited" : std::to_string(limit);
}

Finding check_open_files(const Machine&) {
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    std::string found =
        show_limit(limit.rlim_cur) + ", can be raised to " + show_limit(limit.rlim_max);
    if (limit.rlim_max >= 65536) return ok(found);
    return warn(found,
                "raise it to 65536 or more (ulimit -n, LimitNOFILE=, limits.conf) for many "
                "channels");
}

Finding check_locked_memory(const Machine& machine) {
    rlimit limit{};
    ::getrlimit(RLIMIT_MEMLOCK, &limit);
    std::string found = show_limit(limit.rlim_max) + " bytes";
    if (machine.is_root || limit.rlim_max >= (8U << 20)) return ok(found);
    return warn(found, "raise it to 8 MiB or more (ulimit -l, LimitMEMLOCK=)");
}

Finding check_inotify(const std::string& name, std::uint64_t least) {
    auto value = parse_number(line_of("/proc/sys/fs/inotify/" + name));
    if (!value) return warn("cannot be read", "the kernel needs CONFIG_INOTIFY_USER");
    if (*value >= least) return ok(std::to_string(*value));
    return warn(std::to_string(*value),
                "as root: sysctl fs.inotify." + name + "=" + std::to_string(least));
}

Finding check_timeout(const std::string& name) {
    std::string value = line_of("/proc/sys/fs/fuse/" + name);
    if (value.empty() || value == "0") return ok(value.empty() ? "this kernel has none" : "none");
    return bad(value + " seconds",
               "the kernel ends the mount when a reader waits longer than that; as root: sysctl "
               "fs.fuse." +
                   name + "=0, then restart the daemon");
}

Finding check_huge_pages(const Machine&) {
    std::string modes = line_of("/sys/kernel/mm/transparent_hugepage/shmem_enabled");
    auto open = modes.find('[');
    auto close = modes.find(']');
    if (open == std::string::npos || close == std::string::npos) {
        return warn("this kernel does not have them",
                    "CONFIG_TRANSPARENT_HUGEPAGE; large payloads are a little slower without it");
    }
    std::string mode = modes.substr(open + 1, close - open - 1);
    if (mode != "never" && mode != "deny") return ok(mode);
    return warn(mode,
                "large payloads are several times faster with them; as root: echo advise > "
                "/sys/kernel/mm/transparent_hugepage/shmem_enabled (\"advise\": on request, as "
                "ipcfs does)");
}

// Pools use reserved huge pages first, but other programs then cannot use them, so having none is fine.
Finding check_reserved_huge_pages(const Machine&) {
    std::string size = "/sys/kernel/mm/hugepages/hugepages-2048kB/";
    auto all = parse_number(line_of(size + "nr_hugepages"));
    if (!all) return ok("this kernel has none of 2 MiB");
    if (*all == 0) return ok("none; to reserve some for pools: sysctl vm.nr_hugepages=N");
    return ok(std::to_string(*all) + " of 2 MiB, " + line_of(size + "free_hugepages") + " free");
}

Finding check_memfds(const Machine&) {
    std::string scope = line_of("/proc/sys/vm/memfd_noexec");
    if (Fd(::memfd_create("ipcfs-doctor", MFD_CLOEXEC | MFD_ALLOW_SEALING))) {
        bool noted = !scope.empty() && scope != "0";
        return ok("can be created and sealed" +
                  (noted ? "; vm.memfd_noexec is " + scope : std::string()));
    }
    std::string why = describe(errno);
    if (scope == "2") {
        return bad("vm.memfd_noexec is 2, which forbids them: " + why,
                   "as root: sysctl vm.memfd_noexec=1");
    }
    return bad("cannot be created: " + why,
               "large payloads need memfd_create(2); a seccomp filter may forbid it");
}

constexpr std::array<Check, 11> kResources{
    {{"userfaultfd", check_userfaultfd},
     {"UFFDIO_POISON", check_poison},
     {"open files", check_open_files},
     {"locked memory", check_locked_memory},
     {"inotify max_user_watches",
      [](const Machine&) { return check_inotify("max_user_watches", 65536); }},
     {"inotify max_user_instances",
      [](const Machine&) { return check_inotify("max_user_instances", 128); }},
     {"default_request_timeout",
      [](const Machine&) { return check_timeout("default_request_timeout"); }},
     {"max_request_timeout", [](const Machine&) { return check_timeout("max_request_timeout"); }},
     {"huge pages of shared memory", check_huge_pages},
     {"reserved huge pages", check_reserved_huge_pages},
     {"memfd", check_memfds}}};

}  // namespace

std::span<const Check> resource_checks() {
    return kResources;
}

}  // namespace ipcfs::client
