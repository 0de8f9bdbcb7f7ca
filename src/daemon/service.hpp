// Running as a service: going to the background, and notifying systemd (sd_notify(3), implemented
// directly: it is one datagram). Main thread.
#pragma once

#include <string>
#include <string_view>

#include <base/fd.hpp>
#include <base/result.hpp>

namespace ipcfs::daemon {

// Goes to the background. The parent waits until the child is ready or has failed and then exits
// with its code, so that `ipcfsd && ls /ipc` works. Standard error stays open until then, so that
// errors at start are seen.
class Background {
public:
    // Forks; returns in the child only. Call before starting threads. If the child dies silently,
    // the parent reports that and exits with 1.
    static Result<Background> enter();

    // The daemon is ready: the parent exits with 0; standard input, output and error become
    // /dev/null.
    void ready();
    // The daemon has failed: the parent exits with `code`. The caller must exit itself.
    void failed(int code) noexcept;

private:
    explicit Background(Fd pipe) : pipe_(std::move(pipe)) {}
    Fd pipe_;
};

// Sends states to the service manager that NOTIFY_SOCKET names; without one it does nothing.
class ServiceManager {
public:
    // Takes NOTIFY_SOCKET from the environment and unsets it.
    ServiceManager();
    // Sends through the holder, since the service manager accepts messages only from the main
    // process.
    explicit ServiceManager(Fd line) : line_(std::move(line)) {}

    void ready(std::string_view status);     // READY=1
    void reloading();                        // RELOADING=1; ready() ends it
    void stopping(std::string_view status);  // STOPPING=1
    void status(std::string_view status);    // STATUS=
    void relay(std::string_view state);      // forwards a message of the daemon
    int line() const noexcept { return line_.get(); }

private:
    void send(std::string_view state) noexcept;
    std::string socket_;
    Fd line_;  // socket to the holder
};

}  // namespace ipcfs::daemon
