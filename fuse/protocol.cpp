// Any thread.
#include <algorithm>
#include <charconv>
#include <cinttypes>
#include <cstdio>
#include <fcntl.h>
#include <string>
#include <unistd.h>
#include <utility>

#include <base/check.hpp>
#include <base/fd.hpp>
#include <base/process.hpp>
#include <fuse/protocol.hpp>
#include <fuse/session.hpp>

namespace ipcfs::fuse {

Request::Request(Request&& other) noexcept
    : session_(other.session_),
      entry_(other.entry_),
      raw_(nullptr),
      answers_(other.answers_),
      header_(other.header_),
      state_(std::exchange(other.state_, State::kMoved)),
      left_(other.left_),
      is_parked_(other.is_parked_) {}

access::Subject Request::subject() const noexcept {
    const auto tid = static_cast<pid_t>(header_.pid);
    return {header_.uid, header_.gid, recent_thread_group(tid), tid};
}

std::vector<gid_t> Request::groups() const {
    const std::string task = std::to_string(header_.pid);
    const Fd file(
        ::open(("/proc/" + task + "/task/" + task + "/status").c_str(), O_RDONLY | O_CLOEXEC));
    std::string status;
    char part[4096];
    for (ssize_t got = 0; file && (got = ::read(file.get(), part, sizeof part)) > 0;)
        status.append(part, static_cast<std::size_t>(got));
    constexpr std::string_view kKey = "\nGroups:";
    std::vector<gid_t> groups;
    std::size_t at = status.find(kKey);
    if (at == std::string::npos) return groups;
    const char* const end = status.data() + std::min(status.find('\n', at + 1), status.size());
    for (const char* next = status.data() + at + kKey.size(); next != end;) {
        gid_t group = 0;
        const auto [after, error] = std::from_chars(next, end, group);
        if (error == std::errc()) groups.push_back(group);
        next = error == std::errc() ? after : next + 1;
    }
    return groups;
}

void Request::begin_answer() noexcept {
    IPCFS_CHECK(state_ == State::kOpen);
    state_ = State::kAnswered;
    if (std::exchange(is_parked_, false)) session_->unpark(*this);
    if (answers_) answers_->fetch_add(1, std::memory_order_release);
}

bool Request::fail(int error) noexcept {
    begin_answer();
    fuse_out_header out{sizeof out, -error, header_.unique};
    const iovec part{&out, sizeof out};
    return session_->send(entry_, &part, 1);
}

bool Request::reply(std::span<const std::byte> first, std::span<const std::byte> second) noexcept {
    begin_answer();
    const std::size_t size = sizeof(fuse_out_header) + first.size() + second.size();
    fuse_out_header out{static_cast<std::uint32_t>(size), 0, header_.unique};
    const iovec parts[3] = {{&out, sizeof out},
                            {const_cast<std::byte*>(first.data()), first.size()},
                            {const_cast<std::byte*>(second.data()), second.size()}};
    return session_->send(entry_, parts, second.empty() ? 2 : 3);
}

bool Request::reply_file(const FileBytes& bytes) noexcept {
    begin_answer();
    return session_->send(entry_, fuse_out_header{0, 0, header_.unique}, bytes);
}

// ---- what a session does with a request -----------------------------------------------------------

void Session::dispatch(Request& request, OpcodeCounts& counts) noexcept {
    const std::uint32_t opcode = request.header().opcode;
    counts.count(opcode);
    if (config_.debug) {
        const fuse_in_header& in = request.header();
        std::fprintf(stderr, "unique %" PRIu64 " opcode %u node %" PRIu64 " bytes %u pid %u\n",
                     in.unique, opcode, in.nodeid, in.len, in.pid);
    }
    if (opcode == FUSE_FORGET || opcode == FUSE_BATCH_FORGET || opcode == FUSE_NOTIFY_REPLY) return;
    const Handler handler = opcode < kOpcodes ? system_.handlers[opcode] : nullptr;
    if (handler) {
        handler(request);
        IPCFS_CHECK(!request.is_open());  // neither answered nor parked
    } else {
        const bool is_done = opcode == FUSE_RELEASEDIR || opcode == FUSE_DESTROY;
        request.fail(is_done ? 0 : ENOSYS);
    }
}

bool Session::send(RingEntry* entry, const iovec* parts, int count) noexcept {
    if (entry) return entry->queue->reply(*entry, parts, count) >= 0;
    return ::writev(mount_.device().get(), parts, count) >= 0;
}

bool Session::send(RingEntry* entry, const fuse_out_header& header,
                   const FileBytes& bytes) noexcept {
    if (entry) return entry->queue->reply(*entry, header, bytes) >= 0;
    return send_bytes(mount_.device().get(), header, bytes) >= 0;
}

bool Session::park(std::shared_ptr<Parked> op, ParkRank rank, Request& request) {
    IPCFS_CHECK(request.is_open() && !request.is_parked_);
    RingEntry* const entry = request.entry_;
    request.is_parked_ = true;
    pid_t tid = 0;
    if (entry) {
        tid = static_cast<pid_t>(request.header_.pid);
        entry->queue->park(*entry, request.unique(), rank);
    }
    // From add() on, another thread may complete the operation and answer.
    if (parked_.add(request.unique(), std::move(op), tid)) return true;
    request.is_parked_ = false;
    if (entry) entry->queue->unpark(*entry);
    return false;
}

void Session::unpark(Request& request) noexcept {
    if (request.entry_) request.entry_->queue->unpark(*request.entry_);
    parked_.remove(request.unique());
}

}  // namespace ipcfs::fuse
