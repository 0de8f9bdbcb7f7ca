// Packets of the control socket (include/ipcfs/control.hpp), parsed once into typed requests, and
// replies built. Whatever a client sends gives a request in which every length is right, or a fault.
// Pure functions; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <variant>
#include <vector>

#include <base/result.hpp>
#include <ipcfs/control.hpp>

namespace ipcfs::control {

struct Request {
    ControlOp op = ControlOp::kHello;
    std::uint32_t tag = 0;
    // What the operation asks for. A ControlHandoff has its lengths checked as the others.
    std::variant<ControlHello, ControlSend, ControlPoolOpen, ControlId, ControlWatch, ControlLazy,
                 ControlLazyReport, ControlHandoff>
        body;
    // These point into the packet. Without NUL; `path` neither empty nor absolute.
    std::string_view path;    // of the channel
    std::string_view text;    // kEventFd, kSignal: the filter; kHandoff: the region
    std::string_view target;  // kHandoff
    std::span<const std::byte> extensions;

    template <class T>
    const T& as() const {
        return std::get<T>(body);
    }
};

// How many descriptors that operation comes with.
std::size_t wanted_fds(ControlOp op) noexcept;

// EINVAL: no request of this version, a length that is not the packet's, reserved fields in use, or
// another number of descriptors than the operation takes. EMSGSIZE: over kMaxControlPacket.
// EOPNOTSUPP: an operation that this version does not know, or that is the daemon's to send.
Result<Request> parse_request(std::span<const std::byte> packet, std::size_t fds);

// The tag to answer a packet by that parse_request refuses; 0 if it is not even a header.
std::uint32_t tag_of(std::span<const std::byte> packet) noexcept;
std::uint16_t op_of(std::span<const std::byte> packet) noexcept;

using Packet = std::vector<std::byte>;

// `error` 0 for success; `body` is the operation's structure, or the text of an error.
Packet make_packet(std::uint16_t op, std::uint32_t tag, int error, std::span<const std::byte> body,
                   std::string_view text = {});

template <class T>
Packet make_reply(const Request& to, const T& body, std::string_view text = {}) {
    return make_packet(
        static_cast<std::uint16_t>(to.op) | static_cast<std::uint16_t>(ControlOp::kReply), to.tag,
        0, std::as_bytes(std::span(&body, 1)), text);
}
// An error's text is cut to what a packet should carry of it.
Packet make_error(std::uint16_t op, std::uint32_t tag, const Fault& fault);

}  // namespace ipcfs::control
