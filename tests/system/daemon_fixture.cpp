#include "daemon_fixture.hpp"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

namespace ipcfs::test {
namespace {

constexpr long kFuseMagic = 0x65735546;

std::string environment(const char* name, const char* otherwise) {
    const char* value = getenv(name);
    return value != nullptr && *value != 0 ? value : otherwise;
}

pid_t g_ward = -1;  // of a process that only looks after the daemon

// Goes on as process 1 of a new pid namespace. The caller stays behind as its parent, hands SIGTERM
// on and ends as it ended.
void enter_own_processes() {
    if (unshare(CLONE_NEWPID) != 0) _exit(126);
    g_ward = fork();
    if (g_ward == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        return;
    }
    signal(SIGTERM, [](int number) { kill(g_ward, number); });
    int status = 0;
    while (waitpid(g_ward, &status, 0) < 0 && errno == EINTR) {
    }
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 125);
}

}  // namespace

bool wait_until(const std::function<bool()>& condition, std::chrono::milliseconds patience) {
    const auto deadline = std::chrono::steady_clock::now() + patience;
    while (!condition()) {
        if (std::chrono::steady_clock::now() >= deadline) return false;
        std::this_thread::sleep_for(1ms);
    }
    return true;
}

bool is_instrumented() {
    return !environment("IPCFS_TEST_SANITIZED", "").empty();
}

Daemon::Daemon(const Options& options) {
    std::string pattern = environment("TMPDIR", "/tmp") + "/ipcfs-system-XXXXXX";
    if (mkdtemp(pattern.data()) == nullptr) return;
    directory_ = pattern;
    chmod(directory_.c_str(), 0755);  // other users of the test go through it
    mount_ = directory_ + "/mnt";
    mkdir(mount_.c_str(), 0755);

    own_processes_ = options.own_processes;
    words_ = {environment("IPCFS_TEST_DAEMON", "ipcfsd"),
              "--foreground",
              "--mount",
              mount_,
              "--state",
              directory_ + "/state",
              "--transport",
              environment("IPCFS_TEST_TRANSPORT", "auto"),
              "--log-target",
              "file",
              "--log-file",
              directory_ + "/log"};
    if (!options.config.empty()) {
        std::ofstream(directory_ + "/ipcfs.toml") << options.config;
        words_.insert(words_.end(), {"--config", directory_ + "/ipcfs.toml"});
    }
    if (environment("IPCFS_TEST_PASSTHROUGH", "auto") == "off") {
        words_.insert(words_.end(), {"--set", "fuse.passthrough=off"});
    }
    words_.insert(words_.end(), options.arguments.begin(), options.arguments.end());
    start();
}

void Daemon::start() {
    launch();
    wait_until([&] {
        struct statfs about {};
        return !running() || (statfs(mount_.c_str(), &about) == 0 && about.f_type == kFuseMagic);
    });
}

void Daemon::launch() {
    std::vector<char*> argv;
    for (auto& word : words_) argv.push_back(word.data());
    argv.push_back(nullptr);

    pid_ = fork();
    if (pid_ == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        const int out = open((directory_ + "/output").c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
        dup2(out, STDOUT_FILENO);
        dup2(out, STDERR_FILENO);
        cpu_set_t all;  // the daemon's threads must not inherit the pinning of a test
        CPU_ZERO(&all);
        for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) CPU_SET(cpu, &all);
        sched_setaffinity(0, sizeof all, &all);
        if (own_processes_) enter_own_processes();
        execvp(argv[0], argv.data());
        _exit(127);
    }
}

Daemon::~Daemon() {
    stop();
    if (directory_.empty()) return;
    std::error_code ignored;
    std::filesystem::remove_all(directory_, ignored);
}

bool Daemon::running() {
    if (pid_ <= 0) return false;
    if (waitpid(pid_, &wait_status_, WNOHANG) == pid_) pid_ = -1;
    return pid_ > 0;
}

pid_t Daemon::server() const {
    const auto version = slurp(mount_ + "/kern/ipc/version");
    const auto pid = value_of(version, "pid");
    return pid.empty() ? -1 : static_cast<pid_t>(std::stol(pid));
}

std::string Daemon::log() const {
    return slurp(directory_ + "/output") + slurp(directory_ + "/log");
}

int Daemon::stop() {
    if (running()) {
        ::kill(pid_, SIGTERM);
        if (!wait_until([&] { return !running(); }, 10s)) {
            ::kill(pid_, SIGKILL);
            umount2(mount_.c_str(), MNT_FORCE);  // frees whoever waits for it, itself included
            waitpid(pid_, nullptr, 0);
            pid_ = -1;
            wait_status_ = -1;
        }
    }
    if (!mount_.empty()) {
        umount2(mount_.c_str(), MNT_FORCE);
        umount2(mount_.c_str(), MNT_DETACH);
    }
    return wait_status_;
}

void Daemon::kill() {
    if (!running()) return;
    ::kill(pid_, SIGKILL);
    waitpid(pid_, &wait_status_, 0);
    pid_ = -1;
}

void MountedTest::SetUp() {
    daemon_ = std::make_unique<Daemon>(options());
    ASSERT_TRUE(daemon_->running()) << daemon_->log();
}

void MountedTest::TearDown() {
    if (!daemon_) return;
    EXPECT_TRUE(killed_ || daemon_->running()) << "the daemon ended during the test";
    const int wait_status = daemon_->stop();
    EXPECT_TRUE(killed_ || (WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == 0))
        << "after SIGTERM: wait status " << wait_status;
    if (HasFailure()) std::cerr << "the daemon's log:\n" << daemon_->log() << "\n";
    daemon_.reset();
}

void MountedTest::kill_daemon() {
    killed_ = true;
    ::kill(daemon_->pid(), SIGKILL);
    ASSERT_TRUE(wait_until([&] { return !daemon_->running(); }, 10s)) << "it cannot be killed";
}

void MountedTest::replace_server() {
    const std::string life = version("life");
    const pid_t pid = daemon().server();
    ASSERT_GT(pid, 1);
    ASSERT_NE(pid, daemon().pid()) << "nobody starts this daemon again";
    ASSERT_EQ(::kill(pid, SIGKILL), 0);
    ASSERT_TRUE(wait_until([&] {
        const std::string now = version("life");
        return !now.empty() && now != life;
    })) << daemon().log();
}

std::string MountedTest::version(std::string_view key) {
    return value_of(slurp(at("kern/ipc/version")), key);
}

void MountedTest::make_channel(std::string_view name, std::string_view settings, mode_t mode) {
    ASSERT_EQ(mkdir(at(name).c_str(), mode), 0) << name << ": " << strerror(errno);
    if (settings.empty()) return;
    ASSERT_EQ(ctl(name, settings), 0) << name << ": " << settings;
}

int MountedTest::ctl(std::string_view name, std::string_view lines) {
    const Fd file = open_file(at(std::string(name) + "/ctl"), O_WRONLY);
    if (!file) return errno;
    const long done = write_to(file.get(), lines);
    return done < 0 ? static_cast<int>(-done) : 0;
}

std::string MountedTest::status(std::string_view name, std::string_view key) {
    return value_of(slurp(at(std::string(name) + "/status")), key);
}

bool MountedTest::wait_for_kept(long count) {
    return wait_until([&] {
        for (const Row& row : parse_table(slurp(at("kern/ipc/stats/resources")))) {
            if (row.at("scope") == "store" && row.at("resource") == "messages") {
                return number(row.at("used")) == count;
            }
        }
        return false;
    });
}

bool MountedTest::wait_for_waiting(std::string_view name, long count) {
    return wait_until([&] { return waiting(name) == count; });
}

std::vector<std::string> MountedTest::drain(std::string_view name) {
    std::vector<std::string> messages;
    const Fd file = open_file(at(std::string(name) + "/queue"), O_RDONLY);
    for (;;) {
        auto got = read_from(file.get());
        if (got.result == -EINTR) continue;
        if (got.result <= 0) return messages;
        messages.push_back(std::move(got.data));
    }
}

int MountedTest::send(std::string_view name, std::string_view message, std::string_view file) {
    const Fd out = open_file(at(std::string(name) + "/" + std::string(file)), O_WRONLY);
    if (!out) return errno;
    const long done = write_to(out.get(), message);
    return done < 0 ? static_cast<int>(-done) : 0;
}

long MountedTest::number(const std::string& text) {
    char* end = nullptr;
    const long value = strtol(text.c_str(), &end, 10);
    return end == text.c_str() ? -1 : value;
}

}  // namespace ipcfs::test
