// Packets of the control socket (include/ipcfs/control.hpp): parses bytes into typed requests with
// checked lengths, and builds replies. Pure functions; any thread.
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
    // The operation's structure; parse_request() has checked all its lengths.
    std::variant<ControlHello, ControlSend, ControlPoolOpen, ControlId, ControlWatch, ControlLazy,
                 ControlLazyReport, ControlHandoff>
        body;
    // Views into the packet, without NUL. `path` is neither empty nor absolute.
    std::string_view path;    // of the channel
    std::string_view text;    // kEventFd, kSignal: the filter; kHandoff: the region's name
    std::string_view target;  // kHandoff
    std::span<const std::byte> extensions;

    template <class T>
    const T& as() const {
        return std::get<T>(body);
    }
};

// How many descriptors the operation must come with.
std::size_t wanted_fds(ControlOp op) noexcept;

// EINVAL: not a request of this version, a length that does not match the packet, a reserved field
// in use, or a wrong number of descriptors. EMSGSIZE: above kMaxControlPacket. EOPNOTSUPP: an
// operation that is unknown or that only the daemon sends.
Result<Request> parse_request(std::span<const std::byte> packet, std::size_t fds);

// The tag and the operation with which to answer a packet that parse_request() refused; 0 if it has
// no header.
std::uint32_t tag_of(std::span<const std::byte> packet) noexcept;
std::uint16_t op_of(std::span<const std::byte> packet) noexcept;

using Packet = std::vector<std::byte>;

// `error` is 0 on success; `body` is the operation's structure, or the text of an error.
Packet make_packet(std::uint16_t op, std::uint32_t tag, int error, std::span<const std::byte> body,
                   std::string_view text = {});

template <class T>
Packet make_reply(const Request& to, const T& body, std::string_view text = {}) {
    return make_packet(
        static_cast<std::uint16_t>(to.op) | static_cast<std::uint16_t>(ControlOp::kReply), to.tag,
        0, std::as_bytes(std::span(&body, 1)), text);
}
// Truncates the text of `fault` to 512 bytes.
Packet make_error(std::uint16_t op, std::uint32_t tag, const Fault& fault);

}  // namespace ipcfs::control
