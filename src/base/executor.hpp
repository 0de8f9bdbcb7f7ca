// Threads for what may take long or hang, so that no thread that serves others does it: copying memory, closing a
// descriptor of a file system that never answers, a lock that a client holds.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <sys/types.h>

#include <base/clock.hpp>
#include <base/timer_queue.hpp>

namespace ipcfs {

// One lane of jobs, with threads of its own that are started as they are needed: the first for the first job, another
// one when a job has waited for some milliseconds. Jobs of one user start in the order in which they were added; users
// take turns. A job that runs for longer than `patience` is stuck: it keeps its thread, and another thread takes over.
// All functions may be called from any thread, but a job must not end its own executor.
class Executor {
public:
    struct Limits {
        unsigned threads = 1;      // at most, stuck ones included
        unsigned concurrency = 1;  // jobs at a time that are not stuck
        unsigned user_jobs = 1;    // jobs of one user at a time, stuck ones included
        Nanos patience = kNever;
        bool may_abandon = false;  // the end does not wait for stuck jobs: they own all they use
        // Tells when a job has waited; outlives the executor. Null: another thread starts at once.
        TimerQueue* timers = nullptr;
    };
    // Waiting jobs of one user from which on it is overloaded: when the first has waited for over `patience`, and in
    // any case. Many may only be many on a busy machine.
    static constexpr std::size_t kManyWaiting = 256;
    static constexpr std::size_t kTooManyWaiting = 4096;

    // `name`: of its threads, at most 15 bytes.
    Executor(const char* name, Limits limits);
    ~Executor();  // finish()
    Executor(const Executor&) = delete;
    Executor& operator=(const Executor&) = delete;

    // `due`: not before that time (monotonic, nanoseconds); a job with a due time is behind what its user has
    // waiting when that time comes. After finish() or drop() the job is destroyed without being run.
    void add(uid_t user, std::function<void()> job, Nanos due = 0);
    // Runs all waiting jobs, those that are not due included, and ends the threads. Once.
    void finish() noexcept;
    // The same, but destroys the waiting jobs.
    void drop() noexcept;

    // Whether that user has so many stuck or waiting jobs that it should be given no new ones.
    bool is_overloaded(uid_t user) const;
    // Whether a job of that user runs.
    bool is_busy(uid_t user) const;
    std::size_t stuck() const;

private:
    struct State;
    void end(bool dropping) noexcept;

    std::shared_ptr<State> state_;  // shared with the threads, which may outlive the executor
};

}  // namespace ipcfs
