// Pure functions over bytes that a client sent.
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

// Cuts a packet into pieces from its front.
class Cutter {
public:
    explicit Cutter(std::span<const std::byte> rest) : rest_(rest) {}

    template <class T>
    bool cut(T& into) {
        if (rest_.size() < sizeof(T)) return false;
        std::memcpy(&into, rest_.data(), sizeof(T));
        rest_ = rest_.subspan(sizeof(T));
        return true;
    }
    bool cut(std::uint32_t length, std::span<const std::byte>& into) {
        if (length > rest_.size()) return false;
        into = rest_.first(length);
        rest_ = rest_.subspan(length);
        return true;
    }
    // A text without NUL.
    bool cut(std::uint32_t length, std::string_view& into) {
        std::span<const std::byte> bytes;
        if (!cut(length, bytes)) return false;
        into = {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
        return into.find('\0') == std::string_view::npos;
    }
    // Of a file of the tree, below the mount.
    bool cut_path(std::uint32_t length, std::string_view& into) {
        return cut(length, into) && !into.empty() && into.front() != '/';
    }
    bool empty() const { return rest_.empty(); }

private:
    std::span<const std::byte> rest_;
};

bool cut_send(Cutter& in, Request& out) {
    ControlSend send;
    if (!in.cut(send) || send.reserved != 0) return false;
    out.body = send;
    return in.cut_path(send.path_length, out.path) &&
           in.cut(send.extensions_length, out.extensions);
}

bool cut_pool(Cutter& in, Request& out) {
    ControlPoolOpen open;
    if (!in.cut(open)) return false;
    out.body = open;
    return in.cut_path(open.path_length, out.path);
}

bool cut_watch(Cutter& in, Request& out) {
    ControlWatch watch;
    if (!in.cut(watch) || watch.reserved != 0) return false;
    // An eventfd has no signal.
    if (out.op == ControlOp::kEventFd && watch.signal != 0) return false;
    out.body = watch;
    return in.cut_path(watch.path_length, out.path) && in.cut(watch.filter_length, out.text);
}

bool cut_lazy(Cutter& in, Request& out) {
    ControlLazy lazy;
    if (!in.cut(lazy) || lazy.reserved != 0 || lazy.uid != 0 || lazy.pid != 0) return false;
    if (lazy.mode != LazyMode::kFaults && lazy.mode != LazyMode::kWhole) return false;
    if (lazy.length == 0 || lazy.address > UINT64_MAX - lazy.length) return false;
    out.body = lazy;
    return true;
}

// The texts in the order of the structure's comment, then the extensions.
bool cut_handoff(Cutter& in, Request& out) {
    ControlHandoff handoff;
    if (!in.cut(handoff) || handoff.send.reserved != 0) return false;
    out.body = handoff;
    return in.cut_path(handoff.send.path_length, out.path) &&
           in.cut(handoff.name_length, out.text) && !out.text.empty() &&
           in.cut_path(handoff.target_length, out.target) &&
           in.cut(handoff.send.extensions_length, out.extensions);
}

template <class T>
bool cut_plain(Cutter& in, Request& out) {
    T body;
    if (!in.cut(body)) return false;
    if constexpr (std::is_same_v<T, ControlHello>) {
        if (body.reserved != 0) return false;
    }
    out.body = body;
    return true;
}

bool cut_body(Cutter& in, Request& out) {
    switch (out.op) {
        case ControlOp::kHello: return cut_plain<ControlHello>(in, out);
        case ControlOp::kSend:
        case ControlOp::kLazyOffer: return cut_send(in, out);
        case ControlOp::kPoolOpen: return cut_pool(in, out);
        case ControlOp::kEventFd:
        case ControlOp::kSignal: return cut_watch(in, out);
        case ControlOp::kLazyAttach: return cut_lazy(in, out);
        case ControlOp::kLazyReport: return cut_plain<ControlLazyReport>(in, out);
        case ControlOp::kHandoff: return cut_handoff(in, out);
        default: return cut_plain<ControlId>(in, out);
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
    Cutter in(packet);
    ControlHeader header;
    if (!in.cut(header)) return malformed("shorter than its header");
    if (header.magic != kControlMagic) return malformed("not one of ipcfs");
    if (header.version != kControlVersion) return malformed("another version");
    if (header.error != 0) return malformed("an error in a request");
    if (!is_request(header.op)) return Fault{EOPNOTSUPP, "control packet: unknown operation"};
    Request out;
    out.op = static_cast<ControlOp>(header.op);
    out.tag = header.tag;
    if (fds != wanted_fds(out.op)) return malformed("another number of descriptors than it takes");
    if (!cut_body(in, out)) return malformed("a length or field is wrong");
    if (!in.empty()) return malformed("longer than it says");
    return out;
}

std::uint32_t tag_of(std::span<const std::byte> packet) noexcept {
    ControlHeader header;
    return Cutter(packet).cut(header) ? header.tag : 0;
}

std::uint16_t op_of(std::span<const std::byte> packet) noexcept {
    ControlHeader header;
    return Cutter(packet).cut(header) ? header.op : std::uint16_t{0};
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
