// The system calls of the control socket: what arrives on it and who sent it, and what kind of
// descriptor somebody sent. None of them waits for anybody. Any thread.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <sys/types.h>
#include <vector>

#include <base/fd.hpp>
#include <base/result.hpp>
#include <tree/exchange.hpp>

namespace ipcfs::control {

// Nonblocking, listening, mode 0666. Takes the place of a socket that a killed daemon left at
// `path`. EADDRINUSE: there is something else; ENAMETOOLONG: the last part is too long for an address.
Result<Fd> listen_at(const std::string& path, int backlog);

// Who connected, as of the time it did: SO_PEERCRED and SO_PEERGROUPS (unix(7)).
Result<tree::Caller> peer_of(int connection);
// A pidfd of the process that connected; empty where it is not visible from here or has ended.
Fd peer_process(int connection, pid_t pid) noexcept;

struct Received {
    enum class What {
        kPacket,
        kNothing,  // for now
        kEnd,      // the other end is closed, or it failed
    };
    What what = What::kNothing;
    std::size_t size = 0;    // of what is in the buffer
    bool truncated = false;  // the packet was longer than the buffer
    bool lost_fds = false;   // this process had no room for all its descriptors
    std::vector<Fd> fds;     // all there were, up to what one packet can carry
};
// One packet. Foreign descriptors: see kind_of.
Received receive(int connection, std::span<std::byte> buffer);

enum class Sent { kDone, kFull, kFailed };
// One packet with at most kMaxControlFds descriptors.
Sent send(int connection, std::span<const std::byte> packet, std::span<const int> fds) noexcept;

// What a descriptor is that somebody else opened. Only questions that are answered by the kernel
// alone: fstat(2), even close(2), may wait for the daemon of another file system for ever.
enum class FdKind { kMemory, kEventFd, kUserFault, kSocket, kOther };
FdKind kind_of(int fd) noexcept;
// Whether closing it is certain not to wait either. A socket may linger, and may hold other
// descriptors; a userfaultfd waits for a lock of its process.
constexpr bool closes_at_once(FdKind kind) noexcept {
    return kind == FdKind::kMemory || kind == FdKind::kEventFd;
}
// Whether it is a socket of this machine's processes.
bool is_unix_socket(int fd) noexcept;

// Ends a connection for both sides without closing what others sent over it: true when nothing
// unread with descriptors is in it, so that it can be closed here.
bool shut_down(int connection) noexcept;

}  // namespace ipcfs::control
