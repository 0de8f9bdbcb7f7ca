// A child process of a test, to act as another user, on another CPU, or to be interrupted or
// killed. Forked from the single-threaded test; killed and reaped by its owner's destructor.
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
        uid_t uid = 0;  // the gid is the same number; no other groups
        int cpu = -1;   // -1: any
    };
    // Runs in the child: may set text(), and returns the exit code (usually an errno). SIGUSR1 and
    // SIGUSR2 interrupt its system calls.
    using Body = std::function<int(std::string& text)>;

    explicit Child(const Body& body);
    Child(As as, const Body& body);
    Child(Child&& other) noexcept;
    Child& operator=(Child&&) = delete;
    ~Child();

    pid_t pid() const { return pid_; }
    void signal(int number) const;
    // The exit code, 1000 + the signal that killed it, or empty if it is still running.
    std::optional<int> wait(std::chrono::milliseconds patience = kPatience);
    // The text that the child set; valid after wait().
    const std::string& text() const { return text_; }

private:
    pid_t pid_ = -1;
    Fd from_;
    std::string text_;
    std::optional<int> code_;
};

// Events between a test and its child, both ways; one byte is one event.
class Events {
public:
    Events();
    bool tell() const;
    bool await() const;

private:
    Fd from_;
    Fd to_;
};

// Runs `bash -c command` as user `uid` and returns its exit code; stores what it printed in
// `output`.
int shell(const std::string& command, std::string* output = nullptr, uid_t uid = 0);

// Pins the calling thread, and threads and children that it starts, to one CPU.
void pin_to_cpu(int cpu);

}  // namespace ipcfs::test
