// The frame: the header of every message on the files of framed/, on the wire and in the client
// header. This is an ABI: offsets and meanings never change within version 1; additions come as
// extensions. docs/frames.md has the same layout for C. Header-only; depends only on the standard
// library. Pure functions and views: any thread, no allocation except in `encode` and
// `append_extension`. Input is not trusted: every field is checked before use, and a view never
// exceeds the bytes it was decoded from.
#pragma once

#include <array>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string_view>
#include <sys/ioctl.h>
#include <type_traits>
#include <vector>

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

namespace ipcfs {

static_assert(std::endian::native == std::endian::little,
              "frames are little-endian and are copied, not converted");

inline constexpr std::uint32_t kFrameMagic = 0x46435049;  // the bytes I P C F
inline constexpr std::uint8_t kFrameVersion = 1;
inline constexpr std::size_t kMaxFrameHeader = 4096;  // bytes: fixed part and extensions
inline constexpr std::size_t kMaxFrameExtensions = 64;
inline constexpr std::uint64_t kMaxFrameBody = std::uint64_t{4} << 30;  // bytes; larger: payload_id

enum class FrameType : std::uint8_t {
    kControl = 1,     // between the client library and the daemon
    kData = 2,        // a message
    kEvent = 3,       // a notification
    kCapability = 4,  // passes the capability capability_id
    kHandoff = 5,     // the content is in payload payload_id
    kRequest = 6,     // expects a kResponse or kError with the same correlation_id
    kResponse = 7,
    kError = 8,  // the body is text for people
};

// Flags in the low byte change how a frame must be handled: unknown ones are refused. Flags in the
// high byte are informative: unknown ones are kept and ignored.
enum FrameFlags : std::uint16_t {
    kFrameNoChecksum = 1U << 0,   // crc32c is 0 and unchecked (frames written by shell tools)
    kFrameExpires = 1U << 1,      // drop the frame after `deadline` instead of delivering it late
    kFrameRedelivered = 1U << 8,  // set by the daemon: may have been delivered before
};
inline constexpr std::uint16_t kFrameKnownCriticalFlags = kFrameNoChecksum | kFrameExpires;
inline constexpr std::uint16_t kFrameCriticalFlags = 0x00ff;

// ioctl on an open file of framed/: from now on, one read returns as many whole frames as are
// queued and fit, at least one, at most the given number. 0 restores one frame a read; above
// kMaxReadBatch is EINVAL.
inline constexpr unsigned long kIoctlReadBatch = _IOW('i', 1, std::uint32_t);
inline constexpr std::uint32_t kMaxReadBatch = 256;

// ioctl on an open framed/queue, with the address of whole frames of `size` bytes in total: sends them
// like one write, with the same errors, but returns 0. Unlike a write it holds no kernel lock of the
// file, so that senders on a durable channel can wait for the disk together. ENOTTY on other files.
inline constexpr unsigned long kIoctlSend = _IOC(_IOC_WRITE, 'i', 2, 0);
inline constexpr std::size_t kMaxIoctlSend =
    15 << 10;  // bytes; the request encodes the size in 14 bits
constexpr unsigned long ioctl_send(std::size_t size) noexcept {
    return kIoctlSend | static_cast<unsigned long>(size) << _IOC_SIZESHIFT;
}

// Extension types. Readers skip unknown ones, the daemon keeps them. 0 is invalid.
enum class ExtensionType : std::uint16_t {
    kMethod = 1,       // text: the method of a request
    kContentType = 2,  // text: a media type
    kSession = 3,      // opaque: the key of a sticky session
    kCacheKey = 4,     // opaque
    kTraceId = 5,      // 16 bytes of a trace id, or text
    kPayload = 6,      // a PayloadRef: where the body is kept
    kGroup = 7,        // text: a group that a multicast is for; may repeat
};

// The value of the extension kPayload, for a body kept outside the frame. The daemon sets it;
// a client writes it only for a chunk of its own pool.
enum class PayloadKind : std::uint8_t {
    kSealed = 1,   // payload/<payload_id>
    kPooled = 2,   // a chunk of a pool: kPoolMap
    kLazy = 3,     // filled by the producer on access: kLazyAttach
    kHandoff = 4,  // a region that was handed over: kClaim
};
struct PayloadRef {
    PayloadKind kind = PayloadKind::kSealed;
    std::uint8_t reserved[3] = {};
    std::uint32_t chunk = 0;       // kPooled: its index
    std::uint64_t size = 0;        // bytes
    std::uint64_t pool = 0;        // kPooled: the pool's id
    std::uint32_t generation = 0;  // kPooled: of the chunk, as in PoolChunk
    std::uint32_t reserved2 = 0;
};
static_assert(sizeof(PayloadRef) == 32 && std::is_trivially_copyable_v<PayloadRef>);

// The fixed part: 96 bytes without padding. The daemon sets sequence, time and sender_* from what
// the kernel says, whatever the client writes there.
struct FrameHeader {
    std::uint32_t magic = kFrameMagic;
    std::uint8_t version = kFrameVersion;
    FrameType type = FrameType::kData;
    std::uint16_t header_length = 96;  // this struct and the extensions; a multiple of 8
    std::uint16_t flags = 0;           // FrameFlags
    std::uint8_t priority = 128;       // 0 lowest .. 255 critical
    std::uint8_t reserved = 0;
    std::uint32_t crc32c = 0;          // of header (this field 0), extensions and body
    std::uint64_t sequence = 0;        // of the message in its channel, from 1
    std::uint64_t message_id = 0;      // chosen by the sender
    std::uint64_t correlation_id = 0;  // ties a response to its request
    std::uint64_t time = 0;            // time of arrival, ns since the epoch (CLOCK_REALTIME)
    std::uint64_t deadline = 0;        // ns since the epoch; 0: none
    std::uint32_t sender_pid = 0;
    std::uint32_t sender_tid = 0;
    std::uint32_t sender_uid = 0;
    std::uint32_t sender_gid = 0;
    std::uint64_t capability_id = 0;
    std::uint64_t payload_id = 0;  // names a file of payload/; 0: none
    std::uint64_t body_length = 0;

    bool operator==(const FrameHeader&) const = default;
};

static_assert(sizeof(FrameHeader) == 96);
static_assert(std::is_trivially_copyable_v<FrameHeader> && std::is_standard_layout_v<FrameHeader>);
static_assert(std::has_unique_object_representations_v<FrameHeader>, "no padding");
static_assert(offsetof(FrameHeader, type) == 5 && offsetof(FrameHeader, crc32c) == 12);
static_assert(offsetof(FrameHeader, sequence) == 16 && offsetof(FrameHeader, deadline) == 48);
static_assert(offsetof(FrameHeader, sender_pid) == 56 && offsetof(FrameHeader, body_length) == 88);

enum class FrameError {
    kNone,
    kTruncated,  // more bytes are needed; correct so far
    kBadMagic,
    kBadVersion,
    kBadType,
    kBadFlags,
    kBadReserved,
    kBadHeaderLength,
    kBadExtension,
    kBodyTooLong,
    kBadChecksum,
};

constexpr const char* to_string(FrameError error) noexcept {
    constexpr std::array kTexts{"ok",
                                "frame is truncated",
                                "not a frame (bad magic)",
                                "unknown frame version",
                                "unknown frame type",
                                "unknown frame flags",
                                "reserved byte is not zero",
                                "bad header length",
                                "bad extension",
                                "frame body is too long",
                                "bad checksum"};
    const auto at = static_cast<std::size_t>(error);
    return at < kTexts.size() ? kTexts[at] : "unknown frame error";
}

constexpr const char* to_string(FrameType type) noexcept {
    constexpr std::array kNames{"unknown", "control", "data",     "event", "capability",
                                "handoff", "request", "response", "error"};
    const auto at = static_cast<std::size_t>(type);
    return kNames[at < kNames.size() ? at : 0];
}

namespace detail {

inline std::string_view as_text(std::span<const std::byte> bytes) noexcept {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Slicing by 8: table[k][b] is the CRC of byte b followed by k zero bytes (reflected 0x1EDC6F41).
inline constexpr auto kCrcTables = [] {
    std::array<std::array<std::uint32_t, 256>, 8> tables{};
    for (std::uint32_t b = 0; b < 256; ++b) {
        std::uint32_t crc = b;
        for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1U) != 0 ? 0x82f63b78U : 0U);
        tables[0][b] = crc;
    }
    for (std::size_t k = 1; k < 8; ++k) {
        for (std::size_t b = 0; b < 256; ++b) {
            const std::uint32_t before = tables[k - 1][b];
            tables[k][b] = (before >> 8) ^ tables[0][before & 0xffU];
        }
    }
    return tables;
}();

inline std::uint64_t load64(const std::byte* at) noexcept {
    std::uint64_t word;
    std::memcpy(&word, at, sizeof word);
    return word;
}

inline std::uint32_t crc32c_table(std::span<const std::byte> data, std::uint32_t crc) noexcept {
    const auto& t = kCrcTables;
    while (data.size() >= 8) {
        const std::uint64_t word = load64(data.data()) ^ crc;
        crc = t[7][word & 0xff] ^ t[6][word >> 8 & 0xff] ^ t[5][word >> 16 & 0xff] ^
              t[4][word >> 24 & 0xff] ^ t[3][word >> 32 & 0xff] ^ t[2][word >> 40 & 0xff] ^
              t[1][word >> 48 & 0xff] ^ t[0][word >> 56];
        data = data.subspan(8);
    }
    for (const std::byte b : data)
        crc = (crc >> 8) ^ t[0][(crc ^ static_cast<std::uint32_t>(b)) & 0xffU];
    return crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) inline std::uint32_t crc32c_sse42(std::span<const std::byte> data,
                                                                    std::uint32_t crc) noexcept {
    std::uint64_t wide = crc;
    while (data.size() >= 8) {
        wide = _mm_crc32_u64(wide, load64(data.data()));
        data = data.subspan(8);
    }
    crc = static_cast<std::uint32_t>(wide);
    for (const std::byte b : data) crc = _mm_crc32_u8(crc, static_cast<unsigned char>(b));
    return crc;
}
#endif

constexpr std::size_t padded_extension(std::size_t length) noexcept {
    return (4 + length + 7) & ~std::size_t{7};
}

}  // namespace detail

// CRC-32C (Castagnoli; RFC 3720 appendix B.4). Can be chained: crc32c(b, crc32c(a)) is the checksum
// of a followed by b.
inline std::uint32_t crc32c(std::span<const std::byte> data, std::uint32_t before = 0) noexcept {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2")) return ~detail::crc32c_sse42(data, ~before);
#endif
    return ~detail::crc32c_table(data, ~before);
}

struct Extension {
    ExtensionType type{};
    std::span<const std::byte> value;
};

// Removes the first extension from `rest`. False if it is malformed. Padding must be zero, so that
// every extension has exactly one encoding.
inline bool take_extension(std::span<const std::byte>& rest, Extension& out) noexcept {
    std::uint16_t type = 0;
    std::uint16_t length = 0;
    if (rest.size() < 8) return false;
    std::memcpy(&type, rest.data(), sizeof type);
    std::memcpy(&length, rest.data() + 2, sizeof length);
    const std::size_t padded = detail::padded_extension(length);
    if (type == 0 || padded > rest.size()) return false;
    for (std::size_t at = 4U + length; at < padded; ++at)
        if (rest[at] != std::byte{0}) return false;
    out = Extension{static_cast<ExtensionType>(type), rest.subspan(4, length)};
    rest = rest.subspan(padded);
    return true;
}

// Whether `extensions` is well-formed and within the limits of a header.
inline bool valid_extensions(std::span<const std::byte> extensions) noexcept {
    if (extensions.size() > kMaxFrameHeader - sizeof(FrameHeader)) return false;
    Extension each;
    for (std::size_t count = 0; !extensions.empty(); ++count)
        if (count == kMaxFrameExtensions || !take_extension(extensions, each)) return false;
    return true;
}

// A decoded frame. The spans point into the bytes given to decode() and are valid as long as those.
struct FrameView {
    FrameHeader header;
    std::span<const std::byte> extensions;  // valid_extensions() holds
    std::span<const std::byte> body;

    // Calls use(const Extension&) for each extension in order. If `use` returns bool, false stops
    // the iteration.
    template <std::invocable<const Extension&> F>
    void for_each_extension(F&& use) const {
        std::span<const std::byte> rest = extensions;
        Extension each;
        while (!rest.empty() && take_extension(rest, each)) {
            if constexpr (std::same_as<std::invoke_result_t<F&, const Extension&>, bool>) {
                if (!use(static_cast<const Extension&>(each))) return;
            } else {
                use(static_cast<const Extension&>(each));
            }
        }
    }

    // The value of the first extension of this type; empty if there is none.
    std::optional<std::span<const std::byte>> extension(ExtensionType type) const {
        std::optional<std::span<const std::byte>> found;
        for_each_extension([&](const Extension& each) {
            if (each.type == type) found = each.value;
            return !found.has_value();
        });
        return found;
    }
};

namespace detail {

// Checks the header alone, except header_length.
inline FrameError check_fixed(const FrameHeader& header) noexcept {
    if (header.version != kFrameVersion) return FrameError::kBadVersion;
    if (header.type < FrameType::kControl || header.type > FrameType::kError)
        return FrameError::kBadType;
    const unsigned unknown = kFrameCriticalFlags & ~unsigned{kFrameKnownCriticalFlags};
    if ((header.flags & unknown) != 0) return FrameError::kBadFlags;
    if (header.reserved != 0) return FrameError::kBadReserved;
    return FrameError::kNone;
}

inline std::uint32_t frame_crc(FrameHeader header, std::span<const std::byte> extensions,
                               std::span<const std::byte> body) noexcept {
    header.crc32c = 0;
    return crc32c(body, crc32c(extensions, crc32c(std::as_bytes(std::span(&header, 1)))));
}

}  // namespace detail

// Decodes the frame at the start of `in`, which other frames may follow. On kNone, sets `out` and its
// length `consumed`; on an error, leaves both unchanged. `max_body` bounds body_length, in bytes.
inline FrameError decode(std::span<const std::byte> in, FrameView& out, std::size_t& consumed,
                         std::uint64_t max_body = kMaxFrameBody) noexcept {
    const std::size_t visible = in.size() < sizeof kFrameMagic ? in.size() : sizeof kFrameMagic;
    // A few bytes suffice to distinguish a shell user's plain text from a truncated frame.
    if (visible != 0 && std::memcmp(in.data(), &kFrameMagic, visible) != 0)
        return FrameError::kBadMagic;
    if (in.size() < sizeof(FrameHeader)) return FrameError::kTruncated;
    FrameHeader header;
    std::memcpy(&header, in.data(), sizeof header);
    if (const FrameError error = detail::check_fixed(header); error != FrameError::kNone)
        return error;
    if (header.header_length < sizeof header || header.header_length > kMaxFrameHeader ||
        header.header_length % 8 != 0)
        return FrameError::kBadHeaderLength;
    if (header.body_length > max_body) return FrameError::kBodyTooLong;
    if (in.size() < header.header_length) return FrameError::kTruncated;
    const auto extensions = in.subspan(sizeof header, header.header_length - sizeof header);
    if (!valid_extensions(extensions)) return FrameError::kBadExtension;
    const auto after = in.subspan(header.header_length);
    if (after.size() < header.body_length) return FrameError::kTruncated;
    const auto body = after.first(static_cast<std::size_t>(header.body_length));
    const std::uint32_t wanted =
        (header.flags & kFrameNoChecksum) != 0 ? 0 : detail::frame_crc(header, extensions, body);
    if (header.crc32c != wanted) return FrameError::kBadChecksum;
    out = FrameView{header, extensions, body};
    consumed = header.header_length + body.size();
    return FrameError::kNone;
}

// Sets magic, version, reserved byte, both lengths and the checksum (0 with kFrameNoChecksum), so
// that header, extensions and body, written in this order, form a frame. Returns the frame's length
// in bytes, or 0 if decode() would refuse it (malformed or too long extensions, unknown type or
// flags, body over kMaxFrameBody); the header is then unusable.
inline std::size_t encode_header(FrameHeader& header, std::span<const std::byte> extensions,
                                 std::span<const std::byte> body) noexcept {
    if (!valid_extensions(extensions) || body.size() > kMaxFrameBody) return 0;
    header.magic = kFrameMagic;
    header.version = kFrameVersion;
    header.reserved = 0;
    header.header_length = static_cast<std::uint16_t>(sizeof header + extensions.size());
    header.body_length = body.size();
    header.crc32c = 0;
    if (detail::check_fixed(header) != FrameError::kNone) return 0;
    if ((header.flags & kFrameNoChecksum) == 0)
        header.crc32c = detail::frame_crc(header, extensions, body);
    return header.header_length + body.size();
}

// Appends one padded extension. False if type is 0 or the result would not fit in a header; then
// nothing is appended.
inline bool append_extension(std::vector<std::byte>& extensions, ExtensionType type,
                             std::span<const std::byte> value) {
    constexpr std::size_t kRoom = kMaxFrameHeader - sizeof(FrameHeader);
    if (static_cast<std::uint16_t>(type) == 0 || value.size() > kRoom) return false;
    const std::size_t at = extensions.size();
    const std::size_t padded = detail::padded_extension(value.size());
    if (at > kRoom || padded > kRoom - at) return false;
    const auto length = static_cast<std::uint16_t>(value.size());
    extensions.resize(at + padded);
    std::memcpy(extensions.data() + at, &type, sizeof type);
    std::memcpy(extensions.data() + at + 2, &length, sizeof length);
    if (!value.empty()) std::memcpy(extensions.data() + at + 4, value.data(), value.size());
    return true;
}

// Appends the whole frame to `out`, computing lengths and checksum of `header`. False, with nothing
// appended, if encode_header() returns 0.
inline bool encode(FrameHeader header, std::span<const std::byte> extensions,
                   std::span<const std::byte> body, std::vector<std::byte>& out) {
    const std::size_t length = encode_header(header, extensions, body);
    if (length == 0) return false;
    const auto fixed = std::as_bytes(std::span(&header, 1));
    out.reserve(out.size() + length);
    out.insert(out.end(), fixed.begin(), fixed.end());
    out.insert(out.end(), extensions.begin(), extensions.end());
    out.insert(out.end(), body.begin(), body.end());
    return true;
}

}  // namespace ipcfs
