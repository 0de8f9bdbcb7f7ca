// System calls; they retry EINTR and open every descriptor close-on-exec.
#include <array>
#include <cstring>
#include <fcntl.h>
#include <string_view>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>

#include <control/socket.hpp>
#include <payload/memory.hpp>

#include <base/process.hpp>
#include <ipcfs/control.hpp>

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77  // Linux 6.5; asm-generic/socket.h
#endif

namespace ipcfs::control {
namespace {

constexpr std::size_t kMaxFds = 253;  // SCM_MAX_FD: the most that one packet can carry

template <class Call>
auto retried(const Call& call) {
    decltype(call()) result;
    do {
        result = call();
    } while (result < 0 && errno == EINTR);
    return result;
}

// `path` as a socket address. A path that is too long is reached through /proc/self/fd of its
// directory, which `directory` keeps open.
Result<sockaddr_un> address_of(const std::string& path, Fd& directory) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::string name = path;
    if (name.size() >= sizeof address.sun_path) {
        const auto slash = path.rfind('/');
        const std::string parent = slash == std::string::npos ? "." : path.substr(0, slash + 1);
        directory.reset(::open(parent.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
        if (!directory) return errno_fault("open " + parent);
        name = "/proc/self/fd/" + std::to_string(directory.get()) + "/" + path.substr(slash + 1);
        if (name.size() >= sizeof address.sun_path) return Fault{ENAMETOOLONG, "bind " + path};
    }
    std::memcpy(address.sun_path, name.c_str(), name.size() + 1);
    return address;
}

}  // namespace

Result<Fd> listen_at(const std::string& path, int backlog) {
    struct stat there {};
    if (::lstat(path.c_str(), &there) == 0) {
        if (!S_ISSOCK(there.st_mode))
            return Fault{EADDRINUSE, path + ": exists and is not a socket"};
        ::unlink(path.c_str());
    }
    Fd directory;
    auto address = address_of(path, directory);
    if (!address) return address.error();
    Fd listener(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!listener) return errno_fault("socket");
    if (::bind(listener.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address) != 0)
        return errno_fault("bind " + path);
    // Everyone may connect: rights are checked at each request, as at open(2).
    if (::chmod(path.c_str(), 0666) != 0) return errno_fault("chmod " + path);
    if (::listen(listener.get(), backlog) != 0) return errno_fault("listen " + path);
    return listener;
}

Result<tree::Caller> peer_of(int connection) {
    ucred peer{};
    socklen_t length = sizeof peer;
    if (::getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0)
        return errno_fault("SO_PEERCRED");
    std::vector<gid_t> groups(32);
    for (;;) {
        length = static_cast<socklen_t>(groups.size() * sizeof(gid_t));
        const int error =
            ::getsockopt(connection, SOL_SOCKET, SO_PEERGROUPS, groups.data(), &length);
        if (error != 0 && (errno != ERANGE || length <= groups.size() * sizeof(gid_t)))
            return errno_fault("SO_PEERGROUPS");
        groups.resize(length / sizeof(gid_t));  // after ERANGE what is needed
        if (error == 0) break;
    }
    return tree::Caller{{peer.uid, peer.gid, peer.pid, peer.pid}, {peer.uid, peer.gid, groups}};
}

Fd peer_process(int connection, pid_t pid) noexcept {
    int fd = -1;
    socklen_t length = sizeof fd;
    if (::getsockopt(connection, SOL_SOCKET, SO_PEERPIDFD, &fd, &length) == 0) return Fd(fd);
    if (pid <= 0 || errno != ENOPROTOOPT) return {};
    return Fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
}

Received receive(int connection, std::span<std::byte> buffer,
                 const std::shared_ptr<Executor>& executor, uid_t uid) {
    // Room for all that can come: the kernel closes surplus descriptors in this thread, and closing
    // may block.
    alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(kMaxFds * sizeof(int)) + 128> ancillary;
    iovec data{buffer.data(), buffer.size()};
    msghdr message{};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = ancillary.data();
    message.msg_controllen = ancillary.size();
    const ssize_t size =
        retried([&] { return ::recvmsg(connection, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT); });
    Received got;
    if (size < 0) {
        got.what = errno == EAGAIN ? Received::What::kNothing : Received::What::kEnd;
        return got;
    }
    for (cmsghdr* each = CMSG_FIRSTHDR(&message); each; each = CMSG_NXTHDR(&message, each)) {
        if (each->cmsg_level != SOL_SOCKET || each->cmsg_type != SCM_RIGHTS) continue;
        const std::size_t count = (each->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (std::size_t i = 0; i < count; ++i) {
            int fd = -1;
            std::memcpy(&fd, CMSG_DATA(each) + i * sizeof(int), sizeof fd);
            got.fds.emplace_back(Fd(fd), executor, uid);
        }
    }
    got.truncated = (message.msg_flags & MSG_TRUNC) != 0;
    got.lost_fds = (message.msg_flags & MSG_CTRUNC) != 0;
    got.size = static_cast<std::size_t>(size);
    // An empty packet looks like the end of the connection and is treated as such.
    got.what = size == 0 ? Received::What::kEnd : Received::What::kPacket;
    return got;
}

Sent send(int connection, std::span<const std::byte> packet, std::span<const int> fds) noexcept {
    alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(kMaxControlFds * sizeof(int))> ancillary{};
    iovec data{const_cast<std::byte*>(packet.data()), packet.size()};
    msghdr message{};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    if (!fds.empty()) {
        message.msg_control = ancillary.data();
        message.msg_controllen = CMSG_SPACE(fds.size_bytes());
        cmsghdr* rights = CMSG_FIRSTHDR(&message);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(fds.size_bytes());
        std::memcpy(CMSG_DATA(rights), fds.data(), fds.size_bytes());
    }
    const ssize_t sent =
        retried([&] { return ::sendmsg(connection, &message, MSG_NOSIGNAL | MSG_DONTWAIT); });
    if (sent >= 0) return Sent::kDone;
    return errno == EAGAIN || errno == ENOBUFS ? Sent::kFull : Sent::kFailed;
}

FdKind kind_of(int fd) noexcept {
    if (payload::is_memory(fd)) return FdKind::kMemory;
    char path[40];
    std::snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    char target[64];
    const ssize_t length = ::readlink(path, target, sizeof target);
    const std::string_view text(target, length > 0 ? static_cast<std::size_t>(length) : 0);
    // File system paths begin with a slash, so these texts are unambiguous.
    if (text == "anon_inode:[eventfd]") return FdKind::kEventFd;
    if (text == "anon_inode:[userfaultfd]") return FdKind::kUserFault;
    if (text.starts_with("socket:[")) return FdKind::kSocket;
    return FdKind::kOther;
}

bool is_unix_socket(int fd) noexcept {
    int domain = 0;
    socklen_t length = sizeof domain;
    return ::getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) == 0 && domain == AF_UNIX;
}

bool shut_down(int connection) noexcept {
    ::shutdown(connection, SHUT_RDWR);
    // Nothing more arrives from here on. With buffer space only for the sender's credentials,
    // MSG_CTRUNC shows that a packet carries descriptors; the credentials distinguish an empty
    // packet from the end.
    const int yes = 1;
    ::setsockopt(connection, SOL_SOCKET, SO_PASSCRED, &yes, sizeof yes);
    for (;;) {
        alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(ucred))> credentials;
        std::byte start;
        iovec data{&start, 1};
        msghdr message{};
        const auto take = [&](int flags) {
            message.msg_iov = &data;
            message.msg_iovlen = 1;
            message.msg_control = credentials.data();
            message.msg_controllen = credentials.size();
            return retried([&] { return ::recvmsg(connection, &message, flags | MSG_DONTWAIT); });
        };
        if (take(MSG_PEEK) < 0) return true;
        if ((message.msg_flags & MSG_CTRUNC) != 0) return false;
        if (message.msg_controllen == 0) return true;
        if (take(0) < 0) return true;
    }
}

}  // namespace ipcfs::control
