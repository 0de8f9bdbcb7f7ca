// The receiver's side of lazy payloads: a range whose pages the producer's process puts there when
// they are first touched, or a whole copy of it where that is not allowed.
//
// One thread of the process (all signals blocked, started with the first such range) watches the
// sockets of all ranges. When a producer is gone it answers the touches of what is still missing,
// with poison where the kernel has it (Linux 6.6: SIGBUS) and else by taking the page's access
// away (SIGSEGV): no thread ever waits for the dead, and what is there stays readable.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <fcntl.h>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <poll.h>
#include <span>
#include <string>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <system_error>
#include <thread>
#include <utility>

#include <ipcfs/control.hpp>
#include <ipcfs/lazy_wire.hpp>
#include <ipcfs/mapping.hpp>
#include <ipcfs/memory.hpp>
#include <ipcfs/process.hpp>
#include <ipcfs/result.hpp>
#include <ipcfs/userfaultfd.hpp>
#include <ipcfs/wait.hpp>

namespace ipcfs {

struct LazyMapOptions {
    Access access = Access::read_only;  // or copy_on_write; read_write: EINVAL
    bool whole = false;                 // a full mapping, even where pages could come one by one
    // The producer gets a userfaultfd of this process, and with that power over its memory: it could
    // fill any page that is missing anywhere. So only producers of the same user, or root's, do; a
    // range from another one is mapped whole, unless this says that all are trusted.
    bool trust_any_user = false;
    Timeout timeout = std::chrono::seconds(30);  // for the producer to answer
};

namespace detail {

// madvise(MADV_POPULATE_READ), Linux 5.14: makes pages present, or says why not, without a signal.
inline constexpr int kPopulateRead = 22;

// A range with a userfaultfd. The watcher holds it until the producer has let go of it, which is
// when its addresses may be used for something else. Any thread; `mutex_` guards what changes.
class FaultRange {
public:
    FaultRange(std::byte* address, std::size_t size, Access access, Fd touches, Fd socket,
               bool can_poison, bool kernel_faults)
        : address_(address),
          size_(size),
          length_(whole_pages(size)),
          access_(access),
          can_poison_(can_poison),
          kernel_faults_(kernel_faults),
          touches_(std::move(touches)),
          socket_(std::move(socket)) {}
    FaultRange(const FaultRange&) = delete;
    FaultRange& operator=(const FaultRange&) = delete;

    std::byte* address() const noexcept { return address_; }
    std::size_t size() const noexcept { return size_; }
    std::size_t length() const noexcept { return length_; }
    Access access() const noexcept { return access_; }
    bool kernel_faults() const noexcept { return kernel_faults_; }
    int touches() const noexcept { return touches_.get(); }
    int socket() const noexcept { return socket_.get(); }
    bool ours() const noexcept { return epoch_ == process_epoch(); }
    bool gone() const {
        const std::scoped_lock hold(mutex_);
        return gone_;
    }

    // Until the producer has said that it serves.
    Expected<void> wait_served(Timeout timeout) {
        std::unique_lock hold(mutex_);
        if (!wait(hold, timeout, [&] { return serving_ || gone_; }))
            return Error{ETIMEDOUT, "attach lazy payload", "the producer does not answer"};
        if (!serving_) return lost();
        return {};
    }

    Expected<void> fetch(std::size_t offset, std::size_t length, Timeout timeout) {
        if (!ours()) return Error{EPIPE, "fetch", "inherited by fork"};
        if (offset > size_ || length > size_ - offset) return Error{EINVAL, "fetch"};
        if (length == 0 || present(offset, length)) return {};
        std::unique_lock hold(mutex_);
        if (gone_) {
            hold.unlock();
            return populate(offset, length);
        }
        const std::uint64_t tag = ++last_tag_;
        answers_[tag];
        hold.unlock();
        const LazyPacket packet{LazyWord::kFetch, 0, tag, offset, length};
        ssize_t sent = 0;
        do {
            sent = ::send(socket_.get(), &packet, sizeof packet, MSG_NOSIGNAL);
        } while (sent < 0 && errno == EINTR);
        hold.lock();
        const bool came = sent == sizeof packet &&
                          wait(hold, timeout, [&] { return gone_ || answers_[tag].has_value(); });
        const std::optional<std::int32_t> answer = answers_[tag];
        answers_.erase(tag);
        if (answer == 0) return {};
        if (answer) return Error{*answer, "fetch"};
        if (sent == sizeof packet && !came) return Error{ETIMEDOUT, "fetch"};
        hold.unlock();
        return populate(offset, length);
    }

    // Bytes of whole pages that are there.
    std::size_t resident() const {
        std::size_t pages = 0;
        each_page(0, length_, [&](bool there) {
            pages += there ? 1 : 0;
            return true;
        });
        return std::min(size_, pages * page_size());
    }

    // The owner's end of it. Never waits: the addresses are kept, without memory, until the producer
    // has closed its end, so that nothing it is about to put there can hit what comes next.
    // True when that is so already and the watcher may forget it.
    bool release() noexcept {
        const std::scoped_lock hold(mutex_);
        released_ = true;
        if (!gone_ &&
            ::mmap(address_, length_, PROT_NONE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) != MAP_FAILED) {
            ::shutdown(socket_.get(), SHUT_WR);
            return false;
        }
        ::munmap(address_, length_);
        return true;
    }

    enum class Socket { kOpen, kEnded, kReleased };

    // The watcher's: something has come on the socket. kEnded: watch touches() in its place.
    Socket socket_ready() {
        const std::scoped_lock hold(mutex_);
        LazyPacket packet;
        while (true) {
            const ssize_t got = ::recv(socket_.get(), &packet, sizeof packet, MSG_DONTWAIT);
            if (got < 0 && errno == EINTR) continue;
            if (got < 0 && errno == EAGAIN) return Socket::kOpen;
            if (got != sizeof packet) break;
            if (packet.word == LazyWord::kServing) {
                serving_ = true;
            } else if (packet.word == LazyWord::kFetched) {
                if (const auto asked = answers_.find(packet.tag); asked != answers_.end())
                    asked->second = packet.error;
            }
            changed_.notify_all();
        }
        gone_ = true;
        changed_.notify_all();
        if (!released_) return Socket::kEnded;
        ::munmap(address_, length_);
        return Socket::kReleased;
    }

    // The watcher's, after kEnded, with touches() watched: has those look again whose touch the
    // producer had taken and not answered.
    void wake_all() noexcept {
        const std::scoped_lock hold(mutex_);
        if (!released_) uffd::wake(touches_.get(), begin(), length_);
    }

    // The watcher's: somebody touched what nobody will put there.
    void touched() noexcept {
        const std::scoped_lock hold(mutex_);
        if (released_) return;
        std::array<uffd_msg, 32> messages;
        const ssize_t got = ::read(touches_.get(), messages.data(), sizeof messages);
        const std::size_t count = got > 0 ? static_cast<std::size_t>(got) / sizeof(uffd_msg) : 0;
        for (const uffd_msg& each : std::span(messages).first(count)) {
            if (each.event != UFFD_EVENT_PAGEFAULT) continue;
            const std::uint64_t page = each.arg.pagefault.address & ~std::uint64_t{page_size() - 1};
            if (page < begin() || page - begin() >= length_) continue;
            const int error =
                can_poison_ ? uffd::poison(touches_.get(), page, page_size()) : ENOTTY;
            if (error == 0) continue;
            if (error != EEXIST) forbid(address_ + (page - begin()));
            uffd::wake(touches_.get(), page, page_size());
        }
    }

private:
    std::uint64_t begin() const noexcept { return reinterpret_cast<std::uintptr_t>(address_); }
    static Error lost() { return Error{ECONNRESET, "lazy payload", "the producer is gone"}; }

    template <class Condition>
    bool wait(std::unique_lock<std::mutex>& hold, Timeout timeout, Condition condition) {
        if (timeout != kForever)
            return changed_.wait_for(hold, Deadline(timeout).left(), condition);
        changed_.wait(hold, condition);
        return true;
    }

    // All of it, if there are too many mappings already to tell the pages apart.
    void forbid(std::byte* page) noexcept {
        if (::mprotect(page, page_size(), PROT_NONE) != 0) ::mprotect(address_, length_, PROT_NONE);
    }

    template <class Use>
    void each_page(std::size_t offset, std::size_t length, Use use) const {
        constexpr std::size_t kPages = 1024;
        const std::size_t page = page_size();
        const std::size_t end = whole_pages(offset + length);
        for (std::size_t at = offset & ~(page - 1); at < end; at += kPages * page) {
            std::array<unsigned char, kPages> there{};
            const std::size_t bytes = std::min(end - at, kPages * page);
            if (::mincore(address_ + at, bytes, there.data()) != 0) there.fill(0);
            for (std::size_t i = 0; i < bytes / page; ++i)
                if (!use((there[i] & 1U) != 0)) return;
        }
    }

    bool present(std::size_t offset, std::size_t length) const {
        bool all = true;
        each_page(offset, length, [&](bool there) { return all = there; });
        return all;
    }

    // Without a producer: what is there, or was swapped out, is still to be had.
    Expected<void> populate(std::size_t offset, std::size_t length) const {
        const std::size_t from = offset & ~(page_size() - 1);
        const std::size_t bytes = whole_pages(offset + length) - from;
        if (present(offset, length) || ::madvise(address_ + from, bytes, kPopulateRead) == 0)
            return {};
        return lost();
    }

    std::byte* const address_;
    const std::size_t size_;
    const std::size_t length_;  // size_, up to whole pages
    const Access access_;
    const bool can_poison_;
    const bool kernel_faults_;
    const std::uint64_t epoch_ = process_epoch();
    const OwnFd touches_;
    const OwnFd socket_;

    mutable std::mutex mutex_;
    std::condition_variable changed_;
    bool serving_ = false;
    bool gone_ = false;      // the producer is: its end of the socket was closed
    bool released_ = false;  // the owner is
    std::uint64_t last_tag_ = 0;
    std::map<std::uint64_t, std::optional<std::int32_t>> answers_;
};

// The thread that watches the ranges of this process. Never destroyed, as it may outlive static
// destruction; a forked child makes its own.
class LazyWatcher {
public:
    static LazyWatcher& of_process() {
        const std::uint64_t epoch = process_epoch();
        LazyWatcher* present = instance_.load(std::memory_order_acquire);
        while (present == nullptr || present->epoch_ != epoch) {
            auto made = std::make_unique<LazyWatcher>(epoch);
            if (instance_.compare_exchange_strong(present, made.get())) present = made.release();
        }
        return *present;
    }

    explicit LazyWatcher(std::uint64_t epoch) : epoch_(epoch) {}
    LazyWatcher(const LazyWatcher&) = delete;
    LazyWatcher& operator=(const LazyWatcher&) = delete;

    Expected<std::uint64_t> add(const std::shared_ptr<FaultRange>& range) {
        const std::scoped_lock hold(mutex_);
        if (auto started = start(); !started) return std::move(started).error();
        const std::uint64_t id = ++last_id_;
        if (!watch(range->socket(), id << 1)) return last_error("watch lazy payload");
        ranges_.emplace(id, range);
        return id;
    }

    void remove(std::uint64_t id) noexcept {
        std::shared_ptr<FaultRange> last;  // destroyed after the lock is gone
        const std::scoped_lock hold(mutex_);
        const auto found = ranges_.find(id);
        if (found == ranges_.end()) return;
        last = std::move(found->second);
        ranges_.erase(found);
        // Said explicitly: the files may live on in other processes.
        ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, last->socket(), nullptr);
        ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, last->touches(), nullptr);
    }

private:
    inline static constinit std::atomic<LazyWatcher*> instance_{nullptr};

    bool watch(int fd, std::uint64_t key) noexcept {
        epoll_event event{};
        event.events = EPOLLIN;
        event.data.u64 = key;
        return ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) == 0;
    }

    // With the lock held.
    Expected<void> start() {
        if (running_) return {};
        epoll_ = OwnFd(Fd(::epoll_create1(EPOLL_CLOEXEC)));
        if (!epoll_) return last_error("watch lazy payload");
        sigset_t all;
        sigset_t before;
        ::sigfillset(&all);
        ::pthread_sigmask(SIG_SETMASK, &all, &before);
        int error = 0;
        try {
            std::thread([this] { run(); }).detach();
        } catch (const std::system_error& failed) {
            error = failed.code().value();
        }
        ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
        if (error != 0) return Error{error, "watch lazy payload"};
        running_ = true;
        return {};
    }

    void run() {
        std::array<epoll_event, 32> events;
        while (true) {
            const int count = ::epoll_wait(epoll_.get(), events.data(), 32, -1);
            for (int i = 0; i < count; ++i) {
                const std::uint64_t key = events[static_cast<std::size_t>(i)].data.u64;
                if (const auto range = find(key >> 1)) serve(*range, key);
            }
        }
    }

    void serve(FaultRange& range, std::uint64_t key) {
        if ((key & 1U) != 0) return range.touched();
        switch (range.socket_ready()) {
            case FaultRange::Socket::kOpen: break;
            case FaultRange::Socket::kReleased: remove(key >> 1); break;
            case FaultRange::Socket::kEnded: {
                {
                    const std::scoped_lock hold(mutex_);
                    if (!ranges_.contains(key >> 1)) return;
                    ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, range.socket(), nullptr);
                    watch(range.touches(), key | 1U);
                }
                range.wake_all();
            }
        }
    }

    std::shared_ptr<FaultRange> find(std::uint64_t id) {
        const std::scoped_lock hold(mutex_);
        const auto found = ranges_.find(id);
        return found == ranges_.end() ? nullptr : found->second;
    }

    const std::uint64_t epoch_;
    std::mutex mutex_;  // before or without a range's
    OwnFd epoll_;
    bool running_ = false;
    std::uint64_t last_id_ = 0;
    std::map<std::uint64_t, std::shared_ptr<FaultRange>> ranges_;
};

// Holds a range for its user. In a forked child the range is not there and nothing is to be done.
struct RangeHold {
    RangeHold(std::shared_ptr<FaultRange> held, std::uint64_t known_as)
        : range(std::move(held)), id(known_as) {}
    RangeHold(const RangeHold&) = delete;
    RangeHold& operator=(const RangeHold&) = delete;
    ~RangeHold() {
        if (range->ours() && range->release()) LazyWatcher::of_process().remove(id);
    }

    const std::shared_ptr<FaultRange> range;
    const std::uint64_t id;
};

}  // namespace detail

// A lazily mapped payload, for as long as a copy of the value lives. Any thread may hold, copy and
// drop copies. A forked child does not have the memory: touching it there is SIGSEGV, as is silently
// reading zeroes not.
class LazyRange {
public:
    LazyRange() = default;

    // Touching a byte waits until its page has come. When the producer is gone and it never will, the
    // toucher gets SIGBUS (SIGSEGV before Linux 6.6). fetch() first, for an error value instead.
    std::span<const std::byte> bytes() const noexcept {
        if (hold_) return {hold_->range->address(), hold_->range->size()};
        return whole_.bytes();
    }
    // The same to be written to, with Access::copy_on_write; else none.
    std::span<std::byte> writable_bytes() const noexcept {
        if (!hold_) return whole_.writable_bytes();
        if (hold_->range->access() == Access::read_only) return {};
        return {hold_->range->address(), hold_->range->size()};
    }
    std::size_t size() const noexcept { return hold_ ? hold_->range->size() : whole_.size(); }

    // Waits until those bytes are there, all by one request, and gives them: touching them needs
    // nobody any more. ECONNRESET: the producer is gone; EINVAL: out of range; ETIMEDOUT.
    Expected<std::span<const std::byte>> fetch(std::size_t offset, std::size_t length,
                                               Timeout timeout = kForever) const {
        if (!hold_) {
            if (offset > size() || length > size() - offset) return Error{EINVAL, "fetch"};
        } else if (auto came = hold_->range->fetch(offset, length, timeout); !came) {
            return std::move(came).error();
        }
        return bytes().subspan(offset, length);
    }

    // How many bytes, of whole pages, are there by now.
    std::size_t resident() const { return hold_ ? hold_->range->resident() : whole_.size(); }
    // Whether the producer is gone: what is not there will never be.
    bool producer_gone() const { return hold_ && hold_->range->gone(); }
    // Whether system calls given bytes that are not there (write(2) from them) wait for these as the
    // program's own loads do. Where not, they fail with EFAULT: fetch() first.
    bool system_calls_wait() const noexcept { return !hold_ || hold_->range->kernel_faults(); }
    // Whether all of it was copied and mapped at once, and why.
    bool fell_back() const noexcept { return !hold_; }
    const std::string& why() const noexcept { return why_; }

    // Maps a lazy payload of `size` bytes. `attach(const ControlLazy&, std::span<const int>)` sends
    // kLazyAttach with those descriptors and gives Expected<void>; `trusted`: see LazyMapOptions.
    template <class Attach>
    static Expected<LazyRange> map(std::uint64_t payload_id, std::uint64_t size, bool trusted,
                                   const LazyMapOptions& options, Attach&& attach) {
        const std::size_t length =
            size > SIZE_MAX ? 0 : detail::whole_pages(static_cast<std::size_t>(size));
        if (length == 0 || options.access == Access::read_write)
            return Error{EINVAL, "map lazy payload"};
        ControlLazy request;
        request.payload_id = payload_id;
        request.length = length;
        LazyRange made;
        if (options.whole) {
            made.why_ = "asked for";
        } else if (!trusted && !options.trust_any_user) {
            made.why_ = "the producer is another user";
        } else if (auto range = prepare(static_cast<std::size_t>(size), options.access); !range) {
            made.why_ = range.error().message();
        } else {
            const auto& prepared = *range;
            request.address = reinterpret_cast<std::uintptr_t>(prepared.hold->range->address());
            const std::array<int, 2> fds{prepared.hold->range->touches(), prepared.peer.get()};
            if (auto sent = attach(request, std::span<const int>(fds)); !sent)
                return std::move(sent).error();
            (*range).peer.reset();
            if (auto served = prepared.hold->range->wait_served(options.timeout); !served)
                return std::move(served).error();
            made.hold_ = prepared.hold;
            return made;
        }
        request.mode = LazyMode::kWhole;
        auto whole = map_whole(request, static_cast<std::size_t>(size), options, attach);
        if (!whole) return std::move(whole).error();
        made.whole_ = std::move(whole).value();
        return made;
    }

    // What is mapped in another way, as if it were lazy.
    LazyRange(Mapping whole, std::string why) : whole_(std::move(whole)), why_(std::move(why)) {}

private:
    struct Prepared {
        std::shared_ptr<detail::RangeHold> hold;
        detail::OwnFd peer;
    };
    struct Pair {
        detail::Fd mine;
        detail::OwnFd peer;
    };

    static Expected<Pair> make_pair() {
        std::array<int, 2> ends{-1, -1};
        if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0)
            return detail::last_error("socketpair");
        return Pair{detail::Fd(ends[0]), detail::OwnFd(detail::Fd(ends[1]))};
    }

    // An error of this is a reason to fall back.
    static Expected<Prepared> prepare(std::size_t size, Access access) {
        auto opened = detail::uffd::open();
        if (!opened) return std::move(opened).error();
        auto pair = make_pair();
        if (!pair) return std::move(pair).error();
        const std::size_t length = detail::whole_pages(size);
        const int protection = access == Access::read_only ? PROT_READ : PROT_READ | PROT_WRITE;
        void* memory =
            ::mmap(nullptr, length, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) return detail::last_error("map");
        auto* address = static_cast<std::byte*>(memory);
        bool can_poison = false;
        auto watched = detail::uffd::watch(opened->fd.get(), address, length, can_poison);
        // A child would read zeroes where pages are missing: it gets none.
        if (watched && ::madvise(memory, length, MADV_DONTFORK) != 0)
            watched = detail::last_error("madvise");
        if (!watched) {
            ::munmap(memory, length);
            return std::move(watched).error();
        }
        auto range = std::make_shared<detail::FaultRange>(
            address, size, access, std::move(opened->fd), std::move(pair->mine), can_poison,
            opened->kernel_faults);
        auto id = detail::LazyWatcher::of_process().add(range);
        if (!id) {
            ::munmap(memory, length);
            return std::move(id).error();
        }
        return Prepared{std::make_shared<detail::RangeHold>(std::move(range), *id),
                        std::move(pair->peer)};
    }

    template <class Attach>
    static Expected<Mapping> map_whole(const ControlLazy& request, std::size_t size,
                                       const LazyMapOptions& options, Attach& attach) {
        constexpr const char* kOperation = "map lazy payload whole";
        auto pair = make_pair();
        if (!pair) return std::move(pair).error();
        auto memory = detail::make_memfd("ipcfs-lazy", request.length, 0, kOperation);
        if (!memory) return std::move(memory).error();
        if (::fcntl(memory->get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0)
            return detail::last_error(kOperation);
        const std::array<int, 2> fds{memory->get(), pair->peer.get()};
        if (auto sent = attach(request, std::span<const int>(fds)); !sent)
            return std::move(sent).error();
        pair->peer.reset();
        auto answer = next_packet(pair->mine.get(), options.timeout);
        if (answer &&
            answer->word == detail::LazyWord::kServing)  // from now on it takes what it takes
            answer = next_packet(pair->mine.get(), kForever);
        if (!answer) return std::move(answer).error();
        if (answer->word != detail::LazyWord::kWhole || answer->error != 0)
            return Error{answer->error != 0 ? answer->error : EPROTO, kOperation};
        // The producer has the descriptor too: what is mapped must not change any more.
        if (::fcntl(memory->get(), F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SEAL) != 0)
            return detail::last_error(kOperation);
        return Mapping::private_of(memory->get(), size, options.access);
    }

    static Expected<detail::LazyPacket> next_packet(int socket, Timeout timeout) {
        constexpr const char* kOperation = "attach lazy payload";
        const detail::Deadline deadline(timeout);
        int ready = 0;
        do {
            ready = detail::poll_one(socket, POLLIN, deadline.left());
        } while ((ready < 0 && errno == EINTR) || (ready == 0 && deadline.forever()));
        if (ready < 0) return detail::last_error(kOperation);
        if (ready == 0) return Error{ETIMEDOUT, kOperation, "the producer does not answer"};
        detail::LazyPacket packet;
        if (::recv(socket, &packet, sizeof packet, MSG_DONTWAIT) != sizeof packet)
            return Error{ECONNRESET, kOperation, "the producer is gone"};
        return packet;
    }

    std::shared_ptr<detail::RangeHold> hold_;
    Mapping whole_;
    std::string why_;
};

}  // namespace ipcfs
