// Descriptors, whole files, waiting with a deadline, standard output, and Ctrl-C.
//
// Ctrl-C and SIGTERM keep their default action, with two exceptions. While polling, they erase the
// progress line and end the process (130 to the shell for Ctrl-C). While a DeferSignals is alive, they end
// a waiting read, but the process ends only after a message that was taken has been printed.
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

// Opens a file; throws a Failure that begins with `shown` on an error.
Fd open_or_fail(const std::string& path, int flags, const std::string& shown);
// Reads a whole file, or its first `most` bytes; empty with errno set on an error.
// With O_NONBLOCK among the flags, EAGAIN means that there is nothing.
std::optional<std::string> read_file(const std::string& path, int flags = 0,
                                     std::size_t most = std::size_t{64} << 20);
std::string read_file_or_fail(const std::string& path, const std::string& shown);
// Appends what one read(2) of at most `most` bytes returns. False at the end of the file.
bool read_more(int fd, std::string& text, const std::string& shown, std::size_t most = 65536);
// Writes the whole text by one write(2). Returns 0 or the errno.
int write_once(const std::string& path, std::string_view text);
// Writes to standard output, unbuffered. If the reader has gone, the command ends as by SIGPIPE.
void print(std::string_view text);
// Writes to any descriptor; errors begin with `shown`.
void write_all(int fd, std::string_view text, const std::string& shown);
// Shows a line on standard error that the next one replaces; only on a terminal and without
// --quiet.
void show_progress(std::string_view line);
void clear_progress();

// Stores --quiet and finds out which descriptors are terminals.
void set_up_terminal(bool quiet);
bool quiet();
bool output_is_terminal();
// Escapes text if standard output is a terminal; otherwise returns it unchanged.
std::string for_output(std::string_view text);

// ns of CLOCK_MONOTONIC, and of CLOCK_REALTIME.
std::int64_t now();
std::int64_t wall_clock();

// A point in time, or never.
class Deadline {
public:
    explicit Deadline(std::optional<std::int64_t> wait)
        : at_(wait ? std::optional(now() + *wait) : std::nullopt) {}
    bool set() const { return at_.has_value(); }
    bool passed() const { return at_ && now() >= *at_; }
    // The remaining ns, from 0 to `most`.
    std::int64_t left(std::int64_t most) const;

private:
    std::optional<std::int64_t> at_;
};

// poll(2) of one descriptor for at most `wait` ns. Returns revents; 0 on timeout.
short poll_one(int fd, short events, std::int64_t wait);

// Ends this process by the signal's default action. Safe in a signal handler.
[[noreturn]] void end_by(int signal);

// While it lives, Ctrl-C, SIGTERM and the deadline end a waiting read(2) with EINTR, even if they
// come just before the read; the destructor then obeys the signal. Must not be nested.
class DeferSignals {
public:
    explicit DeferSignals(const Deadline& deadline);
    ~DeferSignals();
    DeferSignals(const DeferSignals&) = delete;
    DeferSignals& operator=(const DeferSignals&) = delete;

    // Whether a signal came, so that the caller must stop.
    bool interrupted() const;
};

}  // namespace ipcfs::client
