// The producer's side of lazy payloads: copies its memory into the ranges of attached receivers on
// their page faults, or completely into their memfds. Internal to the client header.
//
// Each LazyServer has one thread, started with its first receiver; only that thread touches the
// receivers. It reads the memory only with `filling` held, and never after stop(), which waits for
// the piece in progress but for no receiver: a hostile receiver can block the thread, but not its
// owner or anything else in this process.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <poll.h>
#include <sched.h>
#include <span>
#include <sys/eventfd.h>
#include <utility>
#include <vector>

#include <ipcfs/control.hpp>
#include <ipcfs/lazy_receiver.hpp>
#include <ipcfs/lazy_wire.hpp>
#include <ipcfs/process.hpp>
#include <ipcfs/reactor.hpp>
#include <ipcfs/result.hpp>
#include <ipcfs/toucher_cpu.hpp>
#include <ipcfs/wait.hpp>

namespace ipcfs::detail {

class LazyServer {
public:
    struct Totals {
        std::uint64_t receivers = 0;  // receivers so far
        std::uint64_t attached = 0;   // now
        std::uint64_t faults = 0;
        std::uint64_t pages = 0;  // of 4 KiB
    };
    // Reports the work since the last call. Runs on the server's thread, without a lock.
    using Report = std::function<void(std::uint64_t faults, std::uint64_t pages)>;

    LazyServer(std::span<const std::byte> memory, LazyTuning tuning, Report report)
        : shared_(std::make_shared<Shared>()) {
        shared_->memory = memory;
        shared_->tuning = tuning;
        shared_->report = std::move(report);
    }
    LazyServer(const LazyServer&) = delete;
    LazyServer& operator=(const LazyServer&) = delete;
    ~LazyServer() { stop(); }

    // Serves a receiver. Drops one whose request is invalid; it sees the end of its socket. Any thread.
    void attach(const ControlLazy& attach, Fd target, Fd socket) {
        if (!shared_->ours()) return;
        auto receiver =
            std::make_unique<LazyReceiver>(attach, std::move(target), std::move(socket));
        const std::scoped_lock hold(shared_->mutex);
        if (shared_->stopping || shared_->totals.attached >= kMaxReceivers ||
            !receiver->valid(shared_->memory.size()) || !start() ||
            !receiver->reply({LazyWord::kServing, 0, 0, 0, 0}))
            return;
        ++shared_->totals.receivers;
        ++shared_->totals.attached;
        shared_->arrivals.push_back(std::move(receiver));
        wake();
    }

    // After this returns, the memory is not read any more. Receivers see the end of their sockets.
    void stop() noexcept {
        if (!shared_->ours())
            return;  // a forked child has no such thread, and its locks may be held
        shared_->stopping = true;
        { const std::scoped_lock wait(shared_->filling); }
        const std::scoped_lock hold(shared_->mutex);
        if (shared_->running) wake();
    }

    // Waits until no receiver is attached; false on timeout.
    bool wait_idle(Timeout timeout) {
        if (!shared_->ours()) return true;
        std::unique_lock hold(shared_->mutex);
        return shared_->idle.wait_for(hold, Deadline(timeout).left(),
                                      [&] { return shared_->totals.attached == 0; });
    }

    Totals totals() const {
        if (!shared_->ours()) return {};
        const std::scoped_lock hold(shared_->mutex);
        return shared_->totals;
    }

private:
    // Shared by owner and thread; lives as long as either. Lock order: filling before mutex.
    struct Shared {
        std::span<const std::byte> memory;
        LazyTuning tuning;
        Report report;
        const std::uint64_t epoch = process_epoch();
        std::mutex filling;
        mutable std::mutex mutex;
        std::condition_variable idle;
        std::vector<std::unique_ptr<LazyReceiver>> arrivals;
        Totals totals;
        std::atomic<bool> stopping{false};
        bool running = false;
        OwnFd doorbell;

        bool ours() const noexcept { return epoch == process_epoch(); }
    };
    using Receivers = std::vector<std::unique_ptr<LazyReceiver>>;

    // With the mutex held.
    bool start() {
        if (shared_->running) return true;
        shared_->doorbell = OwnFd(Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)));
        if (!shared_->doorbell) return false;
        const auto started = start_thread("ipcfs-lazy", "serve lazy payload",
                                          [shared = shared_] { Service(*shared).run(); });
        shared_->running = started.has_value();
        return shared_->running;
    }

    void wake() noexcept {
        const std::uint64_t one = 1;
        [[maybe_unused]] const ssize_t rung =
            ::write(shared_->doorbell.get(), &one,
                    sizeof one);  // if the counter is full, the thread is awake
    }

    using Clock = std::chrono::steady_clock;

    // The thread.
    struct Service {
        explicit Service(Shared& of) : shared(of) {}

        Shared& shared;
        Receivers receivers;
        std::uint64_t faults = 0;  // not reported yet
        std::uint64_t pages = 0;
        Clock::time_point reported = Clock::now();
        ToucherCpu cpu;

        bool busy() const noexcept {
            return std::any_of(receivers.begin(), receivers.end(),
                               [](const auto& each) { return each->busy(); });
        }
        bool reportable() const noexcept { return faults != 0 || pages != 0; }

        void run() {
            while (!shared.stopping) {
                take_arrivals();
                if (!busy() && !spin()) sleep();
                work();
                if (reportable() && Clock::now() - reported >= kReportInterval) report();
            }
            take_arrivals();
            for (auto& each : receivers) drop(each);
            receivers.clear();
            report();
        }

        void take_arrivals() {
            const std::scoped_lock hold(shared.mutex);
            for (auto& each : shared.arrivals) receivers.push_back(std::move(each));
            shared.arrivals.clear();
        }

        // Polls every receiver once and sends one piece to each.
        void work() {
            for (auto& each : receivers) {
                bool alive = each->take_requests(shared.memory.size());
                const bool touched = each->mode() == LazyMode::kFaults && each->take_touches();
                std::unique_lock fill(shared.filling);
                if (shared.stopping) return;
                if (alive && touched) each->answer_touches(shared.memory, shared.tuning, cpu);
                if (alive) alive = each->send_piece(shared.memory) != LazyReceiver::State::kGone;
                fill.unlock();
                if (alive) {
                    account(*each);
                } else {
                    drop(each);
                }
            }
            std::erase(receivers, nullptr);
        }

        void account(LazyReceiver& receiver) {
            if (receiver.faults == 0 && receiver.pages == 0) return;
            const std::scoped_lock hold(shared.mutex);
            shared.totals.faults += receiver.faults;
            shared.totals.pages += receiver.pages;
            faults += std::exchange(receiver.faults, 0);
            pages += std::exchange(receiver.pages, 0);
        }

        void drop(std::unique_ptr<LazyReceiver>& receiver) {
            account(*receiver);
            report();  // first: the owner may exit as soon as it sees the end
            receiver.reset();
            const std::scoped_lock hold(shared.mutex);
            if (--shared.totals.attached == 0) shared.idle.notify_all();
        }

        // Polls for the next page fault without sleeping for a while: being woken by another CPU costs
        // more than serving the fault. True if there is something to do.
        bool spin() {
            if (receivers.size() != 1 || cpu.following()) return false;
            LazyReceiver& receiver = *receivers.front();
            const auto until = Clock::now() + shared.tuning.spin;
            do {
                if (receiver.take_touches()) {
                    const std::scoped_lock fill(shared.filling);
                    if (!shared.stopping)
                        receiver.answer_touches(shared.memory, shared.tuning, cpu);
                    return true;
                }
                if (shared.stopping) return true;
                ::sched_yield();
            } while (Clock::now() < until);
            return false;
        }

        void sleep() {
            std::vector<pollfd> polled{{shared.doorbell.get(), POLLIN, 0}};
            for (const auto& each : receivers) {
                polled.push_back({each->socket(), POLLIN, 0});
                polled.push_back({each->target(), POLLIN, 0});
            }
            const int limit = reportable() ? static_cast<int>(kReportInterval.count()) : -1;
            ::poll(polled.data(), polled.size(), limit);
            std::uint64_t rung = 0;
            [[maybe_unused]] const ssize_t got =
                ::read(shared.doorbell.get(), &rung, sizeof rung);  // it may be empty
        }

        void report() {
            if (shared.report && reportable()) shared.report(faults, pages);
            faults = 0;
            pages = 0;
            reported = Clock::now();
        }
    };

    static constexpr std::chrono::milliseconds kReportInterval{100};
    static constexpr std::size_t kMaxReceivers = 1024;

    std::shared_ptr<Shared> shared_;
};

}  // namespace ipcfs::detail
