// A range of memory whose missing pages another process provides. Accesses never wait for a dead
// producer. Internal to the client header; lazy_range.hpp is the public side.
//
// The fault reactor watches the sockets of all ranges. When a producer is gone, the reactor
// resolves accesses to missing pages: by poisoning the page (SIGBUS, since Linux 6.6), else by
// removing access to it (SIGSEGV). Pages that are present stay readable.
#pragma once

#include <algorithm>
#include <array>
#include <cerrno>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <sys/mman.h>
#include <sys/socket.h>
#include <utility>

#include <ipcfs/lazy_wire.hpp>
#include <ipcfs/mapping.hpp>
#include <ipcfs/process.hpp>
#include <ipcfs/reactor.hpp>
#include <ipcfs/result.hpp>
#include <ipcfs/userfaultfd.hpp>
#include <ipcfs/wait.hpp>

namespace ipcfs::detail {

// madvise(MADV_POPULATE_READ), Linux 5.14: makes pages present, or returns an error instead of a
// signal.
inline constexpr int kPopulateRead = 22;

// A range with a userfaultfd. The reactor holds it until the producer has closed its end, since
// only then may its addresses be reused. Any thread; `mutex_` guards what changes.
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

    // Waits until the producer says that it serves the range.
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

    std::size_t resident() const {
        std::size_t pages = 0;
        each_page(0, length_, [&](bool there) {
            pages += there ? 1 : 0;
            return true;
        });
        return std::min(size_, pages * page_size());
    }

    // Called by the owner when it is done. Never blocks. Keeps the addresses reserved, without
    // memory, until the producer has closed its end, so that a late page of the producer cannot hit
    // a new mapping. Returns true if that is so already and the reactor may drop the range.
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

    // Called by the reactor when the socket is readable. On kEnded, watch touches() instead of the
    // socket.
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

    // Called by the reactor after kEnded, once touches() is watched: wakes threads whose faults the
    // producer had read but not resolved, so that they fault again.
    void wake_all() noexcept {
        const std::scoped_lock hold(mutex_);
        if (!released_) uffd::wake(touches_.get(), begin(), length_);
    }

    // Called by the reactor: resolves faults on pages that no producer will provide.
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
            if (error != EEXIST) revoke_access(address_ + (page - begin()));
            uffd::wake(touches_.get(), page, page_size());
        }
    }

private:
    std::uint64_t begin() const noexcept { return reinterpret_cast<std::uintptr_t>(address_); }
    static Error lost() { return Error{ECONNRESET, "lazy payload", "the producer is gone"}; }

    template <class Condition>
    bool wait(std::unique_lock<std::mutex>& hold, Timeout timeout, Condition condition) {
        return changed_.wait_for(hold, Deadline(timeout).left(), condition);
    }

    // Revokes access to one page; to the whole range if there are too many mappings to split it.
    void revoke_access(std::byte* page) noexcept {
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

    // Without a producer: pages that are present or swapped out are still available.
    Expected<void> populate(std::size_t offset, std::size_t length) const {
        const std::size_t from = offset & ~(page_size() - 1);
        const std::size_t bytes = whole_pages(offset + length) - from;
        if (present(offset, length) || ::madvise(address_ + from, bytes, kPopulateRead) == 0)
            return {};
        return lost();
    }

    std::byte* const address_;
    const std::size_t size_;
    const std::size_t length_;  // size_, rounded up to whole pages
    const Access access_;
    const bool can_poison_;
    const bool kernel_faults_;
    const std::uint64_t epoch_ = process_epoch();
    const OwnFd touches_;
    const OwnFd socket_;

    mutable std::mutex mutex_;
    std::condition_variable changed_;
    bool serving_ = false;
    bool gone_ = false;      // the producer has closed its end of the socket
    bool released_ = false;  // the owner has called release()
    std::uint64_t last_tag_ = 0;
    std::map<std::uint64_t, std::optional<std::int32_t>> answers_;
};

// Makes the reactor watch a range until both producer and owner have released it. Returns the
// watch's id.
inline Expected<std::uint64_t> watch(const std::shared_ptr<FaultRange>& range) {
    Reactor& reactor = Reactor::of_process(Reactor::Purpose::kFaults);
    return reactor.add(range->socket(), [&reactor, range](std::uint64_t id) {
        switch (range->socket_ready()) {
            case FaultRange::Socket::kOpen: return;
            case FaultRange::Socket::kReleased: return reactor.remove(id);
            case FaultRange::Socket::kEnded:
                const auto touched = [range](std::uint64_t) { range->touched(); };
                if (reactor.replace(id, range->touches(), touched)) range->wake_all();
        }
    });
}

// Releases a range when its user is done. Does nothing in a forked child, which does not have the
// range.
struct RangeHold {
    RangeHold(std::shared_ptr<FaultRange> held, std::uint64_t known_as)
        : range(std::move(held)), id(known_as) {}
    RangeHold(const RangeHold&) = delete;
    RangeHold& operator=(const RangeHold&) = delete;
    ~RangeHold() {
        if (range->ours() && range->release())
            Reactor::of_process(Reactor::Purpose::kFaults).remove(id);
    }

    const std::shared_ptr<FaultRange> range;
    const std::uint64_t id;
};

}  // namespace ipcfs::detail
