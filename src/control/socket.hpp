// System calls of the control socket: receiving packets, identifying the sender, and classifying
// descriptors. None blocks on a client. Any thread.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <sys/types.h>
#include <utility>
#include <vector>

#include <base/executor.hpp>
#include <base/fd.hpp>
#include <base/result.hpp>
#include <tree/exchange.hpp>

namespace ipcfs::control {

// Creates a listening, nonblocking socket with mode 0666. Replaces a socket that a killed daemon
// left at `path`. EADDRINUSE: something other than a socket exists there; ENAMETOOLONG: the last
// component is too long for an address.
Result<Fd> listen_at(const std::string& path, int backlog);

// The peer's credentials as of connect(2): SO_PEERCRED and SO_PEERGROUPS (unix(7)).
Result<tree::Caller> peer_of(int connection);
// A pidfd of the connected process; empty if it has ended or is in another pid namespace.
Fd peer_process(int connection, pid_t pid) noexcept;

// The kind of a client's descriptor. Asks only the kernel: fstat(2) and even close(2) may wait for
// another file system's daemon for ever.
enum class FdKind { kMemory, kEventFd, kUserFault, kSocket, kOther };
FdKind kind_of(int fd) noexcept;
// Whether close(2) is certain not to block. A socket may linger and may carry other descriptors; a
// userfaultfd waits for a lock of its process.
constexpr bool closes_at_once(FdKind kind) noexcept {
    return kind == FdKind::kMemory || kind == FdKind::kEventFd;
}
// A descriptor that a client sent. Its destructor closes it on an executor's threads if close(2) may
// block. Move-only; one thread at a time.
class ReceivedFd {
public:
    // `uid` is the sender. The constructor only asks the kernel for the kind of `fd`.
    ReceivedFd(Fd fd, std::shared_ptr<Executor> executor, uid_t uid)
        : fd_(std::move(fd)),
          executor_(std::move(executor)),
          uid_(uid),
          kind_(kind_of(fd_.get())) {}
    ReceivedFd(ReceivedFd&&) noexcept = default;
    ~ReceivedFd() {
        if (fd_ && is_foreign()) executor_->add(uid_, [fd = fd_.release()] { ::close(fd); });
    }

    int get() const noexcept { return fd_.get(); }
    FdKind kind() const noexcept { return kind_; }
    bool is_foreign() const noexcept { return !closes_at_once(kind_); }
    // For callers that know what the descriptor is.
    Fd release() noexcept { return std::move(fd_); }

private:
    Fd fd_;
    std::shared_ptr<Executor> executor_;
    uid_t uid_;
    FdKind kind_;
};

struct Received {
    enum class What {
        kPacket,
        kNothing,  // nothing to read now
        kEnd,      // the other end is closed, or it failed
    };
    What what = What::kNothing;
    std::size_t size = 0;         // bytes in the buffer
    bool truncated = false;       // the packet was longer than the buffer
    bool lost_fds = false;        // some descriptors did not fit in our descriptor table
    std::vector<ReceivedFd> fds;  // all descriptors of the packet
};
// Receives one packet of user `uid` without blocking.
Received receive(int connection, std::span<std::byte> buffer,
                 const std::shared_ptr<Executor>& executor, uid_t uid);

enum class Sent { kDone, kFull, kFailed };
// Sends one packet with at most kMaxControlFds descriptors, without blocking.
Sent send(int connection, std::span<const std::byte> packet, std::span<const int> fds) noexcept;

bool is_unix_socket(int fd) noexcept;

// Shuts a connection down for both sides. Returns true if no unread packet carries descriptors, so
// that the caller may close it; closing it otherwise may block.
bool shut_down(int connection) noexcept;

}  // namespace ipcfs::control
