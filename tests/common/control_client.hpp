// The other end of a control socket, for tests: sends what it is told to, right or wrong. One thread
// at a time.
#pragma once

#include <chrono>
#include <cstring>
#include <fcntl.h>
#include <initializer_list>
#include <optional>
#include <poll.h>
#include <span>
#include <string>
#include <string_view>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <vector>

#include <base/fd.hpp>
#include <ipcfs/control.hpp>

namespace ipcfs::test {

class ControlClient {
public:
    struct Reply {
        ControlHeader header;
        std::string body;
        std::vector<Fd> fds;

        ControlOp op() const { return static_cast<ControlOp>(header.op & 0x7fff); }
        template <class T>
        T as() const {
            T value{};
            std::memcpy(&value, body.data(), std::min(body.size(), sizeof value));
            return value;
        }
    };

    ControlClient() = default;
    explicit ControlClient(const std::string& path)
        : socket_(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)) {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        const std::size_t length = std::min(path.size(), sizeof address.sun_path - 1);
        std::memcpy(address.sun_path, path.data(), length);
        if (::connect(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) !=
            0) {
            error_ = errno;
            socket_.reset();
        }
    }

    explicit operator bool() const { return static_cast<bool>(socket_); }
    int error() const { return error_; }  // of connect(2)
    int fd() const { return socket_.get(); }
    void close() { socket_.reset(); }
    Fd release() { return std::move(socket_); }

    // 0 or an errno.
    int send_bytes(std::string_view bytes, const std::vector<int>& fds = {}, int flags = 0) {
        std::vector<char> ancillary(CMSG_SPACE(fds.size() * sizeof(int)), '\0');
        iovec part{const_cast<char*>(bytes.data()), bytes.size()};
        msghdr message{};
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        if (!fds.empty()) {
            message.msg_control = ancillary.data();
            message.msg_controllen = ancillary.size();
            cmsghdr* rights = CMSG_FIRSTHDR(&message);
            rights->cmsg_level = SOL_SOCKET;
            rights->cmsg_type = SCM_RIGHTS;
            rights->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
            std::memcpy(CMSG_DATA(rights), fds.data(), fds.size() * sizeof(int));
        }
        return ::sendmsg(socket_.get(), &message, MSG_NOSIGNAL | flags) < 0 ? errno : 0;
    }

    template <class Body>
    static std::string packet(ControlOp op, const Body& body,
                              std::initializer_list<std::string_view> texts = {},
                              std::uint32_t tag = 1) {
        ControlHeader header;
        header.op = static_cast<std::uint16_t>(op);
        header.tag = tag;
        std::string bytes(reinterpret_cast<const char*>(&header), sizeof header);
        bytes.append(reinterpret_cast<const char*>(&body), sizeof body);
        for (std::string_view text : texts) bytes += text;
        return bytes;
    }

    // The next packet; empty when none came in time or the connection has ended (see ended()).
    std::optional<Reply> receive(int milliseconds = 20'000) {
        pollfd ready{socket_.get(), POLLIN, 0};
        if (::poll(&ready, 1, milliseconds) <= 0) return {};
        char bytes[kMaxControlPacket];
        alignas(cmsghdr) char ancillary[CMSG_SPACE(kMaxControlFds * sizeof(int))];
        iovec part{bytes, sizeof bytes};
        msghdr message{};
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        message.msg_control = ancillary;
        message.msg_controllen = sizeof ancillary;
        const ssize_t size = ::recvmsg(socket_.get(), &message, MSG_CMSG_CLOEXEC);
        if (size <= 0) {
            ended_ = true;
            return {};
        }
        Reply reply;
        for (cmsghdr* each = CMSG_FIRSTHDR(&message); each; each = CMSG_NXTHDR(&message, each)) {
            const std::size_t count = (each->cmsg_len - CMSG_LEN(0)) / sizeof(int);
            for (std::size_t i = 0; i < count; ++i) {
                int fd = -1;
                std::memcpy(&fd, CMSG_DATA(each) + i * sizeof fd, sizeof fd);
                reply.fds.emplace_back(fd);
            }
        }
        if (static_cast<std::size_t>(size) < sizeof reply.header) return {};
        std::memcpy(&reply.header, bytes, sizeof reply.header);
        reply.body.assign(bytes + sizeof reply.header,
                          static_cast<std::size_t>(size) - sizeof reply.header);
        return reply;
    }
    bool ended() const { return ended_; }

    // One request and its reply. -1: there was none.
    template <class Body>
    int request(ControlOp op, const Body& body, std::initializer_list<std::string_view> texts = {},
                const std::vector<int>& fds = {}, Reply* reply = nullptr) {
        if (int failed = send_bytes(packet(op, body, texts), fds)) return failed;
        auto got = receive();
        if (!got) return -1;
        const int error = got->header.error;
        if (reply) *reply = std::move(*got);
        return error;
    }
    // kSend of a memory file.
    int send_memory(std::string_view channel, int memory, Reply* reply = nullptr,
                    ControlSend what = {}) {
        what.path_length = static_cast<std::uint32_t>(channel.size());
        return request(ControlOp::kSend, what, {channel}, {memory}, reply);
    }
    int hello() { return request(ControlOp::kHello, ControlHello{}); }

private:
    Fd socket_;
    int error_ = 0;
    bool ended_ = false;
};

constexpr int kAllSeals = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW;

// A memory file with that content.
inline Fd memory_of(std::string_view content, int seals = kAllSeals) {
    Fd memory(::memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (::write(memory.get(), content.data(), content.size()) !=
        static_cast<ssize_t>(content.size()))
        return {};
    if (seals != 0) ::fcntl(memory.get(), F_ADD_SEALS, seals);
    return memory;
}

}  // namespace ipcfs::test
