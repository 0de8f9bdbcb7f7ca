// Handles Ctrl-C, SIGTERM and the end of children for a command with several tasks. Signals are
// blocked outside wait_for(). One thread, one object a process.
#pragma once

#include <cerrno>
#include <csignal>
#include <cstdint>
#include <poll.h>
#include <vector>

#include <failure.hpp>
#include <text.hpp>

namespace ipcfs::client {

class Signals {
public:
    Signals() {
        sigset_t ours;
        ::sigemptyset(&ours);
        for (int signal : {SIGINT, SIGTERM, SIGCHLD}) ::sigaddset(&ours, signal);
        ::sigprocmask(SIG_BLOCK, &ours, &while_waiting_);
        for (int signal : {SIGINT, SIGTERM, SIGCHLD}) ::sigdelset(&while_waiting_, signal);
        handle(SIGCHLD, [](int) {});
        for (int signal : {SIGINT, SIGTERM}) {
            struct sigaction before {};
            ::sigaction(signal, nullptr, &before);
            if (before.sa_handler != SIG_IGN) handle(signal, on_stop);
        }
    }

    // Waits with ppoll(2) for at most `time` ns; a signal ends the wait.
    void wait_for(std::vector<pollfd>& files, std::int64_t time) const {
        timespec limit{time / kSecond, time % kSecond};
        if (::ppoll(files.data(), files.size(), &limit, &while_waiting_) < 0 && errno != EINTR) {
            fail_errno("poll", errno);
        }
    }

    // How many stop signals came, and which came last.
    static int stop_count() { return stop_count_; }
    static int last_stop_signal() { return last_stop_signal_; }

private:
    static void handle(int signal, void (*handler)(int)) {
        struct sigaction action {};
        action.sa_handler = handler;
        ::sigaction(signal, &action, nullptr);
    }
    static void on_stop(int signal) {
        last_stop_signal_ = signal;
        stop_count_ = stop_count_ + 1;
    }

    inline static volatile std::sig_atomic_t stop_count_ = 0;
    inline static volatile std::sig_atomic_t last_stop_signal_ = 0;
    sigset_t while_waiting_{};
};

}  // namespace ipcfs::client
