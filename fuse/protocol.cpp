// Any thread.
#include <algorithm>
#include <charconv>
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

bool has_no_reply(std::uint32_t opcode) noexcept {
    return opcode == FUSE_FORGET || opcode == FUSE_BATCH_FORGET || opcode == FUSE_NOTIFY_REPLY;
}

}  // namespace ipcfs::fuse
