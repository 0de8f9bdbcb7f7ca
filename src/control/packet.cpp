// Parsing and building of packets. Pure functions; a client's bytes are not trusted.
#include <array>
#include <csignal>
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

// A message as a ControlSend describes it, but for its texts. The receiver knows the type of a hand-off.
bool describe(const ControlSend& send, bool is_typed, tree::MemoryMessage& message) {
    const auto type = static_cast<FrameType>(send.type);
    const bool is_known = type >= FrameType::kControl && type <= FrameType::kError &&
                          type != FrameType::kCapability && type != FrameType::kHandoff;
    if (send.reserved != 0 || (is_typed && !is_known) || (send.flags & ~unsigned{kFrameExpires}) ||
        send.deadline > INT64_MAX) {
        return false;
    }
    message.size = send.size;
    message.envelope.priority = send.priority;
    message.envelope.type = is_typed ? send.type : static_cast<std::uint8_t>(FrameType::kHandoff);
    message.envelope.id = send.message_id;
    message.envelope.correlation = send.correlation_id;
    message.envelope.deadline = static_cast<Nanos>(send.deadline);
    message.envelope.drop_when_late = (send.flags & kFrameExpires) != 0;
    return true;
}

bool parse(PacketReader& in, tree::MemoryMessage& message) {
    ControlSend send;
    return in.read(send) && describe(send, true, message) &&
           in.read_path(send.path_length, message.path) &&
           in.read(send.extensions_length, message.extensions);
}
bool parse(PacketReader& in, Send& out) {
    return parse(in, out.message);
}
bool parse(PacketReader& in, OfferLazy& out) {
    return parse(in, out.message);
}

bool parse(PacketReader& in, Hello&) {
    ControlHello hello;
    return in.read(hello) && hello.reserved == 0;
}

bool parse(PacketReader& in, ById& out) {
    return in.read(out.id);
}

bool parse(PacketReader& in, OpenPool& out) {
    ControlPoolOpen open;
    if (!in.read(open)) return false;
    out.shape = {open.chunk_size, open.stride, open.chunk_count};
    return in.read_path(open.path_length, out.path);
}

template <class Watch>
bool parse_watch(PacketReader& in, ControlWatch& watch, Watch& out) {
    return in.read(watch) && watch.reserved == 0 && in.read_path(watch.path_length, out.path) &&
           in.read(watch.filter_length, out.filter);
}
bool parse(PacketReader& in, WatchByEventFd& out) {
    ControlWatch watch;
    return parse_watch(in, watch, out) && watch.signal == 0;
}
bool parse(PacketReader& in, WatchBySignal& out) {
    ControlWatch watch;
    if (!parse_watch(in, watch, out) || watch.signal == 0 ||
        watch.signal > static_cast<std::uint32_t>(SIGRTMAX)) {
        return false;
    }
    out.signal = static_cast<int>(watch.signal);
    return true;
}

bool parse(PacketReader& in, AttachLazy& out) {
    ControlLazy lazy;
    if (!in.read(lazy) || lazy.reserved != 0 || lazy.uid != 0 || lazy.pid != 0) return false;
    if (lazy.mode != LazyMode::kFaults && lazy.mode != LazyMode::kWhole) return false;
    if (lazy.length == 0 || lazy.address > UINT64_MAX - lazy.length) return false;
    out.range = {lazy.payload_id, lazy.address, lazy.length, lazy.mode == LazyMode::kWhole};
    return true;
}

bool parse(PacketReader& in, ReportLazy& out) {
    std::uint64_t payload = 0;
    return in.read(payload) && in.read(out.faults) && in.read(out.pages);
}

// The texts come in the order given at the structure, then the extensions.
bool parse(PacketReader& in, HandOff& out) {
    ControlHandoff handoff;
    return in.read(handoff) && describe(handoff.send, false, out.message) &&
           in.read_path(handoff.send.path_length, out.path) &&
           in.read(handoff.name_length, out.region) && !out.region.empty() &&
           in.read_path(handoff.target_length, out.message.path) &&
           in.read(handoff.send.extensions_length, out.message.extensions);
}

struct Operation {
    std::size_t fds;
    bool (*parse)(PacketReader& in, Body& out);
};

template <class... Bodies>
constexpr auto operations_of(const std::variant<Bodies...>*) {
    return std::array{Operation{Bodies::kFds, [](PacketReader& in, Body& out) {
                                    return parse(in, out.emplace<Bodies>());
                                }}...};
}
// By ControlOp, from kHello on.
constexpr auto kOperations = operations_of(static_cast<const Body*>(nullptr));
static_assert(kOperations.size() == static_cast<std::size_t>(ControlOp::kPayloadFd));

const Operation* operation_of(std::uint16_t op) noexcept {
    return op >= 1 && op <= kOperations.size() ? &kOperations[op - 1U] : nullptr;
}

}  // namespace

std::size_t wanted_fds(ControlOp op) noexcept {
    const Operation* const operation = operation_of(static_cast<std::uint16_t>(op));
    return operation ? operation->fds : 0;
}

Result<Request> parse_request(std::span<const std::byte> packet, std::size_t fds) {
    if (packet.size() > kMaxControlPacket) return Fault{EMSGSIZE, "control packet: too long"};
    PacketReader in(packet);
    ControlHeader header;
    if (!in.read(header)) return malformed("too short for its header");
    if (header.magic != kControlMagic) return malformed("wrong magic number");
    if (header.version != kControlVersion) return malformed("unsupported version");
    if (header.error != 0) return malformed("a request must not carry an error");
    const Operation* const operation = operation_of(header.op);
    if (!operation) return Fault{EOPNOTSUPP, "control packet: unknown operation"};
    if (fds != operation->fds) return malformed("wrong number of descriptors for this operation");
    Request out{{header.op, header.tag}, {}};
    if (!operation->parse(in, out.body)) return malformed("a length or field is invalid");
    if (!in.empty()) return malformed("longer than its fields say");
    return out;
}

ReplyTo reply_to(std::span<const std::byte> packet) noexcept {
    ControlHeader header;
    return PacketReader(packet).read(header) ? ReplyTo{header.op, header.tag} : ReplyTo{};
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

Packet make_error(ReplyTo to, const Fault& fault) {
    const std::string_view text = std::string_view(fault.operation).substr(0, kMaxErrorText);
    return make_packet(to.op | static_cast<std::uint16_t>(ControlOp::kReply), to.tag,
                       fault.code == 0 ? EIO : fault.code, {}, text);
}

}  // namespace ipcfs::control
