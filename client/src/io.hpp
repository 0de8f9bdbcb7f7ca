// Descriptors, whole files, waiting with a deadline, standard output, and Ctrl-C.
//
// Ctrl-C and SIGTERM keep their default action, but for two places: while it polls they wipe the
// progress line and end the process (130 to the shell for Ctrl-C), and while a Hold is alive they end
// a waiting read but are otherwise obeyed only when a message that was taken has been printed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <sys/stat.h>
#include <unistd.h>

#include <ipcfs/process.hpp>

namespace ipcfs::client {

using detail::Fd;

// Ends in a Failure that begins with `shown`.
Fd open_or_fail(const std::string& path, int flags, const std::string& shown);
// The whole file, or empty with errno set. At most 64 MiB are read.
std::optional<std::string> read_file(const std::string& path);
std::string read_file_or_fail(const std::string& path, const std::string& shown);
// All of a descriptor up to end of file; fails when there is more than `limit`.
std::string read_all(int fd, std::size_t limit, const std::string& shown);
// The whole text in one write(2). 0 or the errno.
int write_once(const std::string& path, std::string_view text);
// To standard output, unbuffered. A reader that went away ends the command as SIGPIPE would.
void print(std::string_view text);
// The same to any descriptor; errors begin with `shown`.
void write_all(int fd, std::string_view text, const std::string& shown);
// To standard error, if it is a terminal and not --quiet; a line that the next one replaces.
void show_progress(std::string_view line);
void clear_progress();

// Remembers --quiet and looks which descriptors are terminals.
void set_up_terminal(bool quiet);
bool quiet();
bool output_is_terminal();
// Text for standard output: made safe when that is a terminal, as it is otherwise.
std::string for_output(std::string_view text);

// ns of CLOCK_MONOTONIC, and of CLOCK_REALTIME.
std::int64_t now();
std::int64_t wall_clock();

// A moment, or never.
class Deadline {
public:
    explicit Deadline(std::optional<std::int64_t> wait)
        : at_(wait ? std::optional(now() + *wait) : std::nullopt) {}
    bool set() const { return at_.has_value(); }
    bool passed() const { return at_ && now() >= *at_; }
    // Not more than `most` ns, not less than 0.
    std::int64_t left(std::int64_t most) const;

private:
    std::optional<std::int64_t> at_;
};

// poll(2) of one descriptor for at most `wait` ns: revents, 0 when the time is over.
short poll_one(int fd, short events, std::int64_t wait);

// Not to be nested. A read(2) that waits within it ends with EINTR at Ctrl-C, SIGTERM and the
// deadline, even when these came just before the read; the destructor then obeys the signal.
class Hold {
public:
    explicit Hold(const Deadline& deadline);
    ~Hold();
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;

    // A signal came: leave off.
    bool interrupted() const;
};

}  // namespace ipcfs::client
