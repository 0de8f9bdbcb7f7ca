// Child processes of a benchmark: they end with it, whatever ends it, and are waited for. One
// thread.
#pragma once

#include <functional>
#include <string>
#include <sys/types.h>
#include <vector>

namespace ipcfs::bench {

// What a system call gave; throws with `what` and errno when it is negative.
long must(long result, const std::string& what);

// Runs `body` in a forked child, which exits 0 when it returns, and 1 with a message when it
// throws.
pid_t fork_child(const std::function<void()>& body);

// Waits until `pid` has ended; false when it has not after `patience_ns`.
bool wait_for(pid_t pid, std::int64_t patience_ns, int* status = nullptr);

// Several children; those that still run are killed at the end.
class Children {
public:
    Children() = default;
    Children(const Children&) = delete;
    Children& operator=(const Children&) = delete;
    ~Children() { kill_all(); }

    void add(const std::function<void()>& body) { pids_.push_back(fork_child(body)); }
    // Whether all have ended with success within `patience_ns`. Those that have not are killed.
    bool join(std::int64_t patience_ns);
    void kill_all();

private:
    std::vector<pid_t> pids_;
};

}  // namespace ipcfs::bench
