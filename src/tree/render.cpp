// Messages as bytes. Any thread.
#include <algorithm>

#include <tree/render.hpp>

namespace ipcfs::tree {

FrameHeader header_of(const queue::Envelope& e, const queue::Message& message) {
    FrameHeader h;
    h.type = static_cast<FrameType>(e.type);
    h.flags = static_cast<std::uint16_t>((e.redelivered ? kFrameRedelivered : 0) |
                                         (e.drop_when_late ? kFrameExpires : 0));
    h.priority = e.priority;
    h.sequence = e.sequence;
    h.message_id = e.id;
    h.correlation_id = e.correlation;
    h.time = static_cast<std::uint64_t>(e.time);
    h.deadline = static_cast<std::uint64_t>(e.deadline);
    h.sender_pid = static_cast<std::uint32_t>(e.sender.pid);
    h.sender_tid = static_cast<std::uint32_t>(e.sender.tid);
    h.sender_uid = e.sender.uid;
    h.sender_gid = e.sender.gid;
    if (message.payload) h.payload_id = message.payload->id;
    encode_header(h, message.extensions(), message.body());
    return h;
}

std::span<const std::byte> Cut::operator()(std::span<const std::byte> piece) noexcept {
    const std::size_t skip = std::min<std::uint64_t>(from_, piece.size());
    from_ -= skip;
    piece = piece.subspan(skip, std::min(size_, piece.size() - skip));
    size_ -= piece.size();
    return piece;
}

void show(const queue::MessageRef& message, const FrameHeader* header, std::uint64_t from,
          std::size_t size, Delivery& to) {
    to.message = message;
    Cut cut(from, size);
    if (header) {
        to.header = *header;
        to.parts[0] = cut(std::as_bytes(std::span(&to.header, 1)));
        to.parts[1] = cut(message->content());
    } else if (message->payload) {
        const payload::Payload& payload = *message->payload;
        to.file = {payload.file(), payload.offset() + from,
                   static_cast<std::size_t>(std::min<std::uint64_t>(size, payload.size - from))};
    } else {
        to.parts[0] = cut(message->body());
    }
}

}  // namespace ipcfs::tree
