// The classic transport: requests that are read from /dev/fuse, and what a predecessor left unanswered there.
// Beside rings it brings FORGET and INTERRUPT. On threads of its own; take_over() before any is started.
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <exception>
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>
#include <utility>

#include <fuse/buffer.hpp>
#include <fuse/session.hpp>
#include <fuse/uapi.hpp>

namespace ipcfs::fuse {

namespace {

bool connection_is_over(int error) {
    return error == ENODEV || error == ECONNABORTED;
}

}  // namespace

// What a predecessor had read and not answered comes again, before all that is new; but in no order.
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
        const bool aside = in.opcode == FUSE_INTERRUPT || in.opcode == FUSE_FORGET ||
                           in.opcode == FUSE_BATCH_FORGET;
        more = aside || (in.unique & kUniqueResent);
        all.emplace_back(bytes, bytes + got);
    }
    ::fcntl(device, F_SETFL, flags);
    if (!end) return end.error();
    // Those that only tell something first, then by the order in which they once came.
    std::stable_sort(all.begin(), all.end(), [](const auto& a, const auto& b) {
        const auto place = [](const auto& request) -> std::uint64_t {
            const auto in = read_struct<fuse_in_header>(request.data());
            if (in.opcode == FUSE_INTERRUPT || in.opcode == FUSE_FORGET ||
                in.opcode == FUSE_BATCH_FORGET)
                return 0;
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
    for (auto& reader : readers_) {
        try {
            reader->thread = std::thread([this, r = reader.get()] { read_requests(*r); });
        } catch (const std::exception&) {
            return Fault{EAGAIN, "start a reader of /dev/fuse"};
        }
    }
    return {};
}

void Session::read_requests(Reader& reader) noexcept {
    ::pthread_setname_np(::pthread_self(), "ipcfs-fuse");
    const int device = mount_.device().get();
    Buffer buffer(config_.max_write + kHeaderRoom);
    if (buffer && report_.survives) buffer.populate();
    while (buffer && !stopping_.load(std::memory_order_relaxed)) {
        const ssize_t got = ::read(device, buffer.data(), buffer.size());
        if (got < 0) {
            // ENOENT: the requester withdrew it while it was being read.
            if (errno == EINTR || errno == EAGAIN || errno == ENOENT) continue;
            ended(connection_is_over(errno) ? "the file system was unmounted"
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
