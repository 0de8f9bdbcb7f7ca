// A process of a test: another user, another CPU, something to interrupt or kill. Forked from the
// single-threaded test; killed and reaped with its owner.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <sys/types.h>
#include <vector>

#include "daemon_fixture.hpp"

namespace ipcfs::test {

class Child {
public:
    struct As {
        uid_t uid = 0;  // with the gid of the same number and no other groups
        int cpu = -1;   // -1: any
    };
    // What the child runs: it may leave text for text(), and its value is the exit code (an errno,
    // as a rule). Signals SIGUSR1 and SIGUSR2 interrupt system calls in it.
    using Body = std::function<int(std::string& text)>;

    explicit Child(const Body& body);
    Child(As as, const Body& body);
    Child(Child&& other) noexcept;
    Child& operator=(Child&&) = delete;
    ~Child();

    pid_t pid() const { return pid_; }
    void signal(int number) const;
    // Its exit code, 1000 + the signal that ended it, or nothing when it is still there.
    std::optional<int> wait(std::chrono::milliseconds patience = kPatience);
    // What it left; only after wait().
    const std::string& text() const { return text_; }

private:
    pid_t pid_ = -1;
    Fd from_;
    std::string text_;
    std::optional<int> code_;
};

// Both ways between a test and a child of its own: a byte is an event.
class Events {
public:
    Events();
    bool tell() const;
    bool await() const;

private:
    Fd from_;
    Fd to_;
};

// Runs `bash -c command` as a user and gives its exit code; what it printed goes to `output`.
int shell(const std::string& command, std::string* output = nullptr, uid_t uid = 0);

// Puts the calling thread, and the threads and children it starts, on one CPU.
void pin_to_cpu(int cpu);

}  // namespace ipcfs::test
