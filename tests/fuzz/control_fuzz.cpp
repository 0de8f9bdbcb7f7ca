// libFuzzer target for packets of the control socket: whatever arrives, parsing stays inside the
// bytes, and what it accepts is made up of its structure and its texts and nothing else, so that it
// has one encoding. The first byte is how many descriptors came with it; each input is also tried
// with the magic and version made right.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

#include <control/packet.hpp>

#include <base/check.hpp>

namespace {

using namespace ipcfs;
using namespace ipcfs::control;

void is_a_refusal(const Fault& fault, std::span<const std::byte> packet) {
    IPCFS_CHECK(fault.code == EINVAL || fault.code == EMSGSIZE || fault.code == EOPNOTSUPP);
    const Packet reply = make_error(op_of(packet), tag_of(packet), fault);
    IPCFS_CHECK(reply.size() > sizeof(ControlHeader) && reply.size() <= kMaxControlPacket);
}

void is_a_name(std::string_view path) {
    IPCFS_CHECK(!path.empty() && path.front() != '/');
    IPCFS_CHECK(path.find('\0') == std::string_view::npos);
}

// The packet that says what the request says.
Packet encode(const Request& request) {
    std::string texts(request.path);
    texts += request.text;
    texts += request.target;
    texts.append(reinterpret_cast<const char*>(request.extensions.data()),
                 request.extensions.size());
    return std::visit(
        [&](const auto& body) {
            return make_packet(static_cast<std::uint16_t>(request.op), request.tag, 0,
                               std::as_bytes(std::span(&body, 1)), texts);
        },
        request.body);
}

void try_packet(std::span<const std::byte> packet, std::size_t fds) {
    const auto request = parse_request(packet, fds);
    if (!request) return is_a_refusal(request.error(), packet);
    IPCFS_CHECK(fds == wanted_fds(request->op));
    IPCFS_CHECK(request->tag == tag_of(packet));
    IPCFS_CHECK(request->text.find('\0') == std::string_view::npos);
    if (std::holds_alternative<ControlSend>(request->body)) {
        is_a_name(request->path);
        IPCFS_CHECK(request->path.size() == request->as<ControlSend>().path_length);
        IPCFS_CHECK(request->extensions.size() == request->as<ControlSend>().extensions_length);
    }
    if (std::holds_alternative<ControlHandoff>(request->body)) {
        is_a_name(request->path);
        is_a_name(request->target);
        IPCFS_CHECK(!request->text.empty());
    }
    const Packet again = encode(*request);
    IPCFS_CHECK(again.size() == packet.size());
    IPCFS_CHECK(std::memcmp(again.data(), packet.data(), packet.size()) == 0);
    IPCFS_CHECK(!parse_request(packet.first(packet.size() - 1), fds).has_value());
    IPCFS_CHECK(!parse_request(packet, fds + 1).has_value());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    const std::size_t fds = data[0];
    const auto in = std::as_bytes(std::span(data, size)).subspan(1);
    try_packet(in, fds);
    if (in.size() < sizeof(ControlHeader)) return 0;
    Packet right(in.begin(), in.end());
    ControlHeader header;
    std::memcpy(&header, right.data(), sizeof header);
    header.magic = kControlMagic;
    header.version = kControlVersion;
    header.error = 0;
    header.op &= 15;
    std::memcpy(right.data(), &header, sizeof header);
    try_packet(right, wanted_fds(static_cast<ControlOp>(header.op)));
    return 0;
}
