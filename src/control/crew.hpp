// Threads for what a client can make hang for ever: closing a descriptor of a file system that never
// answers (FLUSH), a socket that lingers, or sealing a file whose lock somebody holds. Jobs run one
// after the other; when one takes over a second it counts as stuck and another thread takes over, at
// most kMaxThreads in all and kMaxStuck stuck ones a user, whose other jobs then wait. Any thread may
// add.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <sys/types.h>

#include <base/clock.hpp>

namespace ipcfs::control {

class Crew {
public:
    static constexpr unsigned kMaxThreads = 8;
    static constexpr unsigned kMaxStuck = 2;
    // Jobs of one user that may wait before it is overrun: for over a second, and at all.
    static constexpr std::size_t kMaxWaiting = 256;
    static constexpr std::size_t kMostWaiting = 4096;
    static constexpr Nanos kPatience = kSecond;

    Crew();
    // Runs what can be run; a thread that is stuck is left behind, and ends with the process.
    ~Crew();
    Crew(const Crew&) = delete;
    Crew& operator=(const Crew&) = delete;

    // `job` owns what it needs: it may run after everything else is gone.
    void add(uid_t uid, std::function<void()> job);
    // Whether that user has too many jobs that are stuck or wait: give it no new ones.
    bool overrun(uid_t uid) const;

    std::size_t stuck() const;
    std::size_t waiting() const;

private:
    struct State;
    static void run(const std::shared_ptr<State>& state) noexcept;
    static void start_thread(const std::shared_ptr<State>& state);

    std::shared_ptr<State> state_;
};

}  // namespace ipcfs::control
