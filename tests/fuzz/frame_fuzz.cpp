// libFuzzer target for include/ipcfs/frame.hpp: whatever arrives, decoding stays inside the bytes,
// and what it accepts has one encoding. The checksum would keep random bytes out, so each input is
// tried as it is, then with the checksum made right, then cut into the parts of a frame to be
// encoded.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include <base/check.hpp>
#include <ipcfs/frame.hpp>

namespace {

using namespace ipcfs;
using Bytes = std::vector<std::byte>;

void accepted_frame_has_one_encoding(std::span<const std::byte> in, const FrameView& view,
                                     std::size_t consumed) {
    IPCFS_CHECK(consumed <= in.size());
    IPCFS_CHECK(view.header.header_length + view.header.body_length == consumed);
    IPCFS_CHECK(view.body.size() == view.header.body_length);
    IPCFS_CHECK(view.extensions.data() == in.data() + sizeof(FrameHeader));

    Bytes extensions;
    std::size_t count = 0;
    view.for_each_extension([&](const Extension& each) {
        IPCFS_CHECK(append_extension(extensions, each.type, each.value));
        IPCFS_CHECK(view.extension(each.type).has_value());
        ++count;
    });
    IPCFS_CHECK(count <= kMaxFrameExtensions);
    IPCFS_CHECK(std::ranges::equal(extensions, view.extensions));

    Bytes again;
    IPCFS_CHECK(encode(view.header, extensions, view.body, again));
    IPCFS_CHECK(std::ranges::equal(again, in.first(consumed)));

    FrameView cut;
    std::size_t none = 0;
    IPCFS_CHECK(decode(in.first(consumed - 1), cut, none) == FrameError::kTruncated);
    IPCFS_CHECK(none == 0);
}

bool decodes(std::span<const std::byte> in) {
    FrameView view;
    std::size_t consumed = 0;
    const FrameError error = decode(in, view, consumed);
    if (error != FrameError::kNone) {
        IPCFS_CHECK(consumed == 0);
        return false;
    }
    accepted_frame_has_one_encoding(in, view, consumed);
    return true;
}

// As it is, but for the magic and the checksum.
void try_with_right_checksum(std::span<const std::byte> in) {
    if (in.size() < sizeof(FrameHeader)) return;
    Bytes fixed(in.begin(), in.end());
    FrameHeader header;
    std::memcpy(&header, fixed.data(), sizeof header);
    header.magic = kFrameMagic;
    header.version = kFrameVersion;
    const auto after = std::span<const std::byte>(fixed).subspan(sizeof header);
    const std::size_t extensions = std::min<std::size_t>(
        after.size(),
        header.header_length < sizeof header ? 0 : header.header_length - sizeof header);
    const std::size_t body = static_cast<std::size_t>(
        std::min<std::uint64_t>(after.size() - extensions, header.body_length));
    header.crc32c =
        (header.flags & kFrameNoChecksum) != 0
            ? 0
            : detail::frame_crc(header, after.first(extensions), after.subspan(extensions, body));
    std::memcpy(fixed.data(), &header, sizeof header);
    decodes(fixed);
}

// The first 96 bytes are the fields, the next as many as the 97th says the extensions, the rest the
// body. What encodes must decode to the same.
void try_to_encode(std::span<const std::byte> in) {
    if (in.size() < sizeof(FrameHeader) + 1) return;
    FrameHeader header;
    std::memcpy(&header, in.data(), sizeof header);
    const auto rest = in.subspan(sizeof header + 1);
    const auto wanted = static_cast<std::size_t>(in[sizeof header]) * 8;
    const auto extensions = rest.first(std::min(wanted, rest.size()));
    const auto body = rest.subspan(extensions.size());
    Bytes frame;
    if (!encode(header, extensions, body, frame)) {
        IPCFS_CHECK(frame.empty());
        return;
    }
    FrameView view;
    std::size_t consumed = 0;
    IPCFS_CHECK(decode(frame, view, consumed) == FrameError::kNone);
    IPCFS_CHECK(consumed == frame.size());
    IPCFS_CHECK(std::ranges::equal(view.extensions, extensions));
    IPCFS_CHECK(std::ranges::equal(view.body, body));
    header.magic = view.header.magic;
    header.version = view.header.version;
    header.reserved = 0;
    header.header_length = view.header.header_length;
    header.body_length = body.size();
    header.crc32c = view.header.crc32c;
    IPCFS_CHECK(header == view.header);
    IPCFS_CHECK(decodes(frame));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const auto in = std::as_bytes(std::span(data, size));
    decodes(in);
    try_with_right_checksum(in);
    try_to_encode(in);
    return 0;
}
