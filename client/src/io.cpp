// Descriptors, whole files, waiting, standard output, and Ctrl-C. One thread.
#include <algorithm>
#include <cerrno>
#include <csignal>
#include <ctime>
#include <fcntl.h>
#include <poll.h>
#include <sys/time.h>

#include <failure.hpp>
#include <io.hpp>
#include <text.hpp>

#include <ipcfs/wait.hpp>

namespace ipcfs::client {
namespace {

// Shared with the signal handlers, which run on this thread.
volatile std::sig_atomic_t g_held_signal = 0;
volatile std::sig_atomic_t g_holding = 0;
volatile std::sig_atomic_t g_progress_shown = 0;
bool g_quiet = false;
bool g_stdout_terminal = false;
bool g_stderr_terminal = false;

// Interrupts a DeferSignals's read repeatedly from the deadline on: one signal could come before the read
// starts.
timer_t g_alarm{};
bool g_alarm_made = false;
constexpr std::int64_t kAlarmInterval = 20'000'000;

constexpr std::string_view kClearLine = "\r\033[K";

// `first` in ns; 0: never.
void set_alarm(std::int64_t first) {
    itimerspec times{};
    times.it_value = {first / 1'000'000'000, first % 1'000'000'000};
    if (first > 0) times.it_interval = {0, kAlarmInterval};
    ::timer_settime(g_alarm, 0, &times, nullptr);
}

extern "C" void on_alarm(int) {}

extern "C" void hold_signal(int signal) {
    // A second Ctrl-C does not wait for a held message, whose reader may have stopped for ever.
    if (g_held_signal != 0) end_by(signal);
    g_held_signal = signal;
    int error = errno;
    set_alarm(1);
    errno = error;
}

void set_handlers(void (*handler)(int)) {
    struct sigaction action {};
    action.sa_handler = handler;
    for (int signal : {SIGINT, SIGTERM}) {
        struct sigaction before {};
        ::sigaction(signal, nullptr, &before);
        // Keep SIG_IGN: nohup, and shells without job control, set it on purpose.
        if (before.sa_handler != SIG_IGN) ::sigaction(signal, &action, nullptr);
    }
}

void make_alarm() {
    struct sigaction action {};
    action.sa_handler = on_alarm;
    ::sigaction(SIGALRM, &action, nullptr);
    sigevent event{};
    event.sigev_notify = SIGEV_SIGNAL;
    event.sigev_signo = SIGALRM;
    if (::timer_create(CLOCK_MONOTONIC, &event, &g_alarm) != 0) fail_errno("timer", errno);
    g_alarm_made = true;
}

Fd open_file(const std::string& path, int flags) {
    return Fd(detail::open_at(AT_FDCWD, path.c_str(), flags));
}

// Appends what one read returns.
ssize_t append(int fd, std::string& text, std::size_t most) {
    const std::size_t before = text.size();
    text.resize(before + most);
    ssize_t n = 0;
    do {
        n = detail::retry_if_canceled([&] { return ::read(fd, text.data() + before, most); });
    } while (n < 0 && errno == EINTR);
    const int error = errno;
    text.resize(before + static_cast<std::size_t>(std::max<ssize_t>(n, 0)));
    errno = error;
    return n;
}

std::int64_t clock_ns(clockid_t clock) {
    timespec time{};
    ::clock_gettime(clock, &time);
    return time.tv_sec * std::int64_t{1'000'000'000} + time.tv_nsec;
}

}  // namespace

void end_by(int signal) {
    clear_progress();
    // By the signal itself, so that a message being written to `put` is not sent.
    sigset_t just;
    ::sigemptyset(&just);
    ::sigaddset(&just, signal);
    ::signal(signal, SIG_DFL);
    ::sigprocmask(SIG_UNBLOCK, &just, nullptr);
    ::raise(signal);
    ::_exit(128 + signal);
}

DeferSignals::DeferSignals(const Deadline& deadline) {
    if (!g_alarm_made) make_alarm();
    g_holding = 1;
    set_handlers(hold_signal);
    constexpr std::int64_t kFar = std::int64_t{1} << 60;
    if (deadline.set()) set_alarm(std::max<std::int64_t>(deadline.left(kFar), 1));
}

DeferSignals::~DeferSignals() {
    g_holding = 0;
    if (g_held_signal != 0) end_by(g_held_signal);
    set_alarm(0);
    set_handlers(SIG_DFL);
}

bool DeferSignals::interrupted() const {
    return g_held_signal != 0;
}

void set_up_terminal(bool be_quiet) {
    g_quiet = be_quiet;
    g_stdout_terminal = ::isatty(STDOUT_FILENO) == 1;
    g_stderr_terminal = ::isatty(STDERR_FILENO) == 1;
}

bool quiet() {
    return g_quiet;
}

bool output_is_terminal() {
    return g_stdout_terminal;
}

std::string for_output(std::string_view text) {
    return g_stdout_terminal ? escape_controls(text) : std::string(text);
}

Fd open_or_fail(const std::string& path, int flags, const std::string& shown) {
    Fd fd = open_file(path, flags);
    if (!fd) fail_errno(shown, errno);
    return fd;
}

std::optional<std::string> read_file(const std::string& path, int flags, std::size_t most) {
    Fd fd = open_file(path, O_RDONLY | flags);
    if (!fd) return std::nullopt;
    std::string text;
    while (text.size() < most) {
        ssize_t n = append(fd.get(), text, 65536);
        if (n < 0) return std::nullopt;
        if (n == 0) break;
    }
    return text;
}

std::string read_file_or_fail(const std::string& path, const std::string& shown) {
    auto text = read_file(path);
    if (!text) fail_errno(shown, errno);
    return std::move(*text);
}

bool read_more(int fd, std::string& text, const std::string& shown, std::size_t most) {
    ssize_t n = append(fd, text, most);
    if (n < 0) fail_errno(shown, errno);
    return n > 0;
}

int write_once(const std::string& path, std::string_view text) {
    Fd fd = open_file(path, O_WRONLY);
    if (!fd) return errno;
    ssize_t n = 0;
    do {
        n = detail::retry_if_canceled([&] { return ::write(fd.get(), text.data(), text.size()); });
    } while (n < 0 && errno == EINTR);
    if (n < 0) return errno;
    return static_cast<std::size_t>(n) == text.size() ? 0 : EIO;
}

void print(std::string_view text) {
    write_all(STDOUT_FILENO, text, "cannot write to standard output");
}

void write_all(int fd, std::string_view text, const std::string& shown) {
    while (!text.empty()) {
        ssize_t n = ::write(fd, text.data(), text.size());
        if (n >= 0) {
            text.remove_prefix(static_cast<std::size_t>(n));
        } else if (errno == EAGAIN) {
            poll_one(fd, POLLOUT, 1'000'000'000);
        } else if (errno != EINTR) {
            fail(kError, shown + ": " + describe(errno));
        }
    }
}

void show_progress(std::string_view line) {
    if (g_quiet || !g_stderr_terminal) return;
    std::string text = std::string(kClearLine) + escape_controls(line);
    g_progress_shown = 1;
    [[maybe_unused]] auto n = ::write(STDERR_FILENO, text.data(), text.size());
}

void clear_progress() {
    if (g_progress_shown == 0) return;
    [[maybe_unused]] auto n = ::write(STDERR_FILENO, kClearLine.data(), kClearLine.size());
    g_progress_shown = 0;
}

std::int64_t now() {
    return clock_ns(CLOCK_MONOTONIC);
}

std::int64_t wall_clock() {
    return clock_ns(CLOCK_REALTIME);
}

std::int64_t Deadline::left(std::int64_t most) const {
    if (!at_) return most;
    return std::clamp<std::int64_t>(*at_ - now(), 0, most);
}

short poll_one(int fd, short events, std::int64_t wait) {
    // The progress line is shown only here, and only here can the process end without losing anything.
    struct Ending {
        Ending() {
            if (g_holding == 0) set_handlers(end_by);
        }
        ~Ending() {
            if (g_holding == 0) set_handlers(SIG_DFL);
        }
    } ending;
    Deadline deadline(wait);
    for (;;) {
        pollfd entry{fd, events, 0};
        std::int64_t left = deadline.left(wait);
        timespec time{left / 1'000'000'000, left % 1'000'000'000};
        int n = ::ppoll(&entry, 1, &time, nullptr);
        if (n > 0) return entry.revents;
        if (n == 0) return 0;
        if (errno != EINTR) fail_errno("poll", errno);
    }
}

}  // namespace ipcfs::client
