#include "child.hpp"

#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>

namespace ipcfs::test {
namespace {

void become(const Child::As& as) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    struct sigaction interrupt {};
    interrupt.sa_handler = [](int) {};
    sigaction(SIGUSR1, &interrupt, nullptr);
    sigaction(SIGUSR2, &interrupt, nullptr);
    signal(SIGPIPE, SIG_IGN);
    if (as.cpu >= 0) pin_to_cpu(as.cpu);
    if (as.uid == 0) return;
    if (setgroups(0, nullptr) != 0 || setresgid(as.uid, as.uid, as.uid) != 0 ||
        setresuid(as.uid, as.uid, as.uid) != 0) {
        _exit(126);
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);  // a change of user forgets it
}

}  // namespace

Child::Child(const Body& body) : Child(As{}, body) {}

Child::Child(As as, const Body& body) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) return;
    from_.reset(ends[0]);
    pid_ = fork();
    if (pid_ == 0) {
        become(as);
        std::string text;
        const int code = body(text);
        for (std::size_t done = 0; done < text.size();) {
            const ssize_t some = write(ends[1], text.data() + done, text.size() - done);
            if (some > 0) done += static_cast<std::size_t>(some);
            if (some < 0 && errno != EINTR) break;
        }
        _exit(code);
    }
    close(ends[1]);
}

Child::Child(Child&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)),
      from_(std::move(other.from_)),
      text_(std::move(other.text_)),
      code_(other.code_) {}

Child::~Child() {
    if (pid_ <= 0 || code_) return;
    kill(pid_, SIGKILL);
    wait(5s);
}

void Child::signal(int number) const {
    if (pid_ > 0 && !code_) kill(pid_, number);
}

std::optional<int> Child::wait(std::chrono::milliseconds patience) {
    if (code_ || pid_ <= 0) return code_;
    const auto deadline = std::chrono::steady_clock::now() + patience;
    for (;;) {
        const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
            deadline - std::chrono::steady_clock::now());
        if (left < 0ms) return {};
        const short events = poll_one(from_.get(), POLLIN, static_cast<int>(left.count()));
        if (events == 0) return {};
        const auto got = read_from(from_.get(), 65536);
        if (got.result <= 0) break;  // it has left all it will
        text_ += got.data;
    }
    int status = 0;
    if (!wait_until([&] { return waitpid(pid_, &status, WNOHANG) == pid_; }, patience)) return {};
    code_ = WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
    return code_;
}

Events::Events() {
    int ends[2] = {-1, -1};
    EXPECT_EQ(pipe2(ends, O_CLOEXEC), 0);
    from_.reset(ends[0]);
    to_.reset(ends[1]);
}

bool Events::tell() const {
    return write(to_.get(), "x", 1) == 1;
}

bool Events::await() const {
    return poll_one(from_.get(), POLLIN, static_cast<int>(kPatience.count())) == POLLIN &&
           read_from(from_.get(), 1).data == "x";
}

int shell(const std::string& command, std::string* output, uid_t uid) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) return -1;
    const Fd from(ends[0]);
    Fd to(ends[1]);
    Child child(Child::As{uid, -1}, [&](std::string&) {
        dup2(to.get(), STDOUT_FILENO);
        execl("/bin/bash", "bash", "-c", command.c_str(), nullptr);
        return 127;
    });
    to.reset();
    for (;;) {
        if (poll_one(from.get(), POLLIN, static_cast<int>(kPatience.count())) == 0) break;
        const auto got = read_from(from.get(), 65536);
        if (got.result <= 0) break;
        if (output != nullptr) *output += got.data;
    }
    return child.wait().value_or(-1);
}

void pin_to_cpu(int cpu) {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    sched_setaffinity(0, sizeof one, &one);
}

}  // namespace ipcfs::test
