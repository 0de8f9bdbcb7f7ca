// One thread works and one stands by: it sleeps until the worker's job has run for kStuckAfter,
// then takes over and starts the next stand-by. One mutex guards all state, which the threads share
// and may keep beyond the crew's life.
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <list>
#include <map>
#include <mutex>
#include <pthread.h>
#include <signal.h>
#include <system_error>
#include <thread>

#include <control/crew.hpp>

namespace ipcfs::control {

using Time = std::chrono::steady_clock;

struct Crew::State {
    struct Job {
        uid_t uid;
        Time::time_point since;  // queued
        std::function<void()> work;
    };
    struct Running {
        uid_t uid;
        Time::time_point since;
    };

    mutable std::mutex mutex;
    std::condition_variable changed;
    std::deque<Job> jobs;
    std::map<uid_t, std::size_t> waiting;  // queued jobs by user
    std::list<Running> running;
    unsigned threads = 0;
    bool ends = false;

    // Counts stuck jobs of one user, or of all if `uid` is null.
    unsigned stuck(const uid_t* uid, Time::time_point now) const {
        unsigned count = 0;
        for (const Running& each : running) {
            if (uid && each.uid != *uid) continue;
            if (now - each.since >= std::chrono::nanoseconds(kStuckAfter)) ++count;
        }
        return count;
    }
    // The first job of a user with fewer than kMaxStuck stuck jobs.
    std::deque<Job>::iterator next(Time::time_point now) {
        for (auto job = jobs.begin(); job != jobs.end(); ++job) {
            if (stuck(&job->uid, now) < kMaxStuck) return job;
        }
        return jobs.end();
    }
};

Crew::Crew() : state_(std::make_shared<State>()) {
    std::scoped_lock hold(state_->mutex);
    start_thread(state_);
}

Crew::~Crew() {
    std::unique_lock hold(state_->mutex);
    state_->ends = true;
    state_->changed.notify_all();
    // The threads are detached; wait for those that are not stuck.
    for (;;) {
        const auto now = Time::now();
        if (state_->threads == state_->stuck(nullptr, now)) return;
        if (state_->running.empty()) {
            state_->changed.wait(hold);
        } else {
            state_->changed.wait_until(hold, now + std::chrono::milliseconds(50));
        }
    }
}

// With the lock held. If no thread can be created, the crew goes on with those it has.
void Crew::start_thread(const std::shared_ptr<State>& state) {
    sigset_t all, before;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
        std::thread thread([state] { run(state); });
        ::pthread_setname_np(thread.native_handle(), "ipcfs-crew");
        thread.detach();
        ++state->threads;
    } catch (const std::system_error&) {
    }
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void Crew::run(const std::shared_ptr<State>& state) noexcept {
    std::unique_lock hold(state->mutex);
    for (;;) {
        const auto now = Time::now();
        const std::size_t busy = state->running.size() - state->stuck(nullptr, now);
        auto next = state->next(now);
        if (state->ends && next == state->jobs.end()) break;
        if (next == state->jobs.end()) {
            state->changed.wait(hold);
            continue;
        }
        if (busy > 0) {
            // Sleep until the running job counts as stuck.
            auto oldest = now;
            for (const auto& each : state->running) {
                const auto age = now - each.since;
                if (age < std::chrono::nanoseconds(kStuckAfter) && each.since < oldest)
                    oldest = each.since;
            }
            state->changed.wait_until(hold, oldest + std::chrono::nanoseconds(kStuckAfter));
            continue;
        }
        State::Job job = std::move(*next);
        state->jobs.erase(next);
        if (--state->waiting[job.uid] == 0) state->waiting.erase(job.uid);
        state->running.push_front({job.uid, Time::now()});
        const auto me = state->running.begin();
        if (state->threads == state->running.size() && state->threads < kMaxThreads) {
            start_thread(state);
        }
        hold.unlock();
        job.work();
        job.work = nullptr;  // closes the descriptors it owns, on this thread
        hold.lock();
        state->running.erase(me);
        state->changed.notify_all();
    }
    --state->threads;
    state->changed.notify_all();
}

void Crew::add(uid_t uid, std::function<void()> job) {
    std::scoped_lock hold(state_->mutex);
    state_->jobs.push_back({uid, Time::now(), std::move(job)});
    ++state_->waiting[uid];
    state_->changed.notify_one();
}

bool Crew::is_overloaded(uid_t uid) const {
    std::scoped_lock hold(state_->mutex);
    const auto now = Time::now();
    auto waiting = state_->waiting.find(uid);
    if (waiting != state_->waiting.end() && waiting->second > kMaxDelayed) {
        // A long queue alone may just mean a busy machine.
        if (waiting->second > kMaxQueued) return true;
        const auto first = std::find_if(state_->jobs.begin(), state_->jobs.end(),
                                        [uid](const State::Job& job) { return job.uid == uid; });
        if (now - first->since >= std::chrono::nanoseconds(kStuckAfter)) return true;
    }
    return state_->stuck(&uid, now) >= kMaxStuck || state_->stuck(nullptr, now) >= kMaxThreads;
}

std::size_t Crew::stuck() const {
    std::scoped_lock hold(state_->mutex);
    return state_->stuck(nullptr, Time::now());
}

std::size_t Crew::waiting() const {
    std::scoped_lock hold(state_->mutex);
    return state_->jobs.size();
}

}  // namespace ipcfs::control
