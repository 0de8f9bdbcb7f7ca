// The producer's side of lazy payloads: puts bytes of its memory into the ranges of the receivers
// that have attached, as these touch them, or whole into their memfds. Internal to the client header.
//
// One thread for each LazyServer, started with its first receiver, all signals blocked; nothing else
// touches the receivers. The memory is read only with `filling` held, and never after stop(), which
// waits for the piece under way but for no receiver: what a hostile one sends may hold up
// the thread, neither its owner nor anything else of this process.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <poll.h>
#include <span>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <ipcfs/control.hpp>
#include <ipcfs/lazy_wire.hpp>
#include <ipcfs/process.hpp>
#include <ipcfs/result.hpp>
#include <ipcfs/toucher_cpu.hpp>
#include <ipcfs/userfaultfd.hpp>
#include <ipcfs/wait.hpp>

namespace ipcfs::detail {

struct LazyTuning {
    std::size_t first_fill = std::size_t{16} << 10;  // bytes for a touch that follows no other
    std::size_t read_ahead = std::size_t{4} << 20;   // bytes at most for one that does
    std::chrono::microseconds spin{50};  // how long to look for the next touch before sleeping
};

// One place that a receiver reads on from. `next` is where its next touch would be if it goes on;
// up to `until` its pages are still to be put there ahead of it.
struct LazyStream {
    std::size_t next = 0;
    std::size_t until = 0;
    std::size_t window = 0;
    std::uint64_t used = 0;
};

// What a receiver is served with: its end decides on the life of this. The server's thread alone.
class LazyReceiver {
public:
    enum class State { kGoesOn, kIdle, kGone };

    LazyReceiver(const ControlLazy& attach, Fd target, Fd socket)
        : address_(attach.address),
          length_(static_cast<std::size_t>(attach.length)),
          mode_(attach.mode),
          target_(std::move(target)),
          socket_(std::move(socket)) {}

    LazyReceiver(const LazyReceiver&) = delete;
    LazyReceiver& operator=(const LazyReceiver&) = delete;
    // The userfaultfd goes before the socket: by its end the receiver knows that nothing can be put
    // into its memory any more. shutdown, since other processes may have copies of the descriptor.
    ~LazyReceiver() {
        target_.reset();
        ::shutdown(socket_.get(), SHUT_RDWR);
    }

    int target() const noexcept { return target_.get(); }
    int socket() const noexcept { return socket_.get(); }
    LazyMode mode() const noexcept { return mode_; }

    // Whether what came is what it should be, for a payload of `size` bytes.
    bool valid(std::size_t size) const noexcept {
        if (length_ == 0 || length_ != whole_pages(size)) return false;
        if (mode_ == LazyMode::kFaults)
            return address_ % page_size() == 0 && address_ <= UINT64_MAX - length_ &&
                   uffd::is_one(target_.get());
        struct stat about {};
        // Only shared memory has seals: a write to it waits for nobody.
        return mode_ == LazyMode::kWhole && ::fcntl(target_.get(), F_GET_SEALS) >= 0 &&
               ::fstat(target_.get(), &about) == 0 && S_ISREG(about.st_mode) &&
               static_cast<std::size_t>(about.st_size) == length_;
    }

    bool say(const LazyPacket& packet) const noexcept {
        return ::send(socket_.get(), &packet, sizeof packet, MSG_NOSIGNAL | MSG_DONTWAIT) ==
               sizeof packet;
    }

    std::uint64_t faults = 0;  // not reported yet
    std::uint64_t pages = 0;

    // Takes what has come on the socket. False when the receiver is gone, or talks nonsense.
    bool take_requests(std::size_t size) {
        while (true) {
            LazyPacket packet;
            const ssize_t got =
                ::recv(socket_.get(), &packet, sizeof packet, MSG_DONTWAIT | MSG_TRUNC);
            if (got < 0) return errno == EAGAIN || errno == EINTR;
            if (got != sizeof packet || packet.word != LazyWord::kFetch ||
                mode_ != LazyMode::kFaults || packet.length > size ||
                packet.offset > size - packet.length || fetches_.size() == kMaxLazyFetches)
                return false;
            const std::size_t from = static_cast<std::size_t>(packet.offset) & ~(page_size() - 1);
            const std::size_t end = static_cast<std::size_t>(packet.offset + packet.length);
            fetches_.push_back(Fetch{packet.tag, from, whole_pages(end)});
            ++faults;
        }
    }

    // Takes the touches that are waiting. False when there is none (or the range is dead).
    bool take_touches(std::span<const std::byte> memory, const LazyTuning& tuning,
                      ToucherCpu& cpu) {
        std::array<uffd_msg, 64> messages;
        const ssize_t got = ::read(target_.get(), messages.data(), sizeof messages);
        if (got <= 0) return false;
        const std::size_t count = static_cast<std::size_t>(got) / sizeof(uffd_msg);
        for (const uffd_msg& each : std::span(messages).first(count)) {
            if (each.event != UFFD_EVENT_PAGEFAULT) continue;
            const std::uint64_t at = each.arg.pagefault.address;
            if (at < address_ || at - address_ >= length_) continue;
            ++faults;
            const bool foretold = touched(
                static_cast<std::size_t>(at - address_) & ~(page_size() - 1), memory, tuning);
            if (foretold) {
                cpu.leave();
            } else {
                cpu.follow(each.arg.pagefault.feat.ptid);
            }
        }
        return true;
    }

    // A piece of what there is still to do without being asked: requests before read-ahead.
    State go_on(std::span<const std::byte> memory) {
        constexpr std::size_t kPiece = std::size_t{256} << 10;
        if (dead_) return State::kGone;
        if (mode_ == LazyMode::kWhole) return fill_whole(memory);
        if (!fetches_.empty()) {
            Fetch& fetch = fetches_.front();
            const std::size_t piece = std::min(kPiece, fetch.end - fetch.at);
            put(fetch.at, piece, memory);
            fetch.at += piece;
            if (fetch.at == fetch.end && !dead_) {
                const bool said = say({LazyWord::kFetched, 0, fetch.tag, 0, 0});
                fetches_.pop_front();
                if (!said) dead_ = true;
            }
        } else {
            for (LazyStream& each : streams_) {
                if (each.next >= each.until) continue;
                const std::size_t piece = std::min(kPiece, each.until - each.next);
                put(each.next, piece, memory);
                each.next += piece;
                break;
            }
        }
        if (dead_) return State::kGone;
        return busy() ? State::kGoesOn : State::kIdle;
    }

    bool busy() const noexcept {
        return mode_ == LazyMode::kWhole || !fetches_.empty() || dead_ ||
               std::any_of(streams_.begin(), streams_.end(),
                           [](const LazyStream& each) { return each.next < each.until; });
    }

private:
    struct Fetch {
        std::uint64_t tag;
        std::size_t at;
        std::size_t end;
    };

    // A touch where a stream goes on doubles that one's window; any other one gets a small block and
    // begins a stream in place of the one used longest ago. Whether it was the former.
    bool touched(std::size_t at, std::span<const std::byte> memory, const LazyTuning& tuning) {
        const std::size_t page = page_size();
        const std::size_t first = std::max(whole_pages(tuning.first_fill), page);
        LazyStream* stream = nullptr;
        for (LazyStream& each : streams_)
            if (each.window != 0 && at >= each.next && at <= std::max(each.until, each.next))
                stream = &each;
        if (stream != nullptr) {
            stream->window = std::min(stream->window * 2, std::max(tuning.read_ahead, first));
        } else {
            stream = &*std::min_element(
                streams_.begin(), streams_.end(),
                [](const LazyStream& a, const LazyStream& b) { return a.used < b.used; });
            stream->window = first;
        }
        stream->used = ++clock_;
        // What waits is served first and alone; the rest of the window while it goes on.
        const std::size_t block = stream->window == first ? at - at % first : at;
        const std::size_t end = std::min(length_, block + std::min(stream->window, first * 4));
        put(at, end - at, memory);
        if (block < at) put(block, at - block, memory);
        stream->next = end;
        stream->until = std::min(length_, std::max(end, at + whole_pages(stream->window)));
        if (stream->window == first) stream->until = end;
        return stream->window != first;
    }

    // Puts the pages of `offset`, `length` there that are not there yet.
    void put(std::size_t offset, std::size_t length, std::span<const std::byte> memory) {
        const std::size_t page = page_size();
        const std::size_t last = memory.size() & ~(page - 1);  // from there on, less than a page
        std::size_t most = length;                             // that one call may do
        int patience = 1000;
        while (length != 0 && !dead_) {
            const std::byte* from = memory.data() + offset;
            std::size_t piece = std::min(most, length);
            if (offset < last) {
                piece = std::min(piece, last - offset);
            } else {
                tail_.assign(page, std::byte{0});
                std::copy(memory.begin() + static_cast<std::ptrdiff_t>(offset), memory.end(),
                          tail_.begin());
                from = tail_.data();
                piece = page;
            }
            auto done = uffd::copy(target_.get(), address_ + offset, from, piece);
            pages += done.bytes / 4096;
            if (done.bytes == 0) {
                switch (done.error) {
                    case EEXIST:
                        // Whoever waits there came too late to be woken by the copy.
                        uffd::wake(target_.get(), address_ + offset, page);
                        done.bytes = page;
                        break;
                    case EAGAIN:  // its mappings are just changing
                        if (--patience == 0) dead_ = true;
                        std::this_thread::yield();
                        break;
                    case ENOENT:  // not one mapping any more, or none of a userfaultfd
                        if (piece > page) {
                            most = std::max(page, (piece / 2) & ~(page - 1));
                        } else {
                            uffd::wake(target_.get(), address_ + offset, page);
                            done.bytes = page;
                        }
                        break;
                    default:  // it has died (ESRCH, ENOSPC), has no memory, or ours is unreadable
                        dead_ = true;
                }
            }
            offset += done.bytes;
            length -= std::min(length, done.bytes);
        }
    }

    State fill_whole(std::span<const std::byte> memory) {
        constexpr std::size_t kPiece = std::size_t{1} << 20;
        const std::size_t piece = std::min(kPiece, memory.size() - written_);
        const ssize_t done =
            ::pwrite(target_.get(), memory.data() + written_, piece, static_cast<off_t>(written_));
        if (done < 0 && errno == EINTR) return State::kGoesOn;
        if (done <= 0) {
            say({LazyWord::kWhole, done < 0 ? errno : EIO, 0, 0, 0});
            return State::kGone;
        }
        written_ += static_cast<std::size_t>(done);
        pages += (static_cast<std::size_t>(done) + 4095) / 4096;
        if (written_ < memory.size()) return State::kGoesOn;
        say({LazyWord::kWhole, 0, 0, 0, 0});
        return State::kGone;
    }

    std::uint64_t address_;
    std::size_t length_;
    LazyMode mode_;
    OwnFd target_;
    OwnFd socket_;
    std::array<LazyStream, 8> streams_{};
    std::uint64_t clock_ = 0;
    std::deque<Fetch> fetches_;
    std::vector<std::byte> tail_;
    std::size_t written_ = 0;
    bool dead_ = false;
};

class LazyServer {
public:
    struct Totals {
        std::uint64_t receivers = 0;  // that ever attached
        std::uint64_t attached = 0;   // now
        std::uint64_t faults = 0;
        std::uint64_t pages = 0;  // of 4 KiB
    };
    // What was done since the last call; runs on the server's thread, with no lock.
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

    // Serves a receiver; what is not as it should be is dropped, which the receiver sees as the end
    // of its socket. Any thread.
    void attach(const ControlLazy& attach, Fd target, Fd socket) {
        if (!shared_->ours()) return;
        auto receiver =
            std::make_unique<LazyReceiver>(attach, std::move(target), std::move(socket));
        const std::scoped_lock hold(shared_->mutex);
        if (shared_->stopping || shared_->totals.attached >= kMaxReceivers ||
            !receiver->valid(shared_->memory.size()) || !start() ||
            !receiver->say({LazyWord::kServing, 0, 0, 0, 0}))
            return;
        ++shared_->totals.receivers;
        ++shared_->totals.attached;
        shared_->arrivals.push_back(std::move(receiver));
        wake();
    }

    // No byte of the memory is read any more when this returns. The receivers see the end.
    void stop() noexcept {
        if (!shared_->ours())
            return;  // a child: its thread was not inherited, its locks may be held
        shared_->stopping = true;
        { const std::scoped_lock wait(shared_->filling); }
        const std::scoped_lock hold(shared_->mutex);
        if (shared_->running) wake();
    }

    // Waits until no receiver is attached; false when the time is up.
    bool wait_idle(Timeout timeout) {
        if (!shared_->ours()) return true;
        std::unique_lock hold(shared_->mutex);
        const auto idle = [&] { return shared_->totals.attached == 0; };
        if (timeout != kForever)
            return shared_->idle.wait_for(hold, Deadline(timeout).left(), idle);
        shared_->idle.wait(hold, idle);
        return true;
    }

    Totals totals() const {
        if (!shared_->ours()) return {};
        const std::scoped_lock hold(shared_->mutex);
        return shared_->totals;
    }

private:
    // Lives as long as the longer of owner and thread. Lock order: filling before mutex.
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
        sigset_t all;
        sigset_t before;
        ::sigfillset(&all);
        ::pthread_sigmask(SIG_SETMASK, &all, &before);
        try {
            std::thread([shared = shared_] { run(*shared); }).detach();
            shared_->running = true;
        } catch (const std::system_error&) {
        }
        ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
        return shared_->running;
    }

    void wake() noexcept {
        const std::uint64_t one = 1;
        [[maybe_unused]] const ssize_t rung =
            ::write(shared_->doorbell.get(), &one, sizeof one);  // full: it is awake
    }

    using Clock = std::chrono::steady_clock;

    // The thread's own.
    struct Round {
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
    };

    static void run(Shared& shared) {
        Round round;
        while (!shared.stopping) {
            take_arrivals(shared, round);
            if (!round.busy() && !spin(shared, round)) sleep(shared, round);
            work(shared, round);
            if (round.reportable() && Clock::now() - round.reported >= kReportEach)
                report(shared, round);
        }
        take_arrivals(shared, round);
        for (auto& each : round.receivers) drop(shared, round, each);
        round.receivers.clear();
        report(shared, round);
    }

    static void take_arrivals(Shared& shared, Round& round) {
        const std::scoped_lock hold(shared.mutex);
        for (auto& each : shared.arrivals) round.receivers.push_back(std::move(each));
        shared.arrivals.clear();
    }

    // One look at every receiver and one piece of its work.
    static void work(Shared& shared, Round& round) {
        for (auto& each : round.receivers) {
            std::unique_lock fill(shared.filling);
            if (shared.stopping) return;
            bool alive = each->take_requests(shared.memory.size());
            if (alive && each->mode() == LazyMode::kFaults)
                each->take_touches(shared.memory, shared.tuning, round.cpu);
            if (alive) alive = each->go_on(shared.memory) != LazyReceiver::State::kGone;
            fill.unlock();
            if (alive) {
                account(shared, round, *each);
            } else {
                drop(shared, round, each);
            }
        }
        std::erase(round.receivers, nullptr);
    }

    static void account(Shared& shared, Round& round, LazyReceiver& receiver) {
        if (receiver.faults == 0 && receiver.pages == 0) return;
        const std::scoped_lock hold(shared.mutex);
        shared.totals.faults += receiver.faults;
        shared.totals.pages += receiver.pages;
        round.faults += std::exchange(receiver.faults, 0);
        round.pages += std::exchange(receiver.pages, 0);
    }

    static void drop(Shared& shared, Round& round, std::unique_ptr<LazyReceiver>& receiver) {
        account(shared, round, *receiver);
        report(shared, round);  // before anybody knows that it is over, and may end the process
        receiver.reset();
        const std::scoped_lock hold(shared.mutex);
        if (--shared.totals.attached == 0) shared.idle.notify_all();
    }

    // For a while the next touch is looked for without sleeping: being woken by another CPU costs more
    // than serving it. True when there is something to do.
    static bool spin(Shared& shared, Round& round) {
        if (round.receivers.size() != 1 || round.cpu.following()) return false;
        LazyReceiver& receiver = *round.receivers.front();
        const auto until = Clock::now() + shared.tuning.spin;
        do {
            {
                const std::scoped_lock fill(shared.filling);
                if (shared.stopping ||
                    receiver.take_touches(shared.memory, shared.tuning, round.cpu))
                    return true;
            }
            std::this_thread::yield();
        } while (Clock::now() < until);
        return false;
    }

    static void sleep(Shared& shared, Round& round) {
        std::vector<pollfd> polled{{shared.doorbell.get(), POLLIN, 0}};
        for (const auto& each : round.receivers) {
            polled.push_back({each->socket(), POLLIN, 0});
            polled.push_back({each->target(), POLLIN, 0});
        }
        const int limit = round.reportable() ? static_cast<int>(kReportEach.count()) : -1;
        ::poll(polled.data(), polled.size(), limit);
        std::uint64_t rung = 0;
        [[maybe_unused]] const ssize_t got =
            ::read(shared.doorbell.get(), &rung, sizeof rung);  // nothing there is fine
    }

    static void report(Shared& shared, Round& round) {
        if (shared.report && round.reportable()) shared.report(round.faults, round.pages);
        round.faults = 0;
        round.pages = 0;
        round.reported = Clock::now();
    }

    static constexpr std::chrono::milliseconds kReportEach{100};
    static constexpr std::size_t kMaxReceivers = 1024;

    std::shared_ptr<Shared> shared_;
};

}  // namespace ipcfs::detail
