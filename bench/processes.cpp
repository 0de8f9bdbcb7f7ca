// Forking, waiting, killing.
#include "processes.hpp"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <signal.h>
#include <stdexcept>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "measure.hpp"

namespace ipcfs::bench {

long must(long result, const std::string& what) {
    if (result < 0) throw std::runtime_error(what + ": " + std::strerror(errno));
    return result;
}

pid_t fork_child(const std::function<void()>& body) {
    const pid_t parent = getpid();
    const pid_t pid = static_cast<pid_t>(must(fork(), "fork"));
    if (pid != 0) return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    try {
        body();
    } catch (const std::exception& failed) {
        std::fprintf(stderr, "ipcfs-bench: %s\n", failed.what());
        _exit(1);
    }
    _exit(0);
}

bool wait_for(pid_t pid, std::int64_t patience_ns, int* status) {
    for (const auto until = now_ns() + patience_ns;; usleep(500)) {
        const pid_t ended = waitpid(pid, status, WNOHANG);
        if (ended == pid || (ended < 0 && errno == ECHILD)) return true;
        if (now_ns() > until) return false;
    }
}

bool Children::join(std::int64_t patience_ns) {
    const auto until = now_ns() + patience_ns;
    bool good = true;
    for (pid_t& pid : pids_) {
        int status = 0;
        if (!wait_for(pid, until - now_ns(), &status)) {
            kill_all();
            return false;
        }
        pid = -1;
        good = good && WIFEXITED(status) && WEXITSTATUS(status) == 0;
    }
    pids_.clear();
    return good;
}

void Children::kill_all() {
    for (const pid_t pid : pids_) {
        if (pid > 0) kill(pid, SIGKILL);
    }
    for (const pid_t pid : pids_) {
        if (pid > 0) wait_for(pid, 5'000'000'000);
    }
    pids_.clear();
}

}  // namespace ipcfs::bench
