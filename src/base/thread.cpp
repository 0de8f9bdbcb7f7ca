#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>
#include <utility>

#include <base/thread.hpp>

namespace ipcfs {
namespace {

// Within its scope the calling thread, and what it starts, takes no signal but those of its own faults.
class SignalsBlocked {
public:
    SignalsBlocked() {
        sigset_t others;
        ::sigfillset(&others);
        for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP})
            ::sigdelset(&others, fault);
        ::pthread_sigmask(SIG_SETMASK, &others, &before_);
    }
    SignalsBlocked(const SignalsBlocked&) = delete;
    SignalsBlocked& operator=(const SignalsBlocked&) = delete;
    ~SignalsBlocked() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

private:
    sigset_t before_{};
};

}  // namespace

std::thread start_thread(const std::string& name, std::function<void()> run) {
    const SignalsBlocked blocked;
    return std::thread([name = name.substr(0, 15), run = std::move(run)] {
        ::pthread_setname_np(::pthread_self(), name.c_str());
        cpu_set_t cpus;
        if (::sched_getaffinity(::getpid(), sizeof cpus, &cpus) == 0)
            ::pthread_setaffinity_np(::pthread_self(), sizeof cpus, &cpus);
        run();
    });
}

}  // namespace ipcfs
