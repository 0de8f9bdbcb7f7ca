// One socket pair a child: a number there, a Reply back, in order.
#include "actor.hpp"

#include <algorithm>
#include <array>
#include <exception>
#include <poll.h>
#include <signal.h>
#include <stdexcept>
#include <sys/socket.h>
#include <unistd.h>

#include "processes.hpp"

namespace ipcfs::bench {
namespace {

constexpr std::int64_t kPatience = 60'000'000'000;

struct Reply {
    std::uint64_t count = 0;
    std::array<double, Actor::kMaxFigures> figures{};
};

void serve(int commands, const std::function<Actor::Act()>& set_up) {
    const Actor::Act act = set_up();
    Figures figures;
    for (std::uint64_t argument = 0;;) {
        Reply reply;
        reply.count = std::min(figures.size(), Actor::kMaxFigures);
        std::copy_n(figures.begin(), reply.count, reply.figures.begin());
        must(send(commands, &reply, sizeof reply, MSG_NOSIGNAL), "report");
        if (must(recv(commands, &argument, sizeof argument, 0), "wait for a command") == 0) return;
        figures = act(argument);
    }
}

}  // namespace

Actor::Actor(std::string name, const std::function<Act()>& set_up) : name_(std::move(name)) {
    int ends[2];
    must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), "socketpair");
    commands_.reset(ends[0]);
    const Fd theirs(ends[1]);
    pid_ = fork_child([&] {
        commands_.reset();
        serve(theirs.get(), set_up);
        _exit(0);  // without destructors: what the parent made is the parent's
    });
    finish();
}

Actor::~Actor() {
    commands_.reset();
    if (pid_ <= 0 || wait_for(pid_, 2'000'000'000)) return;
    kill(pid_, SIGKILL);
    wait_for(pid_, 5'000'000'000);
}

void Actor::start(std::uint64_t argument) {
    must(send(commands_.get(), &argument, sizeof argument, MSG_NOSIGNAL), "command " + name_);
}

Figures Actor::finish() {
    // Others forked later hold copies of the child's end: its death is seen by looking for it.
    for (const auto until = now_ns() + kPatience;;) {
        pollfd reply{commands_.get(), POLLIN, 0};
        if (must(poll(&reply, 1, 50), "poll") > 0) break;
        if (wait_for(pid_, 0)) {
            pid_ = -1;
            throw std::runtime_error(name_ + " ended");
        }
        if (now_ns() > until) throw std::runtime_error(name_ + " does not come to an end");
    }
    Reply reply;
    if (must(recv(commands_.get(), &reply, sizeof reply, 0), "await " + name_) != sizeof reply) {
        throw std::runtime_error(name_ + " failed");
    }
    return {reply.figures.begin(), reply.figures.begin() + static_cast<long>(reply.count)};
}

}  // namespace ipcfs::bench
