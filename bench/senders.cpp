// Many clients at once.
#include "senders.hpp"

#include <array>
#include <atomic>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <sys/epoll.h>
#include <thread>

#include "processes.hpp"

namespace ipcfs::bench {
namespace {

// Of threads that begin together: the rate until the last has ended, and what was timed.
Figures figures(std::uint64_t count, std::int64_t from, std::vector<double>& took) {
    const double seconds = static_cast<double>(now_ns() - from) / 1e9;
    return {static_cast<double>(count) / seconds, percentile(took, 0.5), percentile(took, 0.99)};
}

}  // namespace

Figures rate_of_threads(std::span<const std::unique_ptr<Sender>> senders,
                        std::span<const std::byte> body, std::int64_t lasting) {
    std::atomic<std::size_t> here{0};
    std::atomic<std::int64_t> until{0};
    std::mutex mutex;  // of those below
    std::vector<double> all;
    std::exception_ptr failed;
    const auto work = [&](Sender& sender) {
        std::vector<double> took;
        took.reserve(4096);
        try {
            here.fetch_add(1);
            here.notify_all();
            until.wait(0);
            for (auto now = now_ns(); now < until.load(std::memory_order_relaxed);) {
                sender.send(body);
                const auto after = now_ns();
                took.push_back(static_cast<double>(after - now));
                now = after;
            }
        } catch (...) {
            const std::scoped_lock hold(mutex);
            failed = std::current_exception();
        }
        const std::scoped_lock hold(mutex);
        all.insert(all.end(), took.begin(), took.end());
    };
    std::vector<std::jthread> threads;
    for (const auto& sender : senders)
        threads.emplace_back([&, one = sender.get()] { work(*one); });
    for (std::size_t seen = 0; (seen = here.load()) < senders.size();) here.wait(seen);
    const auto from = now_ns();
    until = from + lasting;
    until.notify_all();
    threads.clear();
    if (failed) std::rethrow_exception(failed);
    return figures(all.size(), from, all);
}

Figures rate_of_one_thread(std::span<const std::unique_ptr<Sender>> senders,
                           std::span<const std::byte> body, std::int64_t lasting) {
    const Fd poll(static_cast<int>(must(epoll_create1(EPOLL_CLOEXEC), "epoll")));
    struct Client {
        SplitSender* sender = nullptr;
        std::int64_t since = 0;
    };
    std::vector<Client> clients;
    for (const auto& sender : senders) {
        clients.push_back({dynamic_cast<SplitSender*>(sender.get()), 0});
        if (!clients.back().sender) throw std::runtime_error("these senders need threads");
    }
    for (Client& client : clients) {
        epoll_event event{EPOLLIN, {&client}};
        must(epoll_ctl(poll.get(), EPOLL_CTL_ADD, client.sender->fd(), &event), "epoll");
    }
    std::vector<double> took;
    const auto from = now_ns();
    for (Client& client : clients) {
        client.since = now_ns();
        client.sender->submit(body);
    }
    for (std::size_t busy = clients.size(); busy > 0;) {
        std::array<epoll_event, 64> events;
        const long ready =
            must(epoll_wait(poll.get(), events.data(), events.size(), 10'000), "epoll");
        if (ready == 0) throw std::runtime_error("no acknowledgement");
        for (long i = 0; i < ready; ++i) {
            auto& client = *static_cast<Client*>(events[static_cast<std::size_t>(i)].data.ptr);
            client.sender->await();
            const auto now = now_ns();
            took.push_back(static_cast<double>(now - client.since));
            client.since = now;
            if (now - from < lasting) {
                client.sender->submit(body);
            } else {
                --busy;
            }
        }
    }
    return figures(took.size(), from, took);
}

}  // namespace ipcfs::bench
