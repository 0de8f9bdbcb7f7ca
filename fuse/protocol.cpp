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

// ---- requests that wait ---------------------------------------------------------------------------

namespace {

// Whether thread `tid` waits in a way that only a fatal signal or an answer ends: state D. Not from
// /proc/<tid>/stat: during an execve(2), which may be what waits for the answer, that would wait for it.
bool waits_unkillable(pid_t tid) {
    char path[32];
    std::snprintf(path, sizeof path, "/proc/%d/status", tid);
    const Fd file(::open(path, O_RDONLY | O_CLOEXEC));
    if (!file) return false;
    char text[256];
    const ssize_t size = ::read(file.get(), text, sizeof text);
    const std::string_view status(text, size > 0 ? static_cast<std::size_t>(size) : 0);
    return status.find("\nState:\tD") != std::string_view::npos;
}

}  // namespace

bool ParkedTable::add(std::uint64_t unique, std::shared_ptr<Parked> op, pid_t tid) {
    return shard(unique).with([&](Shard& s) {
        const auto early =
            std::find_if(s.early.begin(), s.early.end(),
                         [unique](const Early& candidate) { return candidate.unique == unique; });
        if (early != s.early.end()) {
            s.early.erase(early);
            return false;
        }
        s.records[unique] = Record{std::move(op), tid};
        return true;
    });
}

void ParkedTable::remove(std::uint64_t unique) {
    std::shared_ptr<Parked> last;  // an operation's destructor must not run under the lock
    shard(unique).with([&](Shard& s) {
        const auto found = s.records.find(unique);
        if (found == s.records.end()) return;
        last = std::move(found->second.op);
        s.records.erase(found);
    });
}

std::shared_ptr<Parked> ParkedTable::find(std::uint64_t unique) {
    return shard(unique).with([&](Shard& s) {
        const auto found = s.records.find(unique);
        return found == s.records.end() ? nullptr : found->second.op;
    });
}

std::shared_ptr<Parked> ParkedTable::find_or_remember(std::uint64_t unique, Nanos now) {
    return shard(unique).with([&](Shard& s) -> std::shared_ptr<Parked> {
        const auto found = s.records.find(unique);
        if (found != s.records.end()) return found->second.op;
        while (!s.early.empty() &&
               (s.early.size() >= kMaxEarly || now - s.early.front().when > kEarlyAge))
            s.early.pop_front();
        s.early.push_back({unique, now});
        return nullptr;
    });
}

std::vector<std::shared_ptr<Parked>> ParkedTable::lost_interrupts() {
    std::vector<std::pair<pid_t, std::shared_ptr<Parked>>> due;
    for (auto& part : shards_)
        part.with([&](Shard& s) {
            for (auto& [unique, record] : s.records) {
                if (record.tid == 0 || record.calls == 2) continue;
                if (++record.calls == 2) due.emplace_back(record.tid, record.op);
            }
        });
    std::vector<std::shared_ptr<Parked>> lost;
    for (auto& [tid, op] : due)
        if (waits_unkillable(tid)) lost.push_back(std::move(op));
    return lost;
}

std::vector<std::shared_ptr<Parked>> ParkedTable::operations() const {
    std::vector<std::shared_ptr<Parked>> all;
    for (const auto& part : shards_)
        part.with([&](const Shard& s) {
            for (const auto& [unique, record] : s.records) all.push_back(record.op);
        });
    return all;
}

std::size_t ParkedTable::size() const {
    std::size_t count = 0;
    for (const auto& part : shards_)
        count += part.with([](const Shard& s) { return s.records.size(); });
    return count;
}

}  // namespace ipcfs::fuse
