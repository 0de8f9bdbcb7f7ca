#include <cerrno>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <string_view>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <child.hpp>
#include <message_body.hpp>

extern char** environ;

namespace ipcfs::client {
namespace {

constexpr std::int64_t kGrace = 2'000'000'000;  // between SIGTERM and SIGKILL

std::vector<char*> pointers(const std::vector<std::string>& texts) {
    std::vector<char*> out;
    for (const std::string& text : texts) out.push_back(const_cast<char*>(text.c_str()));
    out.push_back(nullptr);
    return out;
}

// Runs in the child between fork and exec: only system calls are allowed.
[[noreturn]] void become(char* const* arguments, char* const* environment, int input, int report,
                         pid_t parent) {
    ::setpgid(0, 0);
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() == parent) {
        ::dup2(input, STDIN_FILENO);
        sigset_t none;
        ::sigemptyset(&none);
        for (int signal : {SIGINT, SIGTERM, SIGCHLD, SIGPIPE}) ::signal(signal, SIG_DFL);
        ::sigprocmask(SIG_SETMASK, &none, nullptr);
        ::execvpe(arguments[0], arguments, environment);
    }
    int error = errno;
    [[maybe_unused]] auto n = ::write(report, &error, sizeof error);
    ::_exit(127);
}

}  // namespace

int Child::start(const std::vector<std::string>& command,
                 const std::vector<std::string>& environment, int input) {
    auto arguments = pointers(command);
    auto variables = pointers(environment);
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return errno;
    Fd from(ends[0]);
    Fd to(ends[1]);
    pid_t parent = ::getpid();
    pid_ = ::fork();
    if (pid_ < 0) return errno;
    if (pid_ == 0) become(arguments.data(), variables.data(), input, to.get(), parent);
    ::setpgid(pid_, pid_);  // also called in the child, whichever comes first
    to = Fd();
    int error = 0;
    ssize_t n = 0;
    do {
        n = ::read(from.get(), &error, sizeof error);
    } while (n < 0 && errno == EINTR);
    if (n <= 0) return 0;
    ::waitpid(pid_, nullptr, 0);
    pid_ = 0;
    return error;
}

std::optional<int> Child::reap() {
    int status = 0;
    if (pid_ <= 0 || ::waitpid(pid_, &status, WNOHANG) != pid_) return std::nullopt;
    // Processes that it left behind have no lease any more.
    if (kill_at_ != 0) ::kill(-pid_, SIGKILL);
    pid_ = 0;
    return status;
}

void Child::stop() {
    if (kill_at_ != 0) return;
    kill_at_ = now() + kGrace;
    ::kill(-pid_, SIGTERM);
    ::kill(-pid_, SIGCONT);
}

void Child::kill() {
    kill_at_ = now() + kGrace;
    ::kill(-pid_, SIGKILL);
}

std::vector<std::string> environment_for(const Tree& tree, const Channel& channel,
                                         const FrameView& frame) {
    std::vector<std::string> out;
    for (char** each = environ; *each != nullptr; ++each) {
        // Variables of an outer `work` do not apply to this message.
        if (!std::string_view(*each).starts_with("IPCFS_")) out.emplace_back(*each);
    }
    auto set = [&](const char* name, std::string_view value) {
        // A NUL would silently truncate the value.
        if (value.find('\0') != std::string_view::npos) return;
        out.push_back(std::string("IPCFS_") + name + "=" + std::string(value));
    };
    auto number = [&](const char* name, std::uint64_t value) { set(name, std::to_string(value)); };
    const FrameHeader& header = frame.header;
    set("MOUNT", tree.root());
    set("CHANNEL", channel.name);
    set("PATH", channel.path);
    number("SEQUENCE", header.sequence);
    number("ID", header.message_id);
    number("CORRELATION", header.correlation_id);
    number("PRIORITY", header.priority);
    set("TYPE", to_string(header.type));
    number("REDELIVERED", (header.flags & kFrameRedelivered) != 0 ? 1 : 0);
    number("TIME", header.time);
    number("DEADLINE", header.deadline);
    number("SENDER_PID", header.sender_pid);
    number("SENDER_UID", header.sender_uid);
    number("SENDER_GID", header.sender_gid);
    auto extension = [&](const char* name, ExtensionType type) {
        auto value = frame.extension(type);
        if (value) set(name, as_text(*value));
    };
    extension("METHOD", ExtensionType::kMethod);
    extension("CONTENT_TYPE", ExtensionType::kContentType);
    extension("GROUP", ExtensionType::kGroup);
    return out;
}

std::string describe_status(int status) {
    if (WIFEXITED(status)) return "exit code " + std::to_string(WEXITSTATUS(status));
    int signal = WTERMSIG(status);
    const char* name = ::sigdescr_np(signal);
    return "killed by signal " + std::to_string(signal) +
           (name != nullptr ? " (" + std::string(name) + ")" : "");
}

}  // namespace ipcfs::client
