// The command that `work` runs for a message. One thread; signals are blocked except while it
// waits.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <sys/types.h>
#include <vector>

#include <io.hpp>
#include <tree.hpp>

#include <ipcfs/frame.hpp>

namespace ipcfs::client {

// A started program in its own process group; it dies with this process.
class Child {
public:
    // Starts the command with `input` as its standard input. Returns 0, or the errno of a failed
    // exec.
    int start(const std::vector<std::string>& command, const std::vector<std::string>& environment,
              int input);
    bool running() const { return pid_ > 0; }
    // The wait status, once, after the command has ended.
    std::optional<int> reap();
    // stop() sends SIGTERM to the process group; kill(), due at `kill_at()`, sends SIGKILL.
    void stop();
    void kill();
    // When to call kill(), in ns of now(); 0 if it is not being stopped.
    std::int64_t kill_at() const { return kill_at_; }

private:
    pid_t pid_ = 0;
    std::int64_t kill_at_ = 0;
};

// This process's environment, plus variables that describe the message.
std::vector<std::string> environment_for(const Tree& tree, const Channel& channel,
                                         const FrameView& frame);

// "exit code 3", "killed by signal 9 (Killed)"
std::string describe_status(int status);

}  // namespace ipcfs::client
