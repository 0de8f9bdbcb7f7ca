// SIGINT, SIGTERM and SIGCHLD come only within wait_for(). One thread.
#include <cerrno>
#include <unistd.h>

#include <failure.hpp>
#include <signals.hpp>
#include <text.hpp>

namespace ipcfs::client {
namespace {

// Written by the handlers, which run only within wait_for().
volatile std::sig_atomic_t g_times_told = 0;
volatile std::sig_atomic_t g_told = 0;

extern "C" void be_told(int signal) {
    g_told = signal;
    g_times_told = g_times_told + 1;
}
extern "C" void wake(int) {}

void set_handler(int signal, void (*handler)(int)) {
    struct sigaction action {};
    action.sa_handler = handler;
    ::sigaction(signal, &action, nullptr);
}

}  // namespace

Signals::Signals() {
    sigset_t ours;
    ::sigemptyset(&ours);
    for (int signal : {SIGINT, SIGTERM, SIGCHLD}) ::sigaddset(&ours, signal);
    ::sigprocmask(SIG_BLOCK, &ours, &while_waiting_);
    for (int signal : {SIGINT, SIGTERM, SIGCHLD}) ::sigdelset(&while_waiting_, signal);
    set_handler(SIGCHLD, wake);
    for (int signal : {SIGINT, SIGTERM}) {
        struct sigaction before {};
        ::sigaction(signal, nullptr, &before);
        if (before.sa_handler != SIG_IGN) set_handler(signal, be_told);
    }
}

void Signals::wait_for(std::vector<pollfd>& files, std::int64_t time) const {
    timespec limit{time / kSecond, time % kSecond};
    if (::ppoll(files.data(), files.size(), &limit, &while_waiting_) < 0 && errno != EINTR) {
        fail_errno("poll", errno);
    }
}

int Signals::times_told() {
    return g_times_told;
}

int Signals::told() {
    return g_told;
}

void Signals::obey(int signal) {
    set_handler(signal, SIG_DFL);
    sigset_t just;
    ::sigemptyset(&just);
    ::sigaddset(&just, signal);
    ::raise(signal);
    ::sigprocmask(SIG_UNBLOCK, &just, nullptr);
    ::_exit(128 + signal);
}

}  // namespace ipcfs::client
