// libFuzzer target for packets of the control socket: whatever arrives, parsing stays inside the
// bytes, and what it accepts is made up of its structure and its texts and nothing else, so that it
// has one encoding. The first byte is how many descriptors came with it; each input is also tried
// with the magic and version made right.
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

#include <control/packet.hpp>

#include "../common/request_texts.hpp"
#include <base/check.hpp>

namespace {

using namespace ipcfs;
using namespace ipcfs::control;

void is_a_refusal(const Fault& fault, std::span<const std::byte> packet) {
    IPCFS_CHECK(fault.code == EINVAL || fault.code == EMSGSIZE || fault.code == EOPNOTSUPP);
    const Packet reply = make_error(reply_to(packet), fault);
    IPCFS_CHECK(reply.size() > sizeof(ControlHeader) && reply.size() <= kMaxControlPacket);
}

// Bytes of the structure of an operation.
std::size_t size_of(const Body& body) {
    constexpr std::array<std::size_t, std::variant_size_v<Body>> kSizes{
        sizeof(ControlHello), sizeof(ControlSend),       sizeof(ControlPoolOpen),
        sizeof(ControlId),    sizeof(ControlId),         sizeof(ControlWatch),
        sizeof(ControlId),    sizeof(ControlWatch),      sizeof(ControlSend),
        sizeof(ControlLazy),  sizeof(ControlLazyReport), sizeof(ControlHandoff),
        sizeof(ControlId),    sizeof(ControlId)};
    return kSizes[body.index()];
}

void try_packet(std::span<const std::byte> packet, std::size_t fds) {
    const auto request = parse_request(packet, fds);
    if (!request) return is_a_refusal(request.error(), packet);
    const ReplyTo to = reply_to(packet);
    IPCFS_CHECK(request->to.op == to.op && request->to.tag == to.tag);
    IPCFS_CHECK(to.op == request->body.index() + 1);
    IPCFS_CHECK(fds == wanted_fds(static_cast<ControlOp>(to.op)));
    std::string texts;
    const auto all = std::visit(test::TextsOf{}, request->body);
    for (std::size_t i = 0; i < all.size(); ++i) {
        texts += all[i];
        const bool is_path = i == 0 || (i == 2 && std::holds_alternative<HandOff>(request->body));
        if (is_path) IPCFS_CHECK(!all[i].empty() && all[i].front() != '/');
        if (is_path) IPCFS_CHECK(all[i].find('\0') == std::string_view::npos);
    }
    IPCFS_CHECK(sizeof(ControlHeader) + size_of(request->body) + texts.size() == packet.size());
    const auto tail = packet.last(texts.size());
    IPCFS_CHECK(std::memcmp(texts.data(), tail.data(), texts.size()) == 0);
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
