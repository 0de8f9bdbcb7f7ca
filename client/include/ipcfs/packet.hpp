// Sends and receives whole packets of the control socket, with descriptors; the protocol is in
// control.hpp. Internal to the client header. Any thread.
#pragma once

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <initializer_list>
#include <span>
#include <string_view>
#include <sys/socket.h>
#include <sys/uio.h>
#include <type_traits>
#include <vector>

#include <ipcfs/control.hpp>
#include <ipcfs/frame.hpp>
#include <ipcfs/process.hpp>
#include <ipcfs/result.hpp>

namespace ipcfs::detail {

constexpr const char* operation_of(ControlOp op) noexcept {
    switch (op) {
        case ControlOp::kHello: return "control hello";
        case ControlOp::kSend: return "send payload";
        case ControlOp::kPoolOpen: return "open pool";
        case ControlOp::kPoolMap: return "map pool";
        case ControlOp::kPoolClose: return "close pool";
        case ControlOp::kEventFd: return "watch with eventfd";
        case ControlOp::kUnwatch: return "end watch";
        case ControlOp::kSignal: return "watch with signal";
        case ControlOp::kLazyOffer: return "offer lazy payload";
        case ControlOp::kLazyAttach: return "attach lazy payload";
        case ControlOp::kLazyReport: return "report lazy payload";
        case ControlOp::kHandoff: return "hand off region";
        case ControlOp::kClaim: return "claim region";
        case ControlOp::kPayloadFd: return "get payload";
        default: return "control request";
    }
}

// A received packet: structure and texts, and descriptors.
struct Packet {
    ControlHeader header;
    std::vector<std::byte> body;
    std::vector<Fd> fds;

    ControlOp op() const noexcept { return static_cast<ControlOp>(header.op); }
    // The structure; fields that an older peer did not send keep their defaults.
    template <class T>
    T as() const noexcept {
        static_assert(std::is_trivially_copyable_v<T>);
        T out{};
        std::memcpy(&out, body.data(), body.size() < sizeof out ? body.size() : sizeof out);
        return out;
    }
    std::string_view text(std::size_t from = 0) const noexcept {
        return as_text(body).substr(std::min(from, body.size()));
    }
};

// Receives the next packet. ECONNRESET if the peer is gone; EPROTO if the packet is malformed.
inline Expected<Packet> receive_packet(int socket, const char* operation) {
    std::array<std::byte, kMaxControlPacket> bytes;
    alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(int) * kMaxControlFds)> ancillary;
    iovec part{bytes.data(), bytes.size()};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = ancillary.data();
    message.msg_controllen = ancillary.size();
    ssize_t length = 0;
    do {
        length = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    } while (length < 0 && errno == EINTR);
    if (length < 0) return last_error(operation);
    Packet packet;
    for (cmsghdr* each = CMSG_FIRSTHDR(&message); each != nullptr;
         each = CMSG_NXTHDR(&message, each)) {
        if (each->cmsg_level != SOL_SOCKET || each->cmsg_type != SCM_RIGHTS) continue;
        const std::size_t count = (each->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (std::size_t i = 0; i < count; ++i) {
            int fd = -1;
            std::memcpy(&fd, CMSG_DATA(each) + i * sizeof fd, sizeof fd);
            packet.fds.emplace_back(fd);
        }
    }
    if (length == 0) return Error{ECONNRESET, operation};
    const auto size = static_cast<std::size_t>(length);
    if ((message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0 || size < sizeof(ControlHeader))
        return Error{EPROTO, operation};
    std::memcpy(&packet.header, bytes.data(), sizeof(ControlHeader));
    if (packet.header.magic != kControlMagic || packet.header.version != kControlVersion)
        return Error{EPROTO, operation};
    packet.body.assign(bytes.data() + sizeof(ControlHeader), bytes.data() + size);
    return packet;
}

// Sends one packet. EPIPE, without a signal, if the peer is gone; then nothing was sent.
inline Expected<void> send_packet(int socket, const ControlHeader& header,
                                  std::span<const std::byte> body,
                                  std::initializer_list<std::string_view> texts,
                                  std::span<const int> fds, const char* operation, int flags = 0) {
    constexpr std::size_t kMaxTexts = 6;
    if (texts.size() > kMaxTexts || fds.size() > kMaxControlFds) return Error{EINVAL, operation};
    std::array<iovec, 2 + kMaxTexts> parts;
    std::size_t count = 0;
    std::size_t total = 0;
    const auto add = [&](const void* data, std::size_t size) {
        parts[count++] = iovec{const_cast<void*>(data), size};
        total += size;
    };
    add(&header, sizeof header);
    add(body.data(), body.size());
    for (const std::string_view text : texts) add(text.data(), text.size());
    if (total > kMaxControlPacket) return Error{EMSGSIZE, operation};
    msghdr message{};
    message.msg_iov = parts.data();
    message.msg_iovlen = count;
    alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(int) * kMaxControlFds)> ancillary{};
    if (!fds.empty()) {
        message.msg_control = ancillary.data();
        message.msg_controllen = CMSG_SPACE(fds.size_bytes());
        cmsghdr* rights = CMSG_FIRSTHDR(&message);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(fds.size_bytes());
        std::memcpy(CMSG_DATA(rights), fds.data(), fds.size_bytes());
    }
    ssize_t sent = 0;
    do {
        sent = ::sendmsg(socket, &message, MSG_NOSIGNAL | flags);
    } while (sent < 0 && errno == EINTR);
    if (sent < 0) {
        const int code = errno == ECONNRESET || errno == ENOTCONN ? EPIPE : errno;
        return Error{code, operation};
    }
    return {};
}

}  // namespace ipcfs::detail
