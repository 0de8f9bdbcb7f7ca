// One receiver of a lazy payload, as its producer sees it; decides which pages it gets next.
// Internal to the client header. Used only by the LazyServer's thread; input from the receiver is
// not trusted.
#pragma once

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <fcntl.h>
#include <span>
#include <sys/socket.h>
#include <sys/stat.h>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

#include <ipcfs/control.hpp>
#include <ipcfs/lazy_wire.hpp>
#include <ipcfs/process.hpp>
#include <ipcfs/toucher_cpu.hpp>
#include <ipcfs/userfaultfd.hpp>

namespace ipcfs::detail {

struct LazyTuning {
    std::size_t first_fill = std::size_t{16} << 10;  // bytes for an access that continues no other
    std::size_t read_ahead = std::size_t{4} << 20;   // the most bytes for one that does
    std::chrono::microseconds spin{50};              // how long to poll before sleeping
};

// A sequential read by a receiver. Its next fault is expected at `next`; pages up to `until` are
// still to be sent ahead of it.
struct LazyStream {
    std::size_t next = 0;
    std::size_t until = 0;
    std::size_t window = 0;
    std::uint64_t used = 0;
};

// Serves one receiver, which may end it at any time. Used only by the server's thread.
class LazyReceiver {
public:
    enum class State { kBusy, kIdle, kGone };

    LazyReceiver(const ControlLazy& attach, Fd target, Fd socket)
        : address_(attach.address),
          length_(static_cast<std::size_t>(attach.length)),
          mode_(attach.mode),
          target_(std::move(target)),
          socket_(std::move(socket)) {}

    LazyReceiver(const LazyReceiver&) = delete;
    LazyReceiver& operator=(const LazyReceiver&) = delete;
    // Closes the userfaultfd before the socket: the end of the socket tells the receiver that its
    // memory cannot be changed any more. Uses shutdown, since other processes may hold copies of
    // the socket.
    ~LazyReceiver() {
        target_.reset();
        ::shutdown(socket_.get(), SHUT_RDWR);
    }

    int target() const noexcept { return target_.get(); }
    int socket() const noexcept { return socket_.get(); }
    LazyMode mode() const noexcept { return mode_; }

    // Whether the descriptors fit the mode and a payload of `size` bytes.
    bool valid(std::size_t size) const noexcept {
        if (length_ == 0 || length_ != whole_pages(size)) return false;
        if (mode_ == LazyMode::kFaults)
            return address_ % page_size() == 0 && address_ <= UINT64_MAX - length_ &&
                   uffd::is_one(target_.get());
        struct stat about {};
        // Only memory files have seals; writing to them never blocks.
        return mode_ == LazyMode::kWhole && ::fcntl(target_.get(), F_GET_SEALS) >= 0 &&
               ::fstat(target_.get(), &about) == 0 && S_ISREG(about.st_mode) &&
               static_cast<std::size_t>(about.st_size) == length_;
    }

    bool reply(const LazyPacket& packet) const noexcept {
        return ::send(socket_.get(), &packet, sizeof packet, MSG_NOSIGNAL | MSG_DONTWAIT) ==
               sizeof packet;
    }

    std::uint64_t faults = 0;  // to be reported
    std::uint64_t pages = 0;

    // Reads requests from the socket. False if the receiver is gone or sent an invalid one.
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

    // Reads pending page faults; returns whether there are any. A hostile receiver can make this
    // block by changing the flags of the shared open file: never call it under a lock.
    bool take_touches() noexcept {
        const ssize_t got = ::read(target_.get(), touches_.data(), sizeof touches_);
        taken_ = got > 0 ? static_cast<std::size_t>(got) / sizeof(uffd_msg) : 0;
        return taken_ != 0;
    }

    void answer_touches(std::span<const std::byte> memory, const LazyTuning& tuning,
                        ToucherCpu& cpu) {
        for (const uffd_msg& each : std::span(touches_).first(std::exchange(taken_, 0))) {
            if (each.event != UFFD_EVENT_PAGEFAULT) continue;
            const std::uint64_t at = each.arg.pagefault.address;
            if (at < address_ || at - address_ >= length_) continue;
            ++faults;
            const std::size_t page = static_cast<std::size_t>(at - address_) & ~(page_size() - 1);
            if (touched(page, memory, tuning)) {
                cpu.leave();
            } else {
                cpu.follow(each.arg.pagefault.feat.ptid);
            }
        }
    }

    // Sends one piece of outstanding pages: requests first, then read-ahead.
    State send_piece(std::span<const std::byte> memory) {
        constexpr std::size_t kPiece = std::size_t{256} << 10;
        if (dead_) return State::kGone;
        if (mode_ == LazyMode::kWhole) return fill_whole(memory);
        if (!fetches_.empty()) {
            Fetch& fetch = fetches_.front();
            const std::size_t piece = std::min(kPiece, fetch.end - fetch.at);
            fill(fetch.at, piece, memory);
            fetch.at += piece;
            if (fetch.at == fetch.end && !dead_) {
                const bool replied = reply({LazyWord::kFetched, 0, fetch.tag, 0, 0});
                fetches_.pop_front();
                if (!replied) dead_ = true;
            }
        } else {
            for (LazyStream& each : streams_) {
                if (each.next >= each.until) continue;
                const std::size_t piece = std::min(kPiece, each.until - each.next);
                fill(each.next, piece, memory);
                each.next += piece;
                break;
            }
        }
        if (dead_) return State::kGone;
        return busy() ? State::kBusy : State::kIdle;
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

    // Answers a page fault. A fault that continues a stream doubles its window. Any other fault
    // gets a small block and starts a stream in place of the least recently used one. Returns
    // whether it continued a stream.
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
        // Send the page that is waited for first, then the rest of the window.
        const std::size_t block = stream->window == first ? at - at % first : at;
        const std::size_t end = std::min(length_, block + std::min(stream->window, first * 4));
        fill(at, end - at, memory);
        if (block < at) fill(block, at - block, memory);
        stream->next = end;
        stream->until = std::min(length_, std::max(end, at + whole_pages(stream->window)));
        if (stream->window == first) stream->until = end;
        return stream->window != first;
    }

    // Fills the missing pages from `offset` on, `length` bytes.
    void fill(std::size_t offset, std::size_t length, std::span<const std::byte> memory) {
        const std::size_t page = page_size();
        const std::size_t last = memory.size() & ~(page - 1);  // the last, partial page starts here
        std::size_t most = length;                             // the most bytes of one call
        int retries = 1000;
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
                        // The page is present, but a thread may have faulted too late for the copy
                        // to wake it.
                        uffd::wake(target_.get(), address_ + offset, page);
                        done.bytes = page;
                        break;
                    case EAGAIN:  // the receiver's mappings are changing
                        if (--retries == 0) dead_ = true;
                        std::this_thread::yield();
                        break;
                    case ENOENT:  // no longer one mapping, or not one of the userfaultfd
                        if (piece > page) {
                            most = std::max(page, (piece / 2) & ~(page - 1));
                        } else {
                            uffd::wake(target_.get(), address_ + offset, page);
                            done.bytes = page;
                        }
                        break;
                    default:  // it has died (ESRCH, ENOSPC), lacks memory, or our memory is unreadable
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
        if (done < 0 && errno == EINTR) return State::kBusy;
        if (done <= 0) {
            reply({LazyWord::kWhole, done < 0 ? errno : EIO, 0, 0, 0});
            return State::kGone;
        }
        written_ += static_cast<std::size_t>(done);
        pages += (static_cast<std::size_t>(done) + 4095) / 4096;
        if (written_ < memory.size()) return State::kBusy;
        reply({LazyWord::kWhole, 0, 0, 0, 0});
        return State::kGone;
    }

    std::uint64_t address_;
    std::size_t length_;
    LazyMode mode_;
    OwnFd target_;
    OwnFd socket_;
    std::array<uffd_msg, 64> touches_;
    std::size_t taken_ = 0;
    std::array<LazyStream, 8> streams_{};
    std::uint64_t clock_ = 0;
    std::deque<Fetch> fetches_;
    std::vector<std::byte> tail_;
    std::size_t written_ = 0;
    bool dead_ = false;
};

}  // namespace ipcfs::detail
