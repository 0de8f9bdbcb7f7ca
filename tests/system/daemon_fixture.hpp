// Runs a daemon on a temporary mount for each test. IPCFS_TEST_DAEMON names the program,
// IPCFS_TEST_TRANSPORT its transport; IPCFS_TEST_PASSTHROUGH=off disables passthrough. main.cpp
// puts the test program into its own mount namespace, so that no mount outlives it; TearDown always
// ends the daemon and removes the directory. Used from the test's main thread; the paths may be
// used from any thread.
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

// The deadline for what must happen: far more than it takes, even with sanitizers.
constexpr std::chrono::milliseconds kPatience = 20s;
// How long a test watches to see that something does not happen.
constexpr std::chrono::milliseconds kGlance = 100ms;

// Polls `condition`; false if it did not hold in time.
bool wait_until(const std::function<bool()>& condition,
                std::chrono::milliseconds patience = kPatience);

// Whether the daemon is a sanitizer build (IPCFS_TEST_SANITIZED), which is several times slower.
bool is_instrumented();

class Daemon {
public:
    struct Options {
        std::vector<std::string> arguments;  // in addition to the fixture's
        std::string config;                  // the content of the --config file; empty: defaults
        bool own_processes = false;  // run it in its own pid namespace, where it sees no clients
    };

    // Starts the daemon and waits until it answers on its mount. running() tells whether that
    // worked.
    explicit Daemon(const Options& options);
    Daemon(const Daemon&) = delete;
    Daemon& operator=(const Daemon&) = delete;
    ~Daemon();

    bool running();
    const std::string& mount() const { return mount_; }
    const std::string& directory() const { return directory_; }
    pid_t pid() const { return pid_; }
    // The process that serves requests: pid(), or its child if pid() is a holder. -1 if there is
    // none.
    pid_t server() const;
    std::string log() const;

    // Asks the daemon to end. Returns its wait status, or -1 if it had to be killed.
    int stop();
    // Kills it by SIGKILL and waits for its end. Its mount stays.
    void kill();
    // Restarts it after stop() or kill() with the same state; waits until it answers.
    void start();
    // Like start(), without waiting.
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
    // Kills the daemon by SIGKILL and waits for its end; TearDown then does not check its exit.
    void kill_daemon();
    // Kills the serving process of a holder and waits until its successor answers.
    void replace_server();
    // A value of kern/ipc/version.
    std::string version(std::string_view key);
    // "jobs/queue" -> its path below the mount.
    std::string at(std::string_view path) const {
        return daemon_->mount() + "/" + std::string(path);
    }
    // Creates a channel with exactly this mode and these settings, one a line.
    void make_channel(std::string_view name, std::string_view settings = {}, mode_t mode = 0777);
    // Writes `lines` to the channel's ctl at once; returns 0 or the errno.
    int ctl(std::string_view name, std::string_view lines);
    // The value of `key` in the channel's status.
    std::string status(std::string_view name, std::string_view key);
    // Waits until the durable store holds `count` messages: delivered ones are erased a moment
    // later.
    bool wait_for_kept(long count);
    long depth(std::string_view name) { return number(status(name, "depth")); }
    long waiting(std::string_view name) { return number(status(name, "waiting")); }
    bool wait_for_waiting(std::string_view name, long count);
    // Takes all queued messages.
    std::vector<std::string> drain(std::string_view name);
    // Sends one message through `file` of the channel with a blocking open. Returns 0 or an errno.
    int send(std::string_view name, std::string_view message, std::string_view file = "queue");

    static long number(const std::string& text);

private:
    std::unique_ptr<Daemon> daemon_;
    bool killed_ = false;
};

}  // namespace ipcfs::test
