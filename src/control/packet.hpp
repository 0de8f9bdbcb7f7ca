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
#include <tree/exchange.hpp>

namespace ipcfs::control {

// A request each, with the number of descriptors that it comes with. Texts and extensions are views into
// the packet; texts have no NUL, and paths are neither empty nor absolute.
template <std::size_t kCount>
struct WithFds {
    static constexpr std::size_t kFds = kCount;
};
struct ById : WithFds<0> {
    std::uint64_t id = 0;
};
struct Hello : WithFds<0> {};
struct Send : WithFds<1> {
    tree::MemoryMessage message;
};
struct OpenPool : WithFds<1> {
    std::string_view path;
    payload::PoolShape shape;
};
struct MapPool : ById {};
struct ClosePool : ById {};
struct WatchByEventFd : WithFds<1> {
    std::string_view path, filter;
};
struct Unwatch : ById {};
struct WatchBySignal : WithFds<0> {
    std::string_view path, filter;
    int signal = 0;
};
struct OfferLazy : WithFds<0> {
    tree::MemoryMessage message;
};
struct AttachLazy : WithFds<2> {
    payload::LazyRange range;
};
struct ReportLazy : WithFds<0> {
    std::uint64_t faults = 0, pages = 0;
};
struct HandOff : WithFds<0> {
    std::string_view path, region;
    tree::MemoryMessage message;
};
struct Claim : ById {};
struct PayloadFd : ById {};

// In the order of ControlOp.
using Body =
    std::variant<Hello, Send, OpenPool, MapPool, ClosePool, WatchByEventFd, Unwatch, WatchBySignal,
                 OfferLazy, AttachLazy, ReportLazy, HandOff, Claim, PayloadFd>;

// What a reply repeats of its request; 0 where the packet had no header.
struct ReplyTo {
    std::uint16_t op = 0;
    std::uint32_t tag = 0;
};
struct Request {
    ReplyTo to;
    Body body;
};

// How many descriptors the operation must come with.
std::size_t wanted_fds(ControlOp op) noexcept;

// EINVAL: not a request of this version, a length that does not match the packet, an invalid or
// reserved field, or a wrong number of descriptors. EMSGSIZE: above kMaxControlPacket. EOPNOTSUPP: an
// operation that is unknown or that only the daemon sends.
Result<Request> parse_request(std::span<const std::byte> packet, std::size_t fds);
ReplyTo reply_to(std::span<const std::byte> packet) noexcept;

using Packet = std::vector<std::byte>;

// `error` is 0 on success; `body` is the operation's structure, or the text of an error.
Packet make_packet(std::uint16_t op, std::uint32_t tag, int error, std::span<const std::byte> body,
                   std::string_view text = {});
template <class T>
Packet make_packet(ControlOp op, const T& body) {
    return make_packet(static_cast<std::uint16_t>(op), 0, 0, std::as_bytes(std::span(&body, 1)));
}
template <class T>
Packet make_reply(ReplyTo to, const T& body, std::string_view text = {}) {
    return make_packet(to.op | static_cast<std::uint16_t>(ControlOp::kReply), to.tag, 0,
                       std::as_bytes(std::span(&body, 1)), text);
}
// Truncates the text of `fault` to 512 bytes.
Packet make_error(ReplyTo to, const Fault& fault);

}  // namespace ipcfs::control
