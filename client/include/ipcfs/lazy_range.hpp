// LazyRange, the receiver's side of lazy payloads: a range whose pages the producer's process
// provides on first access (fault_range.hpp), or a complete copy where that is not allowed.
#pragma once

#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <fcntl.h>
#include <memory>
#include <poll.h>
#include <span>
#include <string>
#include <sys/mman.h>
#include <sys/socket.h>
#include <utility>

#include <ipcfs/control.hpp>
#include <ipcfs/fault_range.hpp>
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
    bool whole = false;                 // copy everything, even if on-demand pages are possible
    // The producer gets a userfaultfd of this process and with it power over its memory: it could
    // fill any missing page anywhere. So only producers of the same user, or of root, get one;
    // payloads of others are copied completely, unless this option trusts every user.
    bool trust_any_user = false;
    Timeout timeout = std::chrono::seconds(30);  // how long to wait for the producer's answer
};

// A lazily mapped payload; it stays mapped while a copy of this value lives. Any thread may hold,
// copy and drop copies. A forked child does not have the memory: access there is SIGSEGV instead of
// silently reading zeroes.
class LazyRange {
public:
    LazyRange() = default;

    // Accessing a byte waits until its page has arrived. If the producer is gone and the page is
    // missing, the access raises SIGBUS (SIGSEGV before Linux 6.6). Call fetch() first to get an
    // error value instead.
    std::span<const std::byte> bytes() const noexcept {
        if (hold_) return {hold_->range->address(), hold_->range->size()};
        return whole_.bytes();
    }
    // The same bytes, writable, with Access::copy_on_write; otherwise empty.
    std::span<std::byte> writable_bytes() const noexcept {
        if (!hold_) return whole_.writable_bytes();
        if (hold_->range->access() == Access::read_only) return {};
        return {hold_->range->address(), hold_->range->size()};
    }
    std::size_t size() const noexcept { return hold_ ? hold_->range->size() : whole_.size(); }

    // Fetches a range by one request, waits for it, and returns it; accessing it then needs no
    // producer. ECONNRESET: the producer is gone; EINVAL: out of range; ETIMEDOUT.
    Expected<std::span<const std::byte>> fetch(std::size_t offset, std::size_t length,
                                               Timeout timeout = kForever) const {
        if (!hold_) {
            if (offset > size() || length > size() - offset) return Error{EINVAL, "fetch"};
        } else if (auto came = hold_->range->fetch(offset, length, timeout); !came) {
            return std::move(came).error();
        }
        return bytes().subspan(offset, length);
    }

    // How many bytes are present, counting whole pages.
    std::size_t resident() const { return hold_ ? hold_->range->resident() : whole_.size(); }
    // Whether the producer is gone; missing pages then never arrive.
    bool producer_gone() const { return hold_ && hold_->range->gone(); }
    // Whether system calls on missing pages, such as write(2) from them, wait as loads do. If not,
    // they fail with EFAULT: call fetch() first.
    bool system_calls_wait() const noexcept { return !hold_ || hold_->range->kernel_faults(); }
    // Whether everything was copied at once, and why.
    bool fell_back() const noexcept { return !hold_; }
    const std::string& why() const noexcept { return why_; }

    // Maps a lazy payload of `size` bytes. `attach(const ControlLazy&, std::span<const int>)` must
    // send kLazyAttach with these descriptors and return Expected<void>. `trusted`: see
    // LazyMapOptions.
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

    // Wraps memory that is mapped in another way.
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

    // An error makes map() fall back to a complete copy.
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
        // Missing pages would read as zeroes in a child, so keep the range out of it.
        if (watched && ::madvise(memory, length, MADV_DONTFORK) != 0)
            watched = detail::last_error("madvise");
        if (!watched) {
            ::munmap(memory, length);
            return std::move(watched).error();
        }
        auto range = std::make_shared<detail::FaultRange>(
            address, size, access, std::move(opened->fd), std::move(pair->mine), can_poison,
            opened->kernel_faults);
        auto id = detail::watch(range);
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
        if (answer && answer->word == detail::LazyWord::kServing)  // it serves: no timeout any more
            answer = next_packet(pair->mine.get(), kForever);
        if (!answer) return std::move(answer).error();
        if (answer->word != detail::LazyWord::kWhole || answer->error != 0)
            return Error{answer->error != 0 ? answer->error : EPROTO, kOperation};
        // The producer has the descriptor, too: seal it, so that the mapped bytes cannot change.
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
