// The background uses fork, setsid and a pipe; the service manager gets datagrams on NOTIFY_SOCKET.
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <base/clock.hpp>
#include <daemon/service.hpp>

namespace ipcfs::daemon {
namespace {

// The parent: waits for the child's message and exits accordingly.
[[noreturn]] void await(pid_t child, int pipe) {
    unsigned char code = 0;
    ssize_t size = 0;
    do {
        size = read(pipe, &code, 1);
    } while (size < 0 && errno == EINTR);
    if (size == 1) _exit(code);
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    if (WIFSIGNALED(status)) {
        std::fprintf(stderr, "ipcfsd: the daemon was killed by signal %d before it was ready\n",
                     WTERMSIG(status));
    } else if (WEXITSTATUS(status) != 0) {
        _exit(WEXITSTATUS(status));
    } else {
        std::fprintf(stderr, "ipcfsd: the daemon ended before it was ready\n");
    }
    _exit(1);
}

}  // namespace

Result<Background> Background::enter() {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) return errno_fault("make a pipe");
    Fd reading(ends[0]);
    Fd writing(ends[1]);
    std::fflush(nullptr);
    pid_t child = fork();
    if (child < 0) return errno_fault("fork");
    if (child > 0) {
        writing.reset();
        await(child, reading.get());
    }
    reading.reset();
    // A new session, so that hang-up and ^C of the terminal do not reach the daemon. A second fork
    // is unnecessary: it would only prevent acquiring a terminal, and the daemon opens none without
    // O_NOCTTY.
    if (setsid() < 0) return errno_fault("setsid");
    if (chdir("/") != 0) return errno_fault("chdir /");
    // Close inherited descriptors: a script or test runner may wait for its pipes to close.
    const auto kept = static_cast<unsigned>(writing.get());
    if (kept > 3) close_range(3, kept - 1, 0);
    close_range(kept + 1, ~0U, 0);
    return Background(std::move(writing));
}

void Background::ready() {
    Fd null(open("/dev/null", O_RDWR | O_CLOEXEC | O_NOCTTY));
    if (null) {
        for (int standard : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
            dup2(null.get(), standard);
        }
        if (null.get() <= STDERR_FILENO) null.release();
    }
    failed(0);
}

void Background::failed(int code) noexcept {
    if (!pipe_) return;
    auto byte = static_cast<unsigned char>(code);
    while (write(pipe_.get(), &byte, 1) < 0 && errno == EINTR) {
    }
    pipe_.reset();
}

ServiceManager::ServiceManager() {
    if (const char* name = std::getenv("NOTIFY_SOCKET")) {
        if (name[0] == '/' || name[0] == '@') socket_ = name;
        unsetenv("NOTIFY_SOCKET");  // fusermount3 must not notify in our name
    }
}

void ServiceManager::ready(std::string_view status) {
    const std::string main = line_ ? "" : "\nMAINPID=" + std::to_string(getpid());
    send("READY=1" + main + "\nSTATUS=" + std::string(status));
}

void ServiceManager::relay(std::string_view state) {
    send(std::string(state) + "\nMAINPID=" + std::to_string(getpid()));
}

void ServiceManager::reloading() {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    const Nanos micros = Nanos{now.tv_sec} * 1'000'000 + now.tv_nsec / kMicrosecond;
    send("RELOADING=1\nMONOTONIC_USEC=" + std::to_string(micros) + "\nSTATUS=reloading");
}

void ServiceManager::stopping(std::string_view status) {
    send("STOPPING=1\nSTATUS=" + std::string(status));
}

void ServiceManager::status(std::string_view status) {
    send("STATUS=" + std::string(status));
}

void ServiceManager::send(std::string_view state) noexcept {
    if (line_) {
        const std::string word = "S" + std::string(state);
        while (::send(line_.get(), word.data(), word.size(), MSG_NOSIGNAL | MSG_DONTWAIT) < 0 &&
               errno == EINTR) {
        }
        return;
    }
    if (socket_.empty()) return;
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (socket_.size() >= sizeof address.sun_path) return;
    std::memcpy(address.sun_path, socket_.data(), socket_.size());
    if (socket_[0] == '@') address.sun_path[0] = '\0';
    // The length delimits an abstract name; a path ends with NUL.
    const std::size_t length =
        offsetof(sockaddr_un, sun_path) + socket_.size() + (socket_[0] == '@' ? 0 : 1);
    Fd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (!fd) return;
    while (sendto(fd.get(), state.data(), state.size(), MSG_NOSIGNAL | MSG_DONTWAIT,
                  reinterpret_cast<sockaddr*>(&address), static_cast<socklen_t>(length)) < 0 &&
           errno == EINTR) {
    }
}

}  // namespace ipcfs::daemon
