// One mutex an executor. Of the idle threads one, the leader, waits for the next point in time at which something may
// start; the others wait to be woken, so that a timer wakes one thread and not all. While no thread is idle, a
// timer of the daemon's looks whether another one has to be started.
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <list>
#include <map>
#include <mutex>
#include <system_error>
#include <utility>

#include <base/executor.hpp>
#include <base/thread.hpp>

namespace ipcfs {
namespace {

constexpr Nanos kStartAfter = 5 * kMillisecond;  // that a job waits for the threads that there are

}  // namespace

struct Executor::State final : Timed, std::enable_shared_from_this<Executor::State> {
    struct Job {
        std::function<void()> work;
        Nanos since = 0;  // it waits
    };
    struct User {
        std::deque<Job> waiting;
        unsigned running = 0;
    };
    struct Running {
        uid_t user;
        Nanos since;
    };

    State(const char* threads_name, Limits with) : name(threads_name), limits(with) {}

    const char* const name;
    const Limits limits;
    SystemClock clock;
    mutable std::mutex mutex;
    std::condition_variable changed;  // for idle threads
    std::condition_variable ended;    // a thread, while the executor ends
    std::map<uid_t, User> users;      // that have a job
    std::list<uid_t> turns;           // users with waiting jobs; the next one is first
    std::multimap<Nanos, std::pair<uid_t, Job>> later;  // by when they are due
    std::list<Running> running;                         // the longest first
    unsigned threads = 0;
    unsigned idle = 0;
    Nanos leader_until = kNever;
    Nanos armed = kNever;  // the timer, for that time
    bool ends = false;

    bool is_stuck(const Running& job, Nanos now) const {
        return now - job.since >= limits.patience;
    }
    unsigned count_stuck(Nanos now, const uid_t* of) const {
        unsigned count = 0;
        for (const Running& job : running) {
            if (!is_stuck(job, now)) break;
            if (!of || job.user == *of) ++count;
        }
        return count;
    }
    void enqueue(uid_t uid, Job job) {
        auto& waiting = users[uid].waiting;
        if (waiting.empty()) turns.push_back(uid);
        waiting.push_back(std::move(job));
    }
    void enqueue_due(Nanos now) {
        while (!later.empty() && (ends || later.begin()->first <= now)) {
            auto [uid, job] = std::move(later.begin()->second);
            later.erase(later.begin());
            enqueue(uid, std::move(job));
        }
    }
    // The user whose turn it is: the first with a waiting job that has not too many running ones.
    std::list<uid_t>::iterator next() {
        return std::find_if(turns.begin(), turns.end(),
                            [this](uid_t uid) { return users[uid].running < limits.user_jobs; });
    }
    bool may_start(Nanos now) const {
        return running.size() - count_stuck(now, nullptr) < limits.concurrency;
    }
    // When the next running job will be stuck.
    Nanos next_stuck(Nanos now) const {
        if (limits.patience == kNever) return kNever;
        for (const Running& job : running)
            if (!is_stuck(job, now)) return job.since + limits.patience;
        return kNever;
    }
    // When a job may start though nothing is added or ends; kNever: never.
    Nanos next_change(Nanos now) const {
        const Nanos due = later.empty() ? kNever : later.begin()->first;
        return turns.empty() ? due : std::min(due, next_stuck(now));
    }
    // When another thread has to be started if none of those that there are takes what waits; kNever: never.
    Nanos next_start(Nanos now) const {
        if (idle > 0 || threads >= limits.threads) return kNever;
        Nanos since = later.empty() ? kNever : later.begin()->first;
        for (const uid_t uid : turns) since = std::min(since, users.at(uid).waiting.front().since);
        if (since == kNever) return kNever;
        return std::max(since + kStartAfter, may_start(now) ? 0 : next_stuck(now));
    }
    // Makes a thread look for jobs.
    void wake() {
        if (idle > 0) {
            changed.notify_one();
        } else if (threads < limits.threads && (threads == 0 || ends || !limits.timers)) {
            start_thread();
        }
    }
    // Unlocks, and sets the timer if it is to start a thread, not before `earliest`.
    void unlock(std::unique_lock<std::mutex>& hold, Nanos earliest = 0) {
        Nanos when = kNever;
        if (limits.timers && !ends) when = std::max(next_start(clock.monotonic()), earliest);
        const bool is_sooner = when < armed;
        if (is_sooner) armed = when;
        hold.unlock();
        if (is_sooner) limits.timers->arm(weak_from_this(), when);
    }
    void on_time(Nanos now) noexcept override {
        std::unique_lock hold(mutex);
        if (now < armed) return;
        armed = kNever;
        const bool is_late = !ends && next_start(now) <= now;
        if (is_late) start_thread();
        unlock(hold, is_late ? now + kStartAfter : 0);
    }

    void start_thread();
    void run() noexcept;
    void run_next(std::list<uid_t>::iterator turn, std::unique_lock<std::mutex>& hold);
    void wait(Nanos now, std::unique_lock<std::mutex>& hold);
};

// Without a thread to be had the executor goes on with those that it has; the job waits if there is none.
void Executor::State::start_thread() {
    try {
        ipcfs::start_thread(name, [self = shared_from_this()] { self->run(); }).detach();
        ++threads;
    } catch (const std::system_error&) {
    }
}

void Executor::State::run_next(std::list<uid_t>::iterator turn,
                               std::unique_lock<std::mutex>& hold) {
    const uid_t uid = *turn;
    User& user = users[uid];
    Job job = std::move(user.waiting.front());
    user.waiting.pop_front();
    turns.erase(turn);
    if (!user.waiting.empty()) turns.push_back(uid);  // behind the others
    ++user.running;
    const auto me = running.insert(running.end(), {uid, clock.monotonic()});
    if (!turns.empty() || !later.empty()) wake();
    unlock(hold);
    job.work();
    job.work = nullptr;  // what it owns is destroyed here, too
    hold.lock();
    running.erase(me);
    if (--user.running == 0 && user.waiting.empty()) users.erase(uid);
}

void Executor::State::wait(Nanos now, std::unique_lock<std::mutex>& hold) {
    const Nanos until = next_change(now);
    ++idle;
    if (until >= leader_until) {
        changed.wait(hold);
    } else {
        leader_until = until;
        changed.wait_for(hold, std::chrono::nanoseconds(until - now));
        leader_until = kNever;
    }
    --idle;
}

void Executor::State::run() noexcept {
    std::unique_lock hold(mutex);
    for (;;) {
        const Nanos now = clock.monotonic();
        enqueue_due(now);
        const auto turn = next();
        // At the end, whoever runs a job of a user goes on with that user's others.
        if (ends && turn == turns.end()) break;
        if (turn != turns.end() && may_start(now)) {
            run_next(turn, hold);
        } else {
            wait(now, hold);
        }
    }
    --threads;
    changed.notify_all();
    ended.notify_all();
}

Executor::Executor(const char* name, Limits limits)
    : state_(std::make_shared<State>(name, limits)) {}

Executor::~Executor() {
    finish();
}

void Executor::add(uid_t user, std::function<void()> job, Nanos due) {
    std::unique_lock hold(state_->mutex);
    if (state_->ends) return;
    const Nanos now = state_->clock.monotonic();
    if (due > now) {
        state_->later.emplace(due, std::pair(user, State::Job{std::move(job), due}));
    } else {
        state_->enqueue(user, {std::move(job), now});
    }
    state_->wake();
    state_->unlock(hold);
}

void Executor::finish() noexcept {
    end(false);
}

void Executor::drop() noexcept {
    end(true);
}

void Executor::end(bool dropping) noexcept {
    std::deque<State::Job> dropped;
    std::unique_lock hold(state_->mutex);
    state_->ends = true;
    if (dropping) {
        for (auto& [due, job] : state_->later) dropped.push_back(std::move(job.second));
        state_->later.clear();
        state_->turns.clear();
        for (auto& [uid, user] : state_->users) {
            std::move(user.waiting.begin(), user.waiting.end(), std::back_inserter(dropped));
            user.waiting.clear();
        }
        hold.unlock();
        dropped.clear();
        hold.lock();
    } else if (!state_->turns.empty() || !state_->later.empty()) {
        state_->wake();
    }
    state_->changed.notify_all();
    while (state_->threads > 0) {
        if (!state_->limits.may_abandon) {
            state_->ended.wait(hold);
        } else if (state_->count_stuck(state_->clock.monotonic(), nullptr) < state_->threads) {
            state_->ended.wait_for(hold, std::chrono::milliseconds(50));
        } else {
            break;
        }
    }
}

bool Executor::is_overloaded(uid_t user) const {
    std::scoped_lock hold(state_->mutex);
    const Nanos now = state_->clock.monotonic();
    if (state_->count_stuck(now, nullptr) >= state_->limits.threads) return true;
    const auto found = state_->users.find(user);
    if (found == state_->users.end()) return false;
    const auto& waiting = found->second.waiting;
    if (waiting.size() > kTooManyWaiting) return true;
    if (waiting.size() > kManyWaiting && now - waiting.front().since >= state_->limits.patience)
        return true;
    return state_->count_stuck(now, &user) >= state_->limits.user_jobs;
}

bool Executor::is_busy(uid_t user) const {
    std::scoped_lock hold(state_->mutex);
    const auto found = state_->users.find(user);
    return found != state_->users.end() && found->second.running > 0;
}

std::size_t Executor::stuck() const {
    std::scoped_lock hold(state_->mutex);
    return state_->count_stuck(state_->clock.monotonic(), nullptr);
}

}  // namespace ipcfs
