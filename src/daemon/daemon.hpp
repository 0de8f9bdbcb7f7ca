// The mounted daemon: the engine, the tree and the doors. main.cpp decides when it starts, reloads
// and ends; this class decides how.
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

// The session settings that `config` asks for.
fuse::SessionConfig session_config(const Config& config);

class Daemon {
public:
    // Builds everything and mounts; on success, requests are being served. Preconditions: the mount
    // point exists and is free, its lock is held, config.mount is canonical. `log` and `loop` must
    // outlive the daemon. Main thread, before the loop runs; starts threads. With a succession, the
    // mount exists already, and the daemon takes over what its killed predecessor left.
    // Calls `on_end` once, on any thread, when the mount ends other than by stop(). `plain` means that
    // it was unmounted; otherwise `why` gives the reason.
    using OnEnd = std::function<void(bool plain, const std::string& why)>;
    static Result<std::unique_ptr<Daemon>> create(const Config& config, Logger& log, Loop& loop,
                                                  const Succession& succession, OnEnd on_end);

    // Call after stop(), on the main thread.
    ~Daemon();
    Daemon(const Daemon&) = delete;
    Daemon& operator=(const Daemon&) = delete;

    // Lines for the log at start: libfuse's version, the transport and why it was chosen, and which
    // features are off for lack of privilege or of a newer kernel or libfuse.
    std::vector<std::string> report() const;

    // Takes over the configuration, of which only limits.*, payload.reserve, channel.* and log.*, which
    // main has applied to the log, may have changed. On the loop.
    void reload(const Config& config);

    // Ends waiting operations, unmounts and joins the threads. May block, so main calls it, once,
    // on its own thread while the loop goes on.
    void stop();

    // What stop() is waiting for, as text for people. Any thread.
    std::vector<std::string> holding() const;

private:
    Daemon();
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace ipcfs::daemon
