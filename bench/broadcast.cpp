// The fleet, and ipcfs' subscribers.
#include "broadcast.hpp"

#include <array>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdexcept>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/poll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "census.hpp"
#include "links.hpp"
#include <ipcfs/frame.hpp>

namespace ipcfs::bench {
namespace {

constexpr unsigned kProcesses = 2;
constexpr std::int64_t kBroadcastPatience = 30'000'000'000;

std::uint32_t number_of(std::span<const std::byte> body) {
    Numbered message;
    if (body.size() != sizeof message) throw std::runtime_error("a message of another size");
    std::memcpy(static_cast<void*>(&message), body.data(), sizeof message);
    return message.number;
}

// -1: nothing is there.
ssize_t read_some(int fd, std::span<std::byte> to) {
    for (;;) {
        const ssize_t got = read(fd, to.data(), to.size());
        if (got < 0 && errno == EINTR) continue;
        if (got < 0 && errno == EAGAIN) return -1;
        return must(got, "read of a subscription");
    }
}

class StreamSubscription final : public Subscription {
public:
    explicit StreamSubscription(Fd fd) : fd_(std::move(fd)) {}
    int fd() const override { return fd_.get(); }
    unsigned receive(std::uint64_t& wrong) override {
        std::array<std::byte, 2 * kMessageSize> buffer;
        const ssize_t got = read_some(fd_.get(), buffer);
        if (got < 0) return 0;
        check(number_of(std::span(buffer).first(static_cast<std::size_t>(got))), wrong);
        return 1;
    }

private:
    Fd fd_;
};

class FramedSubscription final : public Subscription {
public:
    explicit FramedSubscription(Fd fd) : fd_(std::move(fd)) {
        const std::uint32_t most = 64;
        must(ioctl(fd_.get(), kIoctlReadBatch, &most), "ask for several frames a read");
    }
    int fd() const override { return fd_.get(); }
    unsigned receive(std::uint64_t& wrong) override {
        std::array<std::byte, 16 << 10> buffer;
        const ssize_t got = read_some(fd_.get(), buffer);
        if (got < 0) return 0;
        unsigned count = 0;
        for (auto rest = std::span<const std::byte>(buffer).first(static_cast<std::size_t>(got));
             !rest.empty(); ++count) {
            FrameView view;
            std::size_t consumed = 0;
            if (decode(rest, view, consumed, kMessageSize) != FrameError::kNone) {
                throw std::runtime_error("a subscription's frame is none");
            }
            check(number_of(view.body), wrong);
            rest = rest.subspan(consumed);
        }
        return count;
    }

private:
    Fd fd_;
};

class FilePublisher final : public Sender {
public:
    explicit FilePublisher(Fd fd) : fd_(std::move(fd)) {}
    void send(std::span<const std::byte> body) override {
        if (must(write(fd_.get(), body.data(), body.size()), "publish") !=
            static_cast<long>(body.size())) {
            throw std::runtime_error("a part was published");
        }
    }

private:
    Fd fd_;
};

void start_thread(void* (*body)(void*), void* argument) {
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 128 << 10);
    pthread_t thread;
    const int failed = pthread_create(&thread, &small, body, argument);
    pthread_attr_destroy(&small);
    if (failed != 0) throw std::runtime_error("no thread for another subscriber");
}

}  // namespace

double own_cpu_time() {
    timespec used{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return static_cast<double>(used.tv_sec) * 1e9 + static_cast<double>(used.tv_nsec);
}

std::unique_ptr<Subscription> Topic::subscribe(bool waits) const {
    const std::string path = server_.at(name_ + (framed_ ? "/framed/stream" : "/stream"));
    Fd fd = open_file(path, O_RDONLY | (waits ? 0 : O_NONBLOCK));
    if (framed_) return std::make_unique<FramedSubscription>(std::move(fd));
    return std::make_unique<StreamSubscription>(std::move(fd));
}

std::unique_ptr<Sender> Topic::publisher() const {
    return std::make_unique<FilePublisher>(open_file(server_.at(name_ + "/queue"), O_WRONLY));
}

Fleet::Fleet(const Broadcaster& system, unsigned subscribers, Way way)
    : system_(system),
      subscribers_(subscribers),
      shared_(new (mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                        -1, 0)) Shared),
      done_(static_cast<int>(must(eventfd(0, EFD_CLOEXEC), "eventfd"))) {
    for (unsigned process = 0; process < kProcesses; ++process) {
        const unsigned share = (subscribers + kProcesses - 1 - process) / kProcesses;
        if (share != 0) pids_.push_back(fork_child([&] { serve(system, share, way); }));
    }
    for (const auto until = now_ns() + kBroadcastPatience; shared_->subscribed < subscribers;
         usleep(2000)) {
        bool ended = false;
        for (const pid_t pid : pids_) ended = ended || wait_for(pid, 0);
        if (ended || now_ns() > until) throw std::runtime_error("the subscribers do not subscribe");
    }
    usleep(20'000);  // those that wait in a call have come to it
}

Fleet::~Fleet() {
    for (const pid_t pid : pids_) kill(pid, SIGKILL);
    for (const pid_t pid : pids_) wait_for(pid, kBroadcastPatience);
    munmap(shared_, sizeof *shared_);
}

void Fleet::received(unsigned count, std::uint64_t wrong) {
    if (wrong != 0) shared_->wrong += wrong;
    const std::uint64_t now = shared_->received.fetch_add(count) + count;
    if (now == shared_->target.load()) eventfd_write(done_.get(), 1);
}

void Fleet::serve(const Broadcaster& system, unsigned subscribers, Way way) {
    rlimit files{};
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);

    std::vector<std::unique_ptr<Subscription>> all;
    for (unsigned i = 0; i < subscribers; ++i)
        all.push_back(system.subscribe(way == Way::kBlocked));
    if (way == Way::kBlocked) {
        struct Job {
            Fleet* fleet;
            Subscription* one;
        };
        std::vector<Job> jobs;
        for (const auto& one : all) jobs.push_back({this, one.get()});
        for (Job& job : jobs) {
            start_thread(
                [](void* argument) -> void* {
                    const auto& [fleet, one] = *static_cast<Job*>(argument);
                    try {
                        for (;;) {
                            std::uint64_t wrong = 0;
                            const unsigned count = one->receive(wrong);
                            fleet->received(count, wrong);
                        }
                    } catch (const std::exception& failed) {
                        std::fprintf(stderr, "ipcfs-bench: %s\n", failed.what());
                        _exit(1);
                    }
                },
                &job);
        }
        shared_->subscribed += subscribers;
        for (;;) pause();
    }
    const Fd poll(static_cast<int>(must(epoll_create1(EPOLL_CLOEXEC), "epoll")));
    for (const auto& one : all) {
        epoll_event event{EPOLLIN | (way == Way::kEdge ? EPOLLET : 0U), {one.get()}};
        must(epoll_ctl(poll.get(), EPOLL_CTL_ADD, one->fd(), &event), "epoll");
    }
    shared_->subscribed += subscribers;
    for (;;) {
        std::array<epoll_event, 64> events;
        const int ready = epoll_wait(poll.get(), events.data(), events.size(), -1);
        if (ready < 0 && errno == EINTR) continue;
        must(ready, "epoll");
        for (int i = 0; i < ready; ++i) {
            std::uint64_t wrong = 0;
            auto* one = static_cast<Subscription*>(events[static_cast<std::size_t>(i)].data.ptr);
            unsigned count = 0, all_of_it = 0;
            do all_of_it += count = one->receive(wrong);
            while (way == Way::kEdge && count != 0);
            if (all_of_it != 0) received(all_of_it, wrong);
        }
    }
}

double Fleet::cpu() const {
    double sum = own_cpu_time() + cpu_time(system_.server());
    for (const pid_t pid : pids_) sum += cpu_time(pid);
    return sum;
}

Figures Fleet::publish(Sender& to, unsigned count) {
    const double cpu_before = cpu();
    shared_->target = shared_->received.load() + std::uint64_t{subscribers_} * count;
    const auto from = now_ns();
    for (unsigned i = 0; i < count; ++i) {
        Numbered message;
        message.number = number_++;
        to.send(message.bytes());
    }
    const auto published = now_ns();
    pollfd done{done_.get(), POLLIN, 0};
    while (must(poll(&done, 1, 1000), "poll") == 0) {
        for (const pid_t pid : pids_) {
            if (wait_for(pid, 0)) throw std::runtime_error("a subscriber ended");
        }
        if (now_ns() - from > kBroadcastPatience) {
            throw std::runtime_error("subscribers did not get " +
                                     std::to_string(shared_->target - shared_->received) + " of " +
                                     std::to_string(std::uint64_t{subscribers_} * count));
        }
    }
    const auto to_all = now_ns();
    eventfd_t ignored = 0;
    eventfd_read(done_.get(), &ignored);
    return {static_cast<double>(to_all - from), static_cast<double>(published - from),
            cpu() - cpu_before};
}

std::uint64_t Fleet::wrong() const {
    return shared_->wrong;
}

}  // namespace ipcfs::bench
