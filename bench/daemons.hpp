// Other people's servers that a group compares ipcfs with: each is started in a directory of its own,
// with its data there (it goes with the run's), told to listen on nothing but a Unix socket or the
// loopback, and ended by its pid. One thread.
#pragma once

#include <functional>
#include <string>
#include <sys/types.h>
#include <vector>

#include "groups.hpp"
#include <base/fd.hpp>

namespace ipcfs::bench {

class Daemon {
public:
    // `words`: the program, looked for in PATH and the sbin directories, and its arguments. Returns
    // when `ready`; throws, with the end of what it said, when it is not in 20 s.
    Daemon(std::string directory, std::vector<std::string> words,
           const std::function<bool()>& ready);
    Daemon(const Daemon&) = delete;
    Daemon& operator=(const Daemon&) = delete;
    ~Daemon();

    pid_t pid() const { return pid_; }
    const std::string& directory() const { return directory_; }

private:
    const std::string directory_;
    pid_t pid_ = -1;
};

// Whether there is such a program.
bool has_program(const std::string& name);
// A new directory below the run's.
std::string make_directory(const Run& run, const std::string& name);
// All of a file; empty when it cannot be read.
std::string slurp(const std::string& path);
void write_text(const std::string& path, const std::string& text);
// Connected, blocking; an empty Fd when nobody listens.
Fd connect_unix(const std::string& path);
Fd connect_loopback(unsigned port);  // with TCP_NODELAY
// CPU time that a process, all of its threads, has used until now; nanoseconds.
double cpu_time(pid_t pid);

// Bytes of a stream connection, by the line and by the count.
class Stream {
public:
    explicit Stream(Fd fd) : fd_(std::move(fd)) {}
    int fd() const { return fd_.get(); }
    void send(std::string_view bytes);
    // Without its CR LF.
    std::string line();
    std::string bytes(std::size_t count);
    // Whether something was received that nobody took yet.
    bool has_more() const { return at_ < have_; }

private:
    void fill();
    Fd fd_;
    std::vector<char> buffer_ = std::vector<char>(64 << 10);
    std::size_t at_ = 0, have_ = 0;
};

}  // namespace ipcfs::bench
