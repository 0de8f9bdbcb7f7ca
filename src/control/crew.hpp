// Threads for system calls that a client can block for ever: closing a descriptor of a file system
// that never answers (FLUSH) or of a lingering socket, sealing a file whose lock is held. Jobs run
// one after the other. A job that runs for over a second counts as stuck, and another thread takes
// over. There are at most kMaxThreads threads, and kMaxStuck stuck jobs a user; that user's other
// jobs then wait. Any thread may add.
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
    // How many jobs a user may queue before it counts as overloaded: kMaxDelayed if the oldest has
    // waited for over a second, kMaxQueued in any case.
    static constexpr std::size_t kMaxDelayed = 256;
    static constexpr std::size_t kMaxQueued = 4096;
    static constexpr Nanos kStuckAfter = kSecond;

    Crew();
    // Runs the remaining jobs. Stuck threads are abandoned and end with the process.
    ~Crew();
    Crew(const Crew&) = delete;
    Crew& operator=(const Crew&) = delete;

    // `job` must own all it uses: it may run after everything else is destroyed.
    void add(uid_t uid, std::function<void()> job);
    // Whether the user has too many queued or stuck jobs to get new ones.
    bool is_overloaded(uid_t uid) const;

    std::size_t stuck() const;
    std::size_t waiting() const;

private:
    struct State;
    static void run(const std::shared_ptr<State>& state) noexcept;
    static void start_thread(const std::shared_ptr<State>& state);

    std::shared_ptr<State> state_;
};

}  // namespace ipcfs::control
