// The command that `work` runs for a message. One thread; signals are blocked but while it waits.
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

// A program that was started, in a process group of its own, which dies with this process.
class Child {
public:
    // 0 or the errno why it could not be executed. `input` becomes its standard input.
    int start(const std::vector<std::string>& command, const std::vector<std::string>& environment,
              int input);
    bool running() const { return pid_ > 0; }
    // Its wait status when it has ended, once.
    std::optional<int> reap();
    // SIGTERM to it and its children, and when `kill_at()` has come again, SIGKILL.
    void stop();
    void stop_for_good();
    // When it is to be killed, ns of now(), 0: it is not being stopped.
    std::int64_t kill_at() const { return kill_at_; }

private:
    pid_t pid_ = 0;
    std::int64_t kill_at_ = 0;
};

// The variables that tell the command about its message, and all that this process has.
std::vector<std::string> environment_for(const Tree& tree, const Channel& channel,
                                         const FrameView& frame);

// "exit code 3", "killed by signal 9 (Killed)"
std::string describe_status(int status);

}  // namespace ipcfs::client
