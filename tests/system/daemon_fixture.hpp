// A daemon of its own on a temporary mount for each test. IPCFS_TEST_DAEMON names the program and
// IPCFS_TEST_TRANSPORT its transport; IPCFS_TEST_PASSTHROUGH=off turns that off. main.cpp puts the test program in a mount namespace of its
// own, so that no mount outlives it; whatever happens, the daemon and the directory go in TearDown.
// Used from the test's main thread; the paths may be used from any.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <vector>

#include <gtest/gtest.h>

#include "files.hpp"

namespace ipcfs::test {

using namespace std::chrono_literals;

// How long a test waits for what must happen: far more than it takes, sanitizers included.
constexpr std::chrono::milliseconds kPatience = 20s;
// How long a test looks on to see that something does not happen.
constexpr std::chrono::milliseconds kGlance = 100ms;

// Asks for `condition` again and again; false when it did not hold in time.
bool wait_until(const std::function<bool()>& condition,
                std::chrono::milliseconds patience = kPatience);

// Whether the daemon is a sanitizer build (IPCFS_TEST_SANITIZED): starts and operations take several times
// longer.
bool is_instrumented();

class Daemon {
public:
    struct Options {
        std::vector<std::string> arguments;  // behind those every test gives
        std::string config;                  // the text of --config; empty: the defaults
        bool own_processes = false;          // in a pid namespace of its own: it sees no others
    };

    // Starts the daemon and waits until it answers on its mount. See running() for the outcome.
    explicit Daemon(const Options& options);
    Daemon(const Daemon&) = delete;
    Daemon& operator=(const Daemon&) = delete;
    ~Daemon();

    bool running();
    const std::string& mount() const { return mount_; }
    const std::string& directory() const { return directory_; }
    pid_t pid() const { return pid_; }
    // The process that serves: pid() itself, or its child where pid() holds the mount for it. -1: none.
    pid_t server() const;
    std::string log() const;

    // Asks it to end; its wait status, or -1 when it had to be killed.
    int stop();
    // By SIGKILL; waits for its end. What was mounted stays so.
    void kill();
    // Starts it again, after stop() or kill(), with the same state; waits until it answers.
    void start();
    // The same without waiting.
    void launch();

private:
    std::string directory_;
    std::vector<std::string> words_;  // its command line
    bool own_processes_ = false;
    std::string mount_;
    pid_t pid_ = -1;
    int wait_status_ = 0;
};

class MountedTest : public ::testing::Test {
protected:
    virtual Daemon::Options options() const { return {}; }
    void SetUp() override;
    void TearDown() override;

    Daemon& daemon() { return *daemon_; }
    // By SIGKILL, and waits for its end; the test's own end minds no more.
    void kill_daemon();
    // The same for the process that serves, where another takes its place, and waits until that answers.
    void replace_server();
    // A value of kern/ipc/version.
    std::string version(std::string_view key);
    // "jobs/queue" -> its path below the mount.
    std::string at(std::string_view path) const {
        return daemon_->mount() + "/" + std::string(path);
    }
    // Makes a channel with exactly this mode and the settings given, one a line.
    void make_channel(std::string_view name, std::string_view settings = {}, mode_t mode = 0777);
    // 0 or the errno of one write of `lines` to the channel's ctl.
    int ctl(std::string_view name, std::string_view lines);
    // The value of `key` in the channel's status, as text and as a number (-1: not there).
    std::string status(std::string_view name, std::string_view key);
    // Waits until the durable store has so many messages: what was delivered is erased a moment later.
    bool wait_for_kept(long count);
    long depth(std::string_view name) { return number(status(name, "depth")); }
    long waiting(std::string_view name) { return number(status(name, "waiting")); }
    bool wait_for_waiting(std::string_view name, long count);
    // All that is queued, one element a message.
    std::vector<std::string> drain(std::string_view name);
    // One message through `file` of the channel, by a blocking open; 0 or an errno.
    int send(std::string_view name, std::string_view message, std::string_view file = "queue");

    static long number(const std::string& text);

private:
    std::unique_ptr<Daemon> daemon_;
    bool killed_ = false;
};

}  // namespace ipcfs::test
