// The daemon as a service: going to the background, and talking to systemd (sd_notify(3), spoken
// directly: it is one datagram). Main thread.
#pragma once

#include <string>
#include <string_view>

#include <base/fd.hpp>
#include <base/result.hpp>

namespace ipcfs::daemon {

// Goes to the background, and lets the caller's `ipcfsd && ls /ipc` mean what it says: the parent
// stays until the child is ready or has failed, and ends with its exit code. Standard error stays
// connected until then, so errors of the start are seen.
class Background {
public:
    // Forks; returns in the child only. Call before the first thread. A child that dies without a
    // word makes the parent say so and exit 1.
    static Result<Background> enter();

    // Ready: releases the parent with exit code 0 and lets go of the terminal (standard input,
    // output and error become /dev/null).
    void ready();
    // Failed: the parent will exit with `code`. The caller exits itself.
    void failed(int code) noexcept;

private:
    explicit Background(Fd pipe) : pipe_(std::move(pipe)) {}
    Fd pipe_;
};

// Sends state to the service manager that NOTIFY_SOCKET names; without one it does nothing.
class ServiceManager {
public:
    // Takes NOTIFY_SOCKET from the environment, and removes it there.
    ServiceManager();
    // By way of the holder: the service manager listens to the main process alone.
    explicit ServiceManager(Fd line) : line_(std::move(line)) {}

    void ready(std::string_view status);     // READY=1
    void reloading();                        // RELOADING=1; ready() ends it
    void stopping(std::string_view status);  // STOPPING=1
    void status(std::string_view status);    // STATUS=
    void relay(std::string_view state);      // as a daemon's line brought it
    int line() const noexcept { return line_.get(); }

private:
    void send(std::string_view state) noexcept;
    std::string socket_;
    Fd line_;  // to the holder
};

}  // namespace ipcfs::daemon
