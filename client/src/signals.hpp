// Ctrl-C, SIGTERM and the end of children, for a command that is at work on several things: blocked, and
// obeyed only while it waits. One thread, one object a process.
#pragma once

#include <csignal>
#include <cstdint>
#include <poll.h>
#include <vector>

namespace ipcfs::client {

class Signals {
public:
    Signals();
    // ppoll(2), which a signal ends.
    void wait_for(std::vector<pollfd>& files, std::int64_t time) const;

    // How often it was told to end, and by which signal last.
    static int times_told();
    static int told();
    // Ends the process as the signal does.
    [[noreturn]] static void obey(int signal);

private:
    sigset_t while_waiting_{};
};

}  // namespace ipcfs::client
