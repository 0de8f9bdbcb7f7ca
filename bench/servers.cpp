// Starting, asking and ending servers.
#include "servers.hpp"

#include <cerrno>
#include <cstdio>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <poll.h>
#include <signal.h>
#include <sstream>
#include <stdexcept>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include "daemons.hpp"
#include "processes.hpp"
#include <base/fd.hpp>

namespace ipcfs::bench {
namespace {

constexpr long kFuseMagic = 0x65735546;
constexpr std::int64_t kServerPatience = 10'000'000'000;

}  // namespace

const char* name_of(Transport transport) {
    return transport == Transport::kUring ? "io_uring" : "classic";
}

Server::Server(const Run& run, Program program, Transport transport, int stream)
    : transport_(transport) {
    start(run, program, stream, nullptr);
}

Server::Server(const Run& run, const Start& how) : transport_(how.transport) {
    start(run, Program::kIpcfs, -1, &how);
}

void Server::start(const Run& run, Program program, int stream, const Start* how) {
    is_ipcfs_ = program == Program::kIpcfs;
    directory_ = run.options().directory + "/XXXXXX";
    if (mkdtemp(directory_.data()) == nullptr) must(-1, "mkdtemp " + directory_);
    // The state of a daemon is that of its mount point.
    const bool lasts = how && !how->directory.empty();
    const std::string state = lasts ? how->directory : directory_;
    mount_ = state + "/mnt";
    if (mkdir(mount_.c_str(), 0755) != 0 && errno != EEXIST) must(-1, "mkdir " + mount_);
    const std::string output = directory_ + "/output";

    const std::string carried_by = transport_ == Transport::kUring ? "uring" : "classic";
    std::vector<std::string> words;
    if (program == Program::kIpcfs) {
        words = {run.options().daemon, "--foreground", "--mount",  mount_,         "--state",
                 state + "/state",     "--transport",  carried_by, "--log-target", "stderr"};
        for (const auto& setting : how ? how->settings : std::vector<std::string>()) {
            words.insert(words.end(), {"--set", setting});
        }
    } else {
        words = {run.options().null_server, "--mount", mount_, "--transport", carried_by};
        if (program == Program::kNullLoop) words.push_back("--libfuse-loop");
        if (stream >= 0) words.insert(words.end(), {"--stream", std::to_string(stream)});
    }
    pid_ = fork_child([&] {
        run_on(Place::kFree);              // the server is never where the benchmark pins itself
        prctl(PR_SET_PDEATHSIG, SIGTERM);  // it can end by itself, and leave nothing
        const Fd out(open(output.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
        dup2(out.get(), STDOUT_FILENO);
        dup2(out.get(), STDERR_FILENO);
        if (stream >= 0) fcntl(stream, F_SETFD, 0);  // it passes exec
        std::vector<char*> argv;
        for (auto& word : words) argv.push_back(word.data());
        argv.push_back(nullptr);
        execv(argv[0], argv.data());
        must(-1, "exec " + words[0]);
    });
    const auto until = now_ns() + kServerPatience;
    const auto ready = [&] {
        return serves() && (program == Program::kIpcfs || slurp(output).find("ready") == 0);
    };
    while (!ready()) {
        const bool ended = wait_for(pid_, 0);
        if (ended || now_ns() > until) {
            if (ended) pid_ = -1;
            const std::string said = slurp(output);
            throw std::runtime_error(words[0] + " does not serve: " + said);
        }
        usleep(2000);
    }
    // One that fell back to another transport must not be measured under the wrong name.
    if (program == Program::kNullLoop) return;
    const bool agreed =
        program == Program::kIpcfs
            ? value("kern/ipc/version", "transport") == carried_by
            : slurp(output).find("transport=" + carried_by + " ") != std::string::npos;
    if (!agreed) throw std::runtime_error(words[0] + " does not use transport " + carried_by);
}

Server::~Server() {
    int status = 0;
    if (pid_ > 0 && wait_for(pid_, 0, &status)) {
        std::fprintf(stderr, "ipcfs-bench: a server ended by itself, wait status %d:\n%s\n", status,
                     slurp(directory_ + "/output").c_str());
    } else if (pid_ > 0) {
        kill(pid_, SIGTERM);
        if (!wait_for(pid_, kServerPatience)) {
            kill(pid_, SIGKILL);
            wait_for(pid_, kServerPatience);
        }
    }
    umount2(mount_.c_str(), MNT_DETACH);
    std::error_code ignored;
    std::filesystem::remove_all(directory_, ignored);
}

pid_t Server::pid() const {
    const std::string serves = is_ipcfs_ ? value("kern/ipc/version", "pid") : "";
    return serves.empty() ? pid_ : std::stoi(serves);
}

void Server::end(int signal) {
    const Fd daemon(static_cast<int>(syscall(SYS_pidfd_open, pid(), 0)));
    kill(pid_, signal);
    bool ended = wait_for(pid_, kServerPatience);
    pollfd gone{daemon.get(), POLLIN, 0};
    ended = ended && (!daemon || poll(&gone, 1, kServerPatience / 1'000'000) == 1);
    if (!ended) throw std::runtime_error("ipcfsd does not end");
    pid_ = -1;
    umount2(mount_.c_str(), MNT_DETACH);
}

bool Server::serves() const {
    struct statfs about {};
    struct stat root {};
    return statfs(mount_.c_str(), &about) == 0 && about.f_type == kFuseMagic &&
           stat(mount_.c_str(), &root) == 0;
}

void Server::put(Place place) const {
    if (transport_ == Transport::kClassic) put_server(pid(), place);
}

void Server::make_channel(const std::string& name, const std::string& settings) const {
    must(mkdir(at(name).c_str(), 0777), "mkdir " + name);
    if (settings.empty()) return;
    const Fd file(
        static_cast<int>(must(open(at(name + "/ctl").c_str(), O_WRONLY | O_CLOEXEC), "ctl")));
    must(write(file.get(), settings.data(), settings.size()), "ctl: " + settings);
}

std::string Server::value(const std::string& file, const std::string& key) const {
    std::istringstream lines(slurp(at(file)));
    for (std::string word, rest; lines >> word && std::getline(lines >> std::ws, rest);) {
        if (word == key) return rest;
    }
    return "";
}

std::uint64_t Server::resident() const {
    std::istringstream lines(slurp("/proc/" + std::to_string(pid()) + "/status"));
    for (std::string line; std::getline(lines, line);) {
        if (line.rfind("VmRSS:", 0) == 0) return std::stoull(line.substr(6)) * 1024;
    }
    throw std::runtime_error("no VmRSS of " + std::to_string(pid()));
}

}  // namespace ipcfs::bench
