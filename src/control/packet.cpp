// Parsing and building of packets. Pure functions; a client's bytes are not trusted.
#include <algorithm>
#include <cstring>
#include <string>

#include <control/packet.hpp>

namespace ipcfs::control {
namespace {

constexpr std::size_t kMaxErrorText = 512;

Fault malformed(const char* why) {
    return Fault{EINVAL, std::string("control packet: ") + why};
}

// Reads a packet from its front; every read checks the remaining length.
class PacketReader {
public:
    explicit PacketReader(std::span<const std::byte> rest) : rest_(rest) {}

    template <class T>
    bool read(T& into) {
        if (rest_.size() < sizeof(T)) return false;
        std::memcpy(&into, rest_.data(), sizeof(T));
        rest_ = rest_.subspan(sizeof(T));
        return true;
    }
    bool read(std::uint32_t length, std::span<const std::byte>& into) {
        if (length > rest_.size()) return false;
        into = rest_.first(length);
        rest_ = rest_.subspan(length);
        return true;
    }
    // A string without NUL.
    bool read(std::uint32_t length, std::string_view& into) {
        std::span<const std::byte> bytes;
        if (!read(length, bytes)) return false;
        into = {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
        return into.find('\0') == std::string_view::npos;
    }
    // A path below the mount: not empty, not absolute.
    bool read_path(std::uint32_t length, std::string_view& into) {
        return read(length, into) && !into.empty() && into.front() != '/';
    }
    bool empty() const { return rest_.empty(); }

private:
    std::span<const std::byte> rest_;
};

bool parse_send(PacketReader& in, Request& out) {
    ControlSend send;
    if (!in.read(send) || send.reserved != 0) return false;
    out.body = send;
    return in.read_path(send.path_length, out.path) &&
           in.read(send.extensions_length, out.extensions);
}

bool parse_pool(PacketReader& in, Request& out) {
    ControlPoolOpen open;
    if (!in.read(open)) return false;
    out.body = open;
    return in.read_path(open.path_length, out.path);
}

bool parse_watch(PacketReader& in, Request& out) {
    ControlWatch watch;
    if (!in.read(watch) || watch.reserved != 0) return false;
    // An eventfd has no signal.
    if (out.op == ControlOp::kEventFd && watch.signal != 0) return false;
    out.body = watch;
    return in.read_path(watch.path_length, out.path) && in.read(watch.filter_length, out.text);
}

bool parse_lazy(PacketReader& in, Request& out) {
    ControlLazy lazy;
    if (!in.read(lazy) || lazy.reserved != 0 || lazy.uid != 0 || lazy.pid != 0) return false;
    if (lazy.mode != LazyMode::kFaults && lazy.mode != LazyMode::kWhole) return false;
    if (lazy.length == 0 || lazy.address > UINT64_MAX - lazy.length) return false;
    out.body = lazy;
    return true;
}

// The texts come in the order given at the structure, then the extensions.
bool parse_handoff(PacketReader& in, Request& out) {
    ControlHandoff handoff;
    if (!in.read(handoff) || handoff.send.reserved != 0) return false;
    out.body = handoff;
    return in.read_path(handoff.send.path_length, out.path) &&
           in.read(handoff.name_length, out.text) && !out.text.empty() &&
           in.read_path(handoff.target_length, out.target) &&
           in.read(handoff.send.extensions_length, out.extensions);
}

template <class T>
bool parse_plain(PacketReader& in, Request& out) {
    T body;
    if (!in.read(body)) return false;
    if constexpr (std::is_same_v<T, ControlHello>) {
        if (body.reserved != 0) return false;
    }
    out.body = body;
    return true;
}

bool parse_body(PacketReader& in, Request& out) {
    switch (out.op) {
        case ControlOp::kHello: return parse_plain<ControlHello>(in, out);
        case ControlOp::kSend:
        case ControlOp::kLazyOffer: return parse_send(in, out);
        case ControlOp::kPoolOpen: return parse_pool(in, out);
        case ControlOp::kEventFd:
        case ControlOp::kSignal: return parse_watch(in, out);
        case ControlOp::kLazyAttach: return parse_lazy(in, out);
        case ControlOp::kLazyReport: return parse_plain<ControlLazyReport>(in, out);
        case ControlOp::kHandoff: return parse_handoff(in, out);
        default: return parse_plain<ControlId>(in, out);
    }
}

bool is_request(std::uint16_t op) {
    return op >= static_cast<std::uint16_t>(ControlOp::kHello) &&
           op <= static_cast<std::uint16_t>(ControlOp::kPayloadFd);
}

}  // namespace

std::size_t wanted_fds(ControlOp op) noexcept {
    switch (op) {
        case ControlOp::kSend:
        case ControlOp::kPoolOpen:
        case ControlOp::kEventFd: return 1;
        case ControlOp::kLazyAttach: return 2;
        default: return 0;
    }
}

Result<Request> parse_request(std::span<const std::byte> packet, std::size_t fds) {
    if (packet.size() > kMaxControlPacket) return Fault{EMSGSIZE, "control packet: too long"};
    PacketReader in(packet);
    ControlHeader header;
    if (!in.read(header)) return malformed("too short for its header");
    if (header.magic != kControlMagic) return malformed("wrong magic number");
    if (header.version != kControlVersion) return malformed("unsupported version");
    if (header.error != 0) return malformed("a request must not carry an error");
    if (!is_request(header.op)) return Fault{EOPNOTSUPP, "control packet: unknown operation"};
    Request out;
    out.op = static_cast<ControlOp>(header.op);
    out.tag = header.tag;
    if (fds != wanted_fds(out.op))
        return malformed("wrong number of descriptors for this operation");
    if (!parse_body(in, out)) return malformed("a length or field is invalid");
    if (!in.empty()) return malformed("longer than its fields say");
    return out;
}

std::uint32_t tag_of(std::span<const std::byte> packet) noexcept {
    ControlHeader header;
    return PacketReader(packet).read(header) ? header.tag : 0;
}

std::uint16_t op_of(std::span<const std::byte> packet) noexcept {
    ControlHeader header;
    return PacketReader(packet).read(header) ? header.op : std::uint16_t{0};
}

Packet make_packet(std::uint16_t op, std::uint32_t tag, int error, std::span<const std::byte> body,
                   std::string_view text) {
    ControlHeader header;
    header.op = op;
    header.tag = tag;
    header.error = error;
    Packet packet(sizeof header + body.size() + text.size());
    std::memcpy(packet.data(), &header, sizeof header);
    if (!body.empty()) std::memcpy(packet.data() + sizeof header, body.data(), body.size());
    if (!text.empty())
        std::memcpy(packet.data() + sizeof header + body.size(), text.data(), text.size());
    return packet;
}

Packet make_error(std::uint16_t op, std::uint32_t tag, const Fault& fault) {
    const std::string_view text = std::string_view(fault.operation).substr(0, kMaxErrorText);
    return make_packet(op | static_cast<std::uint16_t>(ControlOp::kReply), tag,
                       fault.code == 0 ? EIO : fault.code, {}, text);
}

}  // namespace ipcfs::control
