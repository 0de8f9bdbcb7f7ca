// ipcfs-bench: runs groups of benchmarks and reports. Two processes: this one makes a directory,
// has a child run the groups in a mount namespace and a process group of its own, and cleans up
// after it, however it ended.
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <fstream>
#include <getopt.h>
#include <optional>
#include <sched.h>
#include <signal.h>
#include <string>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include "groups.hpp"
#include "huge_pages.hpp"
#include "measure.hpp"

using namespace ipcfs::bench;

namespace {

constexpr int kExitMiss = 1;
constexpr int kExitUsage = 2;
constexpr int kExitFailed = 3;

constexpr const char* kUsage =
    "usage: ipcfs-bench [OPTIONS] GROUP...\n"
    "  --json FILE     also write the rows to FILE\n"
    "  --rounds N      rounds of each figure, the median counts (91)\n"
    "  --quick         a fourth of the operations, 21 rounds\n"
    "  --strict        exit 1 when a target is missed\n"
    "  --daemon FILE   the ipcfsd to measure (that beside this program)\n"
    "  --list          the groups, and nothing else\n"
    "Exit status: 0 it ran, 1 --strict and a target was missed, 2 usage, 3 it failed.\n";

struct Arguments {
    Run::Options run;
    std::vector<const Group*> chosen;
    std::string json;
    bool strict = false;
    bool rounds_given = false;
};

[[noreturn]] void usage(int status) {
    std::fputs(kUsage, status == 0 ? stdout : stderr);
    std::fputs("Groups:\n", status == 0 ? stdout : stderr);
    for (const Group& group : groups()) {
        std::fprintf(status == 0 ? stdout : stderr, "  %-10s %s\n", group.name, group.about);
    }
    std::exit(status);
}

Arguments parse(int argc, char** argv) {
    Arguments to;
    const auto here = std::filesystem::read_symlink("/proc/self/exe").parent_path();
    to.run.daemon = here / "ipcfsd";
    to.run.null_server = here / "null_fuse";
    enum { kJson = 1, kRounds, kQuick, kStrict, kDaemon, kList };
    const option options[] = {{"json", required_argument, nullptr, kJson},
                              {"rounds", required_argument, nullptr, kRounds},
                              {"quick", no_argument, nullptr, kQuick},
                              {"strict", no_argument, nullptr, kStrict},
                              {"daemon", required_argument, nullptr, kDaemon},
                              {"list", no_argument, nullptr, kList},
                              {"help", no_argument, nullptr, 'h'},
                              {nullptr, 0, nullptr, 0}};
    for (int is = 0; (is = getopt_long(argc, argv, "h", options, nullptr)) != -1;) {
        switch (is) {
            case kJson: to.json = std::filesystem::absolute(optarg); break;
            case kRounds: {
                char* end = nullptr;
                const unsigned long rounds = std::strtoul(optarg, &end, 10);
                if (*end != 0 || rounds < 1 || rounds > 1000) usage(kExitUsage);
                to.run.rounds = static_cast<unsigned>(rounds);
                to.rounds_given = true;
                break;
            }
            case kQuick: to.run.quick = true; break;
            case kStrict: to.strict = true; break;
            case kDaemon: to.run.daemon = std::filesystem::absolute(optarg); break;
            case kList:
                for (const Group& group : groups()) std::printf("%s\n", group.name);
                std::exit(0);
            case 'h': usage(0);
            default: usage(kExitUsage);
        }
    }
    if (to.run.quick && !to.rounds_given) to.run.rounds = 21;
    for (; optind < argc; ++optind) {
        const auto all = groups();
        const auto at = std::find_if(all.begin(), all.end(), [&](const Group& group) {
            return std::strcmp(group.name, argv[optind]) == 0;
        });
        if (at == all.end()) {
            std::fprintf(stderr, "ipcfs-bench: there is no group %s\n", argv[optind]);
            usage(kExitUsage);
        }
        to.chosen.push_back(&*at);
    }
    if (to.chosen.empty()) usage(kExitUsage);
    return to;
}

// The child: what it mounts nobody else sees, and it goes with the child's last process.
int run_groups(const Arguments& arguments) {
    if (unshare(CLONE_NEWNS) == 0) {
        mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr);
    }
    if (const std::string warning = machine_warning(); !warning.empty()) {
        std::fprintf(stderr, "ipcfs-bench: beware: %s\n", warning.c_str());
    }
    Report report;
    Run run(arguments.run, report);
    for (const Group* group : arguments.chosen) {
        const auto from = now_ns();
        group->run(run);
        char title[96];
        std::snprintf(title, sizeof title, "%s (%.0f s)", group->name,
                      static_cast<double>(now_ns() - from) / 1e9);
        report.print_table(title);
    }
    if (!arguments.json.empty()) {
        std::ofstream file(arguments.json);
        file << report.json();
        if (!file.flush()) {
            std::fprintf(stderr, "ipcfs-bench: %s cannot be written\n", arguments.json.c_str());
            return kExitFailed;
        }
    }
    if (run.failed()) return kExitFailed;
    return arguments.strict && !report.all_ok() ? kExitMiss : 0;
}

// Ends what is left of the child's process group: politely, so that daemons unmount, then not.
void end_group(pid_t group) {
    const auto gone = [](std::int64_t patience) {
        for (const auto until = now_ns() + patience;;) {
            const pid_t ended = waitpid(-1, nullptr, WNOHANG);
            if (ended < 0 && errno == ECHILD) return true;
            if (ended > 0) continue;
            if (now_ns() > until) return false;
            usleep(2000);
        }
    };
    kill(-group, SIGTERM);
    if (gone(3'000'000'000)) return;
    kill(-group, SIGKILL);
    gone(3'000'000'000);
}

}  // namespace

int main(int argc, char** argv) {
    Arguments arguments = parse(argc, argv);
    // Not /tmp: that is often in memory, and what is to be on disk would not be.
    const char* above = std::getenv("TMPDIR");
    std::string directory = std::string(above ? above : "/var/tmp") + "/ipcfs-bench-XXXXXX";
    if (mkdtemp(directory.data()) == nullptr) {
        std::perror("ipcfs-bench: mkdtemp");
        return kExitFailed;
    }
    arguments.run.directory = directory;

    sigset_t watched, before;
    sigemptyset(&watched);
    for (const int one : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGCHLD}) sigaddset(&watched, one);
    sigprocmask(SIG_BLOCK, &watched, &before);
    signal(SIGPIPE, SIG_IGN);          // who reads the output may be gone: clean up all the same
    prctl(PR_SET_CHILD_SUBREAPER, 1);  // daemons that outlive the child are ours to wait for

    std::optional<HugePages> huge_pages;
    const auto& chosen = arguments.chosen;
    if (std::any_of(chosen.begin(), chosen.end(), [](auto* group) { return group->huge_pages; })) {
        huge_pages.emplace();
    }
    const pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        setpgid(0, 0);
        signal(SIGPIPE, SIG_DFL);
        sigprocmask(SIG_SETMASK, &before, nullptr);
        int status = kExitFailed;
        try {
            status = run_groups(arguments);
        } catch (const std::exception& failed) {
            std::fprintf(stderr, "ipcfs-bench: %s\n", failed.what());
        }
        std::fflush(nullptr);
        _exit(status);
    }
    setpgid(child, child);  // whoever of the two comes first
    int status = kExitFailed;
    for (;;) {
        const int is = sigwaitinfo(&watched, nullptr);
        int how = 0;
        if (is == SIGCHLD) {
            if (waitpid(child, &how, WNOHANG) != child) continue;
            if (WIFEXITED(how)) {
                status = WEXITSTATUS(how);
            } else {
                std::fprintf(stderr, "ipcfs-bench: ended by signal %d\n", WTERMSIG(how));
            }
            break;
        }
        if (is > 0) {
            status = 128 + is;
            break;
        }
    }
    end_group(child);
    std::error_code ignored;
    std::filesystem::remove_all(directory, ignored);
    return status;
}
