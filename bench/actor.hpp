// A child process that does a piece of work whenever it is told to: one end of a pair that is
// measured round by round, without a fork in any round. The child sets itself up, then waits. It
// ends with the benchmark, and may start threads: nothing is forked from it. Owned by one thread.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <sys/types.h>

#include "measure.hpp"
#include <base/fd.hpp>

namespace ipcfs::bench {

class Actor {
public:
    // What the child does for one command, and what it reports of it: at most kMaxFigures.
    using Act = std::function<Figures(std::uint64_t argument)>;
    static constexpr std::size_t kMaxFigures = 7;

    // Forks; `set_up` runs in the child. Returns when it is ready; throws when it failed.
    Actor(std::string name, const std::function<Act()>& set_up);
    Actor(const Actor&) = delete;
    Actor& operator=(const Actor&) = delete;
    ~Actor();

    void start(std::uint64_t argument);
    // Waits for what was started. Throws when it failed, or took unreasonably long.
    Figures finish();
    Figures act(std::uint64_t argument) {
        start(argument);
        return finish();
    }
    pid_t pid() const { return pid_; }

private:
    const std::string name_;
    Fd commands_;
    pid_t pid_ = -1;
};

}  // namespace ipcfs::bench
