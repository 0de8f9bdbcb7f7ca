#include <pthread.h>
#include <signal.h>

#include <payload/worker.hpp>

namespace ipcfs::payload {

void Worker::finish() noexcept {
    {
        std::scoped_lock hold(mutex_);
        ends_ = true;
    }
    more_.notify_one();
    if (thread_.joinable()) thread_.join();
}

// With the lock held.
void Worker::start() {
    // The main thread handles all signals.
    sigset_t all, before;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before);
    thread_ = std::thread([this] { run(); });
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    ::pthread_setname_np(thread_.native_handle(), name_);
}

void Worker::add(std::function<void()> job) {
    {
        std::scoped_lock hold(mutex_);
        jobs_.push_back(std::move(job));
        if (!thread_.joinable() && !ends_) start();
    }
    more_.notify_one();
}

std::size_t Worker::waiting() const {
    std::scoped_lock hold(mutex_);
    return jobs_.size();
}

void Worker::run() noexcept {
    for (;;) {
        std::function<void()> job;
        {
            std::unique_lock hold(mutex_);
            more_.wait(hold, [this] { return ends_ || !jobs_.empty(); });
            if (jobs_.empty()) return;
            job = std::move(jobs_.front());
            jobs_.pop_front();
        }
        job();
    }
}

}  // namespace ipcfs::payload
