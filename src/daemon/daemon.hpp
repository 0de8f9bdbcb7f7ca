// Everything that is built and wired when the mount is up: the engine, the tree, the doors.
// main.cpp decides when it starts, reloads and ends; this decides how.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <base/log.hpp>
#include <base/result.hpp>
#include <daemon/config.hpp>
#include <daemon/holder.hpp>
#include <daemon/loop.hpp>

namespace ipcfs::daemon {

// How the mount is made and served.
fuse::SessionConfig session_config(const Config& config);

class Daemon {
public:
    // Builds all and mounts: on success requests are served already. The mount point exists, is
    // free, and its lock is held. config.mount is canonical. Logger and loop outlive the daemon.
    // Main thread, before the loop runs; starts threads.
    // With a succession, the mount is there; what a killed daemon left in it is taken over.
    static Result<std::unique_ptr<Daemon>> create(const Config& config, Logger& log, Loop& loop,
                                                  const Succession& succession = {});

    // After stop(). On the main thread.
    ~Daemon();
    Daemon(const Daemon&) = delete;
    Daemon& operator=(const Daemon&) = delete;

    // Lines for the log at start: libfuse's version, the transport and why it is this one, what is
    // off for lack of privilege, or of a newer kernel or libfuse.
    std::vector<std::string> report() const;

    // `ended` is called once, on any thread, when the mount ends other than by stop(): `plain` when
    // somebody unmounted it, otherwise `why` says what happened. When it has ended already: at
    // once.
    void on_end(std::function<void(bool plain, const std::string& why)> ended);

    // Takes over log.*, limits.* and channel.* of `config`; the rest is as it was given to
    // create(). (The log itself has been reconfigured by main.) On the loop.
    Result<void> reload(const Config& config);

    // Ends the waiting operations, unmounts, joins the threads. May block: main calls it, once, on
    // a thread of its own while the loop goes on.
    void stop();

    // What keeps stop() from returning, for people. Any thread.
    std::vector<std::string> holding() const;

private:
    Daemon();
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace ipcfs::daemon
