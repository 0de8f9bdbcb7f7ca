#include <array>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <dirent.h>
#include <fcntl.h>
#include <fstream>
#include <memory>
#include <poll.h>
#include <signal.h>
#include <span>
#include <string_view>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <vector>

#include <base/process.hpp>

namespace ipcfs {

Result<Fd> open_process(pid_t pid) {
    long fd = ::syscall(SYS_pidfd_open, pid, 0);
    if (fd < 0) return errno_fault("pidfd_open " + std::to_string(pid));
    return Fd(static_cast<int>(fd));
}

bool process_ended(const Fd& pidfd) noexcept {
    pollfd at{pidfd.get(), POLLIN, 0};
    return ::poll(&at, 1, 0) > 0;
}

Result<void> signal_process(const Fd& pidfd, int signal, std::uint64_t value) {
    siginfo_t info{};
    info.si_signo = signal;
    info.si_code = SI_QUEUE;
    info.si_pid = ::getpid();
    info.si_uid = ::getuid();
    info.si_value.sival_ptr = reinterpret_cast<void*>(value);
    if (::syscall(SYS_pidfd_send_signal, pidfd.get(), signal, &info, 0) < 0) {
        return errno_fault("pidfd_send_signal");
    }
    return {};
}

namespace {

// Copies of linux/pidfd.h (Linux 6.13), which older headers lack.
struct PidfdInfo {
    std::uint64_t mask;
    std::uint64_t cgroup;
    std::uint32_t pid, tgid, ppid;
    std::uint32_t uids_and_gids[8];
    std::int32_t exit_code;
};
static_assert(sizeof(PidfdInfo) == 64);
constexpr unsigned kPidfdThread = O_EXCL;  // PIDFD_THREAD, 6.9
constexpr std::uint64_t kPidfdInfoPid = 1;
constexpr unsigned long kPidfdGetInfo = _IOWR(0xFF, 11, PidfdInfo);

// Reads the start of a file in /proc; empty if it is gone or may not be read.
std::string_view read_proc(const char* path, std::span<char> into) noexcept {
    Fd file(::open(path, O_RDONLY | O_CLOEXEC));
    ssize_t size = file ? ::read(file.get(), into.data(), into.size()) : 0;
    return {into.data(), size > 0 ? static_cast<std::size_t>(size) : 0};
}

// The number behind `key`; 0 without it.
std::uint64_t info_field(std::string_view info, std::string_view key) noexcept {
    auto at = info.find(key);
    if (at == std::string_view::npos) return 0;
    std::uint64_t value = 0;
    std::from_chars(info.data() + at + key.size(), info.data() + info.size(), value);
    return value;
}

}  // namespace

pid_t thread_group(pid_t tid) noexcept {
    if (tid <= 0) return 0;
    const Fd thread(static_cast<int>(::syscall(SYS_pidfd_open, tid, kPidfdThread)));
    PidfdInfo info{};
    info.mask = kPidfdInfoPid;
    if (thread && ::ioctl(thread.get(), kPidfdGetInfo, &info) == 0 && (info.mask & kPidfdInfoPid))
        return static_cast<pid_t>(info.tgid);
    char path[40], text[1024];
    std::snprintf(path, sizeof path, "/proc/%d/status", tid);
    return static_cast<pid_t>(info_field(read_proc(path, text), "\nTgid:\t"));
}

pid_t recent_thread_group(pid_t tid) noexcept {
    constexpr std::int64_t kKept = 100'000'000;
    struct Known {
        pid_t tid = 0;
        pid_t group = 0;
        std::int64_t until = 0;
    };
    thread_local std::array<Known, 256> all;
    if (tid <= 0) return 0;
    timespec time{};
    ::clock_gettime(CLOCK_MONOTONIC_COARSE, &time);
    const std::int64_t now = time.tv_sec * std::int64_t{1'000'000'000} + time.tv_nsec;
    Known& known = all[static_cast<std::size_t>(tid) % all.size()];
    if (known.tid == tid && now < known.until) return known.group;
    const pid_t group = thread_group(tid);
    // Failures are not cached: the next look-up may succeed.
    if (group > 0) known = {tid, group, now + kKept};
    return group;
}

namespace {

// Field `n` of stat(5), numbered from 1 as in the man page. `stat` starts after the command name.
std::uint64_t stat_field(std::string_view stat, int n) noexcept {
    auto at = stat.rfind(')');
    if (at == std::string_view::npos) return 0;
    stat.remove_prefix(at + 1);
    for (int i = 3; i <= n; ++i) {
        auto start = stat.find_first_not_of(' ');
        if (start == std::string_view::npos) return 0;
        stat.remove_prefix(start);
        if (i == n) break;
        stat.remove_prefix(std::min(stat.find(' '), stat.size()));
    }
    std::uint64_t value = 0;
    std::from_chars(stat.data(), stat.data() + stat.size(), value);
    return value;
}

template <class Use>
void for_each_entry(const char* path, Use&& use) {
    std::unique_ptr<DIR, int (*)(DIR*)> directory(::opendir(path), &::closedir);
    while (directory) {
        const dirent* entry = ::readdir(directory.get());
        if (!entry || !use(entry->d_name)) return;
    }
}

// Whether mount `id` exists and has another type than `type`. Uses this process's own mountinfo,
// since the other process may be in an execve(2), on which its own /proc links would block.
bool is_mount_of_other_type(std::uint64_t id, std::string_view type) {
    std::ifstream mounts("/proc/self/mountinfo");
    std::string line;
    while (std::getline(mounts, line)) {
        if (std::strtoull(line.c_str(), nullptr, 10) != id) continue;
        auto at = line.find(" - ");
        if (at == std::string::npos) return false;
        std::string_view rest = std::string_view(line).substr(at + 3);
        return rest.substr(0, rest.find(' ')) != type;
    }
    return false;
}

bool process_has_open(pid_t pid, std::uint64_t inode, std::string_view type) {
    char text[512];
    const std::string directory = "/proc/" + std::to_string(pid) + "/fdinfo";
    bool found = false;
    for_each_entry(directory.c_str(), [&](const char* number) {
        if (number[0] == '.') return true;
        std::string_view info = read_proc((directory + '/' + number).c_str(), text);
        found = info_field(info, "\nino:\t") == inode &&
                !is_mount_of_other_type(info_field(info, "\nmnt_id:\t"), type);
        return !found;
    });
    return found;
}

}  // namespace

bool died_of_signal(pid_t tid) noexcept {
    if (tid <= 0) return false;
    constexpr std::uint64_t kExiting = 0x4;  // PF_EXITING
    char text[1024];
    const std::string process = "/proc/" + std::to_string(tid);
    // The caller may be serving a FLUSH for which an execve(2) waits; reading `stat` would then
    // wait for that execve. `statm` never blocks, and shows zeros only when an exiting process has
    // freed its memory, which is never so during an execve.
    if (!read_proc((process + "/statm").c_str(), text).starts_with("0 0 0")) return false;
    std::string_view stat = read_proc((process + "/stat").c_str(), text);
    // Field 9 holds the flags, field 52 the exit status as wait(2) gives it.
    return (stat_field(stat, 9) & kExiting) && (stat_field(stat, 52) & 0x7f);
}

bool has_open(pid_t pid, std::uint64_t inode, std::string_view type) noexcept {
    constexpr std::size_t kMost = 256;  // processes examined
    std::vector<pid_t> family{pid};
    for (std::size_t i = 0; i < family.size() && i < kMost; ++i) {
        if (process_has_open(family[i], inode, type)) return true;
        char text[4096];
        const std::string tasks = "/proc/" + std::to_string(family[i]) + "/task";
        for_each_entry(tasks.c_str(), [&](const char* thread) {
            if (thread[0] == '.') return true;
            std::string_view list = read_proc((tasks + '/' + thread + "/children").c_str(), text);
            while (!list.empty()) {
                pid_t child = 0;
                auto [end, error] = std::from_chars(list.data(), list.data() + list.size(), child);
                if (error != std::errc()) break;
                family.push_back(child);
                list.remove_prefix(static_cast<std::size_t>(end - list.data()));
                list.remove_prefix(std::min(list.find_first_not_of(' '), list.size()));
            }
            return true;
        });
    }
    return false;
}

}  // namespace ipcfs
