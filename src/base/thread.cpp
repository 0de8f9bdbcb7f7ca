#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>
#include <utility>

#include <base/thread.hpp>

namespace ipcfs {
namespace {

class SignalsBlocked {
public:
    SignalsBlocked() {
        sigset_t all;
        ::sigfillset(&all);
        ::pthread_sigmask(SIG_SETMASK, &all, &before_);
    }
    SignalsBlocked(const SignalsBlocked&) = delete;
    SignalsBlocked& operator=(const SignalsBlocked&) = delete;
    ~SignalsBlocked() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

private:
    sigset_t before_{};
};

}  // namespace

std::thread start_thread(const char* name, std::function<void()> run) {
    const SignalsBlocked blocked;
    std::thread thread(std::move(run));
    ::pthread_setname_np(thread.native_handle(), name);
    cpu_set_t cpus;
    if (::sched_getaffinity(::getpid(), sizeof cpus, &cpus) == 0)
        ::pthread_setaffinity_np(thread.native_handle(), sizeof cpus, &cpus);
    return thread;
}

}  // namespace ipcfs
