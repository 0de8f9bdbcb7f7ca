// The classic transport: requests read from /dev/fuse, on threads of its own, and those that a predecessor left
// unanswered. With io_uring only FORGET and INTERRUPT come this way. take_over() runs before any thread is started.
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <pthread.h>
#include <system_error>
#include <unistd.h>
#include <utility>

#include <base/thread.hpp>
#include <fuse/buffer.hpp>
#include <fuse/session.hpp>
#include <fuse/uapi.hpp>

namespace ipcfs::fuse {

namespace {

// Gets a reader out of read(2) at the end; its handler does nothing.
int wake_signal() {
    return SIGRTMIN + 11;
}

// Of what a predecessor left, these come first.
bool has_no_turn(std::uint32_t opcode) {
    return opcode == FUSE_INTERRUPT || opcode == FUSE_FORGET || opcode == FUSE_BATCH_FORGET;
}

}  // namespace

// The kernel resends what a predecessor had read and not answered, before all new requests, but in no order.
Result<std::vector<std::vector<std::byte>>> Session::collect_left() {
    if (!notify_raw(Notification::kResend, nullptr, 0))
        return errno_fault("ask for requests again");
    const int device = mount_.device().get();
    const int flags = ::fcntl(device, F_GETFL);
    ::fcntl(device, F_SETFL, flags | O_NONBLOCK);
    Buffer buffer(config_.max_write + kHeaderRoom);
    if (buffer && report_.survives) buffer.populate();
    std::vector<std::vector<std::byte>> all;
    Result<void> end;
    for (bool more = true; more && buffer;) {
        const ssize_t got = ::read(device, buffer.data(), buffer.size());
        if (got < 0) {
            if (errno == EINTR || errno == ENOENT) continue;
            if (errno != EAGAIN) end = errno_fault("read /dev/fuse");
            break;
        }
        const auto* bytes = static_cast<const std::byte*>(buffer.data());
        const auto in = read_struct<fuse_in_header>(bytes);
        more = has_no_turn(in.opcode) || (in.unique & kUniqueResent);
        all.emplace_back(bytes, bytes + got);
    }
    ::fcntl(device, F_SETFL, flags);
    if (!end) return end.error();
    // Those without a reply first, then by the order in which they were sent first.
    std::stable_sort(all.begin(), all.end(), [](const auto& a, const auto& b) {
        const auto place = [](const auto& request) -> std::uint64_t {
            const auto in = read_struct<fuse_in_header>(request.data());
            if (has_no_turn(in.opcode)) return 0;
            return in.unique & kUniqueResent ? in.unique & ~kUniqueResent : UINT64_MAX;
        };
        return place(a) < place(b);
    });
    return all;
}

Result<void> Session::take_over() {
    auto requests = collect_left();
    if (!requests) return requests.error();
    std::vector<LeftRequest> left;
    for (const auto& request : *requests) {
        const auto in = read_struct<fuse_in_header>(request.data());
        if (!(in.unique & kUniqueResent) || in.opcode == FUSE_INTERRUPT) continue;
        LeftRequest one{in.unique & ~kUniqueResent, in.opcode, 0};
        if (request.size() >= sizeof in + sizeof one.handle)
            std::memcpy(&one.handle, request.data() + sizeof in, sizeof one.handle);
        left.push_back(one);
    }
    for (const auto& ring : rings_)
        for (const LeftRequest& one : ring->left()) left.push_back(one);
    std::sort(left.begin(), left.end(),
              [](const LeftRequest& a, const LeftRequest& b) { return a.unique < b.unique; });
    report_.taken_over = left.size();
    if (config_.on_take_over) config_.on_take_over(*this, left);
    notify_raw(Notification::kNewEpoch, nullptr, 0);
    for (auto& request : *requests) handle(request.data(), init_counts_);
    return {};
}

// A request that came by /dev/fuse.
void Session::handle(const std::byte* raw, OpcodeCounts& counts) noexcept {
    const auto in = read_struct<fuse_in_header>(raw);
    if (in.opcode == FUSE_INTERRUPT) {
        counts.count(in.opcode);
        return interrupt(read_struct<fuse_interrupt_in>(raw + sizeof in).unique);
    }
    Request request(*this, raw, nullptr, (in.unique & kUniqueResent) != 0);
    dispatch(request, counts);
}

Result<void> Session::start_readers() {
    struct sigaction action {};
    action.sa_handler = [](int) {};
    ::sigaction(wake_signal(), &action, nullptr);  // without SA_RESTART
    for (auto& reader : readers_) {
        try {
            reader->thread =
                start_thread("ipcfs-fuse", [this, r = reader.get()] { read_requests(*r); });
        } catch (const std::system_error&) {
            return Fault{EAGAIN, "start a reader of /dev/fuse"};
        }
    }
    return {};
}

void Session::stop_readers() noexcept {
    for (auto& reader : readers_) {
        if (!reader->thread.joinable()) continue;
        // It may be between its look at `stopping_` and the read: signal until it is through.
        while (!reader->done.load()) {
            ::pthread_kill(reader->thread.native_handle(), wake_signal());
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
        reader->thread.join();
    }
}

void Session::read_requests(Reader& reader) noexcept {
    sigset_t wake;
    ::sigemptyset(&wake);
    ::sigaddset(&wake, wake_signal());
    ::pthread_sigmask(SIG_UNBLOCK, &wake, nullptr);
    const int device = mount_.device().get();
    Buffer buffer(config_.max_write + kHeaderRoom);
    if (buffer && report_.survives) buffer.populate();
    while (buffer && !stopping_.load(std::memory_order_relaxed)) {
        const ssize_t got = ::read(device, buffer.data(), buffer.size());
        if (got < 0) {
            // ENOENT: the requester withdrew it while it was being read.
            if (errno == EINTR || errno == EAGAIN || errno == ENOENT) continue;
            const bool over = errno == ENODEV || errno == ECONNABORTED;
            ended(over ? "the file system was unmounted"
                       : std::string("read /dev/fuse: ") + strerror(errno));
            break;
        }
        if (static_cast<std::size_t>(got) < sizeof(fuse_in_header)) continue;
        handle(static_cast<std::byte*>(buffer.data()), reader.counts);
    }
    reader.done.store(true);
}

void Session::interrupt(std::uint64_t unique) noexcept {
    if (auto op = parked_.find_or_remember(unique, SystemClock().monotonic())) op->interrupt(EINTR);
}

}  // namespace ipcfs::fuse
