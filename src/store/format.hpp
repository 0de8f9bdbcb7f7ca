// The bytes of the journal and of a message: docs/store.md describes them. Little-endian, aligned
// to 8, without padding. A record is its header and its body; its checksum is that of both, mixed
// with the salt of its segment, so that what a recycled segment held before is never a record.
// Pure functions, any thread.
#pragma once

#include <array>
#include <cstring>
#include <optional>
#include <type_traits>
#include <vector>

#include <store/store.hpp>

#include <ipcfs/frame.hpp>

namespace ipcfs::store {

using Bytes = std::span<const std::byte>;

constexpr std::uint32_t kFormatVersion = 2;  // 1: a journal in front of LMDB

constexpr std::size_t align8(std::size_t n) {
    return (n + 7) & ~std::size_t{7};
}

template <class T>
Bytes bytes_of(const T& value) {
    static_assert(std::has_unique_object_representations_v<T>, "no padding");
    return std::as_bytes(std::span(&value, 1));
}

// Reads a T at the start of `in`, which must be long enough.
template <class T>
T load(Bytes in) {
    T value;
    std::memcpy(&value, in.data(), sizeof value);
    return value;
}

constexpr Lsn make_lsn(std::uint32_t segment, std::uint32_t end) {
    return (Lsn{segment} << 32) | end;
}
constexpr std::uint32_t segment_of(Lsn lsn) {
    return static_cast<std::uint32_t>(lsn >> 32);
}
constexpr std::uint32_t offset_of(Lsn lsn) {
    return static_cast<std::uint32_t>(lsn);
}

// At the start of each segment; durable before the segment gets its name.
struct SegmentHeader {
    std::uint64_t magic = 0x4c4e524a73666370;  // "pcfsJRNL"
    std::uint32_t version = kFormatVersion;
    std::uint32_t crc = 0;  // of this struct with 0 here
    std::uint32_t number = 0;
    std::uint32_t salt = 0;
    std::uint64_t size = 0;  // of the file, bytes
    std::uint64_t generation = 0;
};
constexpr std::uint32_t kSegmentStart = 64;  // where records start

enum class RecordType : std::uint8_t {
    kBegin = 1,         // the first of a segment: BeginBody
    kSeal = 2,          // the last of a segment: another one follows
    kMark = 3,          // value: an Lsn that was synced before this was written
    kPut = 4,           // count messages; value: the request
    kMove = 5,          // MoveBody
    kErase = 6,         // Key
    kChannel = 7,       // value: its id; ChannelBody and its record
    kEraseChannel = 8,  // value: its id
    kCopy = 9,          // count messages out of an older segment, as they are now
    kRequests = 10,     // count ids: the last requests so far, oldest first
    kFree = 11,         // value: the oldest segment that is still needed
};

struct RecordHeader {
    std::uint32_t crc = 0;     // of the rest and the body, mixed with the segment's salt
    std::uint32_t length = 0;  // with this header and all padding
    Lsn lsn = 0;               // where the record ends
    RecordType type{};
    std::array<std::uint8_t, 3> reserved{};
    std::uint32_t count = 0;
    std::uint64_t value = 0;
};
static_assert(sizeof(RecordHeader) == 32);

struct StateBody {
    std::uint8_t place = 0, redelivered = 0;
    std::uint8_t hidden = 0;  // erased, but its content is somebody's origin
    std::uint8_t reserved = 0;
    std::uint32_t deliveries = 0;
    std::int64_t not_before = 0;
};
struct MoveBody {
    Key key;
    StateBody state;
};
struct ChannelBody {
    std::uint64_t last_sequence = 0;
    std::uint32_t erased = 0;  // only hidden messages are left
    std::uint32_t length = 0;  // of the record, which follows
};
struct BeginBody {
    std::uint32_t previous = 0;  // the segment before; 0: none
    std::uint32_t end = 0;       // where that ended: nothing behind it counts
};
// Before head and content, each padded to 8.
struct MessageHeader {
    Key key;
    StateBody state;
    Key origin;
    std::uint64_t payload = 0;
    std::uint32_t head = 0, content = 0;  // bytes
};
static_assert(sizeof(MessageHeader) == 64);

constexpr std::size_t message_length(std::size_t head, std::size_t content) {
    return sizeof(MessageHeader) + align8(head) + align8(content);
}

StateBody to_body(const State& state);
// Empty where a byte has a value that this version does not write.
std::optional<State> to_state(const StateBody& body);

struct MessageView {
    MessageHeader header;
    State state;
    Bytes head, content;
    std::size_t length = 0;  // with padding
};
// The message at the start of `in`, checked for structure; empty if that is wrong.
std::optional<MessageView> parse_message(Bytes in);

// Adds a message in another state, and the body of a channel's record.
void append_message(std::vector<std::byte>& to, const MessageView& message, const StateBody& state);
std::vector<std::byte> channel_bytes(const ChannelBody& body, Bytes record);

// The checksum a record has to have.
inline std::uint32_t record_crc(RecordHeader header, std::uint32_t crc_of_body,
                                std::uint32_t salt) {
    header.crc = 0;
    return crc32c(bytes_of(header), crc_of_body) ^ salt;
}

struct RecordView {
    RecordHeader header;
    Bytes body;
    std::uint32_t start = 0;

    bool has_messages() const {
        return header.type == RecordType::kPut || header.type == RecordType::kCopy;
    }
};
// Calls use(message, offset) for the messages of a put or copy. False: one of them makes no sense.
template <class F>
bool for_each_message(const RecordView& record, F&& use) {
    std::size_t at = 0;
    for (std::uint32_t i = 0; i < record.header.count; ++i) {
        const auto message = parse_message(record.body.subspan(at));
        if (!message) return false;
        use(*message, record.start + static_cast<std::uint32_t>(sizeof record.header + at));
        at += message->length;
    }
    return true;
}
// The record that starts at `at` of segment `number` with these bytes; empty if there is no valid
// one.
std::optional<RecordView> parse_record(Bytes segment, std::uint32_t at, std::uint32_t number,
                                       std::uint32_t salt);
// The header of a segment; empty if its checksum or magic is wrong. The version may be another.
std::optional<SegmentHeader> parse_segment(Bytes segment);
SegmentHeader sealed(SegmentHeader header);  // with its checksum

}  // namespace ipcfs::store
