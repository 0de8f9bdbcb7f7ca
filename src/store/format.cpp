// Encoding and checking of records. Any thread.
#include <algorithm>

#include <store/format.hpp>

namespace ipcfs::store {

StateBody to_body(const State& state) {
    StateBody body;
    body.place = static_cast<std::uint8_t>(state.place);
    body.redelivered = state.redelivered ? 1 : 0;
    body.deliveries = state.deliveries;
    body.not_before = state.not_before;
    return body;
}

std::optional<State> to_state(const StateBody& body) {
    if (body.place > static_cast<std::uint8_t>(Place::kDead) || body.redelivered > 1 ||
        body.hidden > 1 || body.reserved != 0)
        return std::nullopt;
    return State{static_cast<Place>(body.place), body.redelivered != 0, body.deliveries,
                 body.not_before};
}

std::optional<MessageView> parse_message(Bytes in) {
    if (in.size() < sizeof(MessageHeader)) return std::nullopt;
    MessageView view;
    view.header = load<MessageHeader>(in);
    const auto& header = view.header;
    view.length = message_length(header.head, header.content);
    const auto state = to_state(header.state);
    if (!state || view.length > in.size() || header.key.channel == 0 || header.key.sequence == 0)
        return std::nullopt;
    view.state = *state;
    view.head = in.subspan(sizeof header, header.head);
    view.content = in.subspan(sizeof header + align8(header.head), header.content);
    return view;
}

void append_message(std::vector<std::byte>& to, const MessageView& message,
                    const StateBody& state) {
    MessageHeader header = message.header;
    header.state = state;
    for (const Bytes part : {bytes_of(header), message.head, message.content}) {
        to.insert(to.end(), part.begin(), part.end());
        to.resize(align8(to.size()));
    }
}

std::vector<std::byte> channel_bytes(const ChannelBody& body, Bytes record) {
    std::vector<std::byte> bytes(sizeof body + record.size());
    std::memcpy(bytes.data(), &body, sizeof body);
    std::copy(record.begin(), record.end(), bytes.begin() + sizeof body);
    return bytes;
}

std::optional<RecordView> parse_record(Bytes segment, std::uint32_t at, std::uint32_t number,
                                       std::uint32_t salt) {
    if (at % 8 != 0 || at > segment.size() || segment.size() - at < sizeof(RecordHeader))
        return std::nullopt;
    const auto rest = segment.subspan(at);
    const auto header = load<RecordHeader>(rest);
    if (header.length < sizeof header || header.length % 8 != 0 || header.length > rest.size() ||
        header.lsn != make_lsn(number, at + header.length))
        return std::nullopt;
    const auto body = rest.subspan(sizeof header, header.length - sizeof header);
    if (header.crc != record_crc(header, crc32c(body), salt)) return std::nullopt;
    return RecordView{header, body, at};
}

SegmentHeader sealed(SegmentHeader header) {
    header.crc = 0;
    header.crc = crc32c(bytes_of(header));
    return header;
}

std::optional<SegmentHeader> parse_segment(Bytes segment) {
    if (segment.size() < sizeof(SegmentHeader)) return std::nullopt;
    const auto header = load<SegmentHeader>(segment);
    if (header.magic != SegmentHeader{}.magic || sealed(header).crc != header.crc)
        return std::nullopt;
    return header;
}

}  // namespace ipcfs::store
