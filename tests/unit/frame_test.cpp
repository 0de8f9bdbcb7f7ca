#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include <ipcfs/frame.hpp>

namespace ipcfs {
namespace {

using Bytes = std::vector<std::byte>;

std::span<const std::byte> bytes(std::string_view text) {
    return std::as_bytes(std::span(text));
}

std::string text(std::span<const std::byte> data) {
    return {reinterpret_cast<const char*>(data.data()), data.size()};
}

FrameHeader some_header() {
    FrameHeader header;
    header.type = FrameType::kRequest;
    header.flags = kFrameExpires | kFrameRedelivered;
    header.priority = 255;
    header.sequence = 7;
    header.message_id = 0x1122334455667788;
    header.correlation_id = 9;
    header.time = 10;
    header.deadline = 11;
    header.sender_pid = 12;
    header.sender_tid = 13;
    header.sender_uid = 14;
    header.sender_gid = 15;
    header.capability_id = 16;
    header.payload_id = 17;
    return header;
}

Bytes some_frame(std::string_view body = "hello") {
    Bytes extensions;
    EXPECT_TRUE(append_extension(extensions, ExtensionType::kMethod, bytes("build")));
    EXPECT_TRUE(append_extension(extensions, ExtensionType{900}, bytes("kept")));
    EXPECT_TRUE(append_extension(extensions, ExtensionType::kTraceId, {}));
    Bytes frame;
    EXPECT_TRUE(encode(some_header(), extensions, bytes(body), frame));
    return frame;
}

FrameError error_of(const Bytes& in) {
    FrameView view;
    std::size_t consumed = 0;
    return decode(in, view, consumed);
}

// Recomputes the checksum so that a test reaches the check it is about.
void seal(Bytes& frame, std::size_t body_at) {
    FrameHeader header;
    std::memcpy(&header, frame.data(), sizeof header);
    const std::span<const std::byte> all(frame);
    header.crc32c = detail::frame_crc(header, all.subspan(sizeof header, body_at - sizeof header),
                                      all.subspan(body_at));
    std::memcpy(frame.data(), &header, sizeof header);
}

template <class T>
void put(Bytes& frame, std::size_t at, T value) {
    std::memcpy(frame.data() + at, &value, sizeof value);
}

TEST(Crc32c, MatchesThePublishedVectors) {
    EXPECT_EQ(crc32c(bytes("123456789")), 0xe3069283U);
    EXPECT_EQ(crc32c(Bytes(32, std::byte{0})), 0x8a9136aaU);     // RFC 3720 B.4
    EXPECT_EQ(crc32c(Bytes(32, std::byte{0xff})), 0x62a8ab43U);  // RFC 3720 B.4
    EXPECT_EQ(crc32c({}), 0U);
}

TEST(Crc32c, IsTheSameByTableAndByInstructionAtEveryLengthAndAlignment) {
    Bytes data(300);
    for (std::size_t i = 0; i < data.size(); ++i)
        data[i] = static_cast<std::byte>(i * 131 + (i >> 3));
    for (std::size_t from = 0; from < 9; ++from) {
        for (std::size_t length = 0; length + from < data.size(); length += 1 + length / 20) {
            const auto part = std::span<const std::byte>(data).subspan(from, length);
            EXPECT_EQ(crc32c(part), ~detail::crc32c_table(part, ~0U)) << from << " " << length;
        }
    }
}

TEST(Crc32c, ChainsOverPieces) {
    const std::string all = "the quick brown fox jumps over the lazy dog";
    for (std::size_t cut = 0; cut <= all.size(); ++cut) {
        const auto first = bytes(std::string_view(all).substr(0, cut));
        const auto second = bytes(std::string_view(all).substr(cut));
        EXPECT_EQ(crc32c(second, crc32c(first)), crc32c(bytes(all)));
    }
}

TEST(Frame, HasTheDocumentedBytes) {
    Bytes frame;
    FrameHeader header;
    header.flags = kFrameNoChecksum;
    ASSERT_TRUE(encode(header, {}, bytes("hi"), frame));
    ASSERT_EQ(frame.size(), 98U);
    EXPECT_EQ(text(std::span<const std::byte>(frame).first(4)), "IPCF");
    EXPECT_EQ(frame[4], std::byte{1});     // version
    EXPECT_EQ(frame[5], std::byte{2});     // data
    EXPECT_EQ(frame[6], std::byte{96});    // header length, low byte first
    EXPECT_EQ(frame[8], std::byte{1});     // no checksum
    EXPECT_EQ(frame[10], std::byte{128});  // normal
    EXPECT_EQ(frame[88], std::byte{2});    // body length
    EXPECT_EQ(frame[96], std::byte{'h'});
}

TEST(Frame, ComesBackAsItWent) {
    const Bytes frame = some_frame();
    FrameView view;
    std::size_t consumed = 0;
    ASSERT_EQ(decode(frame, view, consumed), FrameError::kNone);
    EXPECT_EQ(consumed, frame.size());
    FrameHeader expected = some_header();
    expected.header_length = view.header.header_length;
    expected.body_length = 5;
    expected.crc32c = view.header.crc32c;
    EXPECT_EQ(view.header, expected);
    EXPECT_EQ(view.header.header_length, 96U + 16U + 8U + 8U);
    EXPECT_NE(view.header.crc32c, 0U);
    EXPECT_EQ(text(view.body), "hello");
}

TEST(Frame, FindsExtensionsAndKeepsUnknownOnes) {
    const Bytes frame = some_frame();
    FrameView view;
    std::size_t consumed = 0;
    ASSERT_EQ(decode(frame, view, consumed), FrameError::kNone);
    ASSERT_TRUE(view.extension(ExtensionType::kMethod));
    EXPECT_EQ(text(*view.extension(ExtensionType::kMethod)), "build");
    ASSERT_TRUE(view.extension(ExtensionType::kTraceId));
    EXPECT_TRUE(view.extension(ExtensionType::kTraceId)->empty());
    EXPECT_FALSE(view.extension(ExtensionType::kSession));
    std::string seen;
    view.for_each_extension([&](const Extension& each) {
        seen += std::to_string(static_cast<int>(each.type)) + "=" + text(each.value) + ";";
    });
    EXPECT_EQ(seen, "1=build;900=kept;5=;");
}

TEST(Frame, GivesTheFirstOfSeveralExtensionsOfOneType) {
    Bytes extensions;
    ASSERT_TRUE(append_extension(extensions, ExtensionType::kSession, bytes("a")));
    ASSERT_TRUE(append_extension(extensions, ExtensionType::kSession, bytes("b")));
    const FrameView view{FrameHeader{}, extensions, {}};
    EXPECT_EQ(text(view.extension(ExtensionType::kSession).value()), "a");
}

TEST(Frame, CanBeEmpty) {
    Bytes frame;
    ASSERT_TRUE(encode(FrameHeader{}, {}, {}, frame));
    EXPECT_EQ(frame.size(), sizeof(FrameHeader));
    EXPECT_EQ(error_of(frame), FrameError::kNone);
}

TEST(Frame, FollowsAnotherInOneBuffer) {
    Bytes frames = some_frame("one");
    const std::size_t first = frames.size();
    ASSERT_TRUE(encode(FrameHeader{}, {}, bytes("two"), frames));
    FrameView view;
    std::size_t consumed = 0;
    ASSERT_EQ(decode(frames, view, consumed), FrameError::kNone);
    EXPECT_EQ(text(view.body), "one");
    ASSERT_EQ(consumed, first);
    ASSERT_EQ(decode(std::span<const std::byte>(frames).subspan(consumed), view, consumed),
              FrameError::kNone);
    EXPECT_EQ(text(view.body), "two");
}

TEST(Frame, IsTruncatedAtEveryShorterLengthAndLeavesTheOutputAlone) {
    const Bytes frame = some_frame();
    for (std::size_t length = 0; length < frame.size(); ++length) {
        FrameView view;
        view.header.sequence = 42;
        std::size_t consumed = 43;
        EXPECT_EQ(decode(std::span<const std::byte>(frame).first(length), view, consumed),
                  FrameError::kTruncated)
            << length;
        EXPECT_EQ(view.header.sequence, 42U);
        EXPECT_EQ(consumed, 43U);
    }
}

TEST(Frame, EveryFlippedBitIsNoticed) {
    const Bytes frame = some_frame();
    for (std::size_t bit = 0; bit < frame.size() * 8; ++bit) {
        Bytes bad = frame;
        bad[bit / 8] ^= static_cast<std::byte>(1U << bit % 8);
        EXPECT_NE(error_of(bad), FrameError::kNone) << "bit " << bit;
    }
}

TEST(Frame, TellsPlainTextFromAFrameCutShort) {
    const auto error = [](std::string_view in) {
        FrameView view;
        std::size_t consumed = 0;
        return decode(bytes(in), view, consumed);
    };
    EXPECT_EQ(error("hi"), FrameError::kBadMagic);
    EXPECT_EQ(error("hello world, this is plain text"), FrameError::kBadMagic);
    EXPECT_EQ(error("IPX"), FrameError::kBadMagic);
    EXPECT_EQ(error("IPC"), FrameError::kTruncated);
}

TEST(Frame, RefusesAFixedPartItDoesNotKnow) {
    const auto refused = [](std::size_t at, auto value) {
        Bytes frame = some_frame();
        put(frame, at, value);
        return error_of(frame);
    };
    EXPECT_EQ(refused(4, std::uint8_t{2}), FrameError::kBadVersion);
    EXPECT_EQ(refused(5, std::uint8_t{0}), FrameError::kBadType);
    EXPECT_EQ(refused(5, std::uint8_t{9}), FrameError::kBadType);
    EXPECT_EQ(refused(8, std::uint16_t{4}), FrameError::kBadFlags);
    EXPECT_EQ(refused(11, std::uint8_t{1}), FrameError::kBadReserved);
    EXPECT_EQ(refused(6, std::uint16_t{0}), FrameError::kBadHeaderLength);
    EXPECT_EQ(refused(6, std::uint16_t{88}), FrameError::kBadHeaderLength);
    EXPECT_EQ(refused(6, std::uint16_t{100}), FrameError::kBadHeaderLength);
    EXPECT_EQ(refused(6, std::uint16_t{4104}), FrameError::kBadHeaderLength);
    EXPECT_EQ(refused(88, ~std::uint64_t{0}), FrameError::kBodyTooLong);
    EXPECT_EQ(refused(12, std::uint32_t{0}), FrameError::kBadChecksum);
}

TEST(Frame, KeepsInformationalFlagsItDoesNotKnow) {
    FrameHeader header;
    header.flags = 1U << 15;
    Bytes frame;
    ASSERT_TRUE(encode(header, {}, {}, frame));
    FrameView view;
    std::size_t consumed = 0;
    ASSERT_EQ(decode(frame, view, consumed), FrameError::kNone);
    EXPECT_EQ(view.header.flags, 1U << 15);
}

TEST(Frame, RefusesMalformedExtensions) {
    const std::size_t body_at = 96 + 16 + 8 + 8;
    const auto refused = [&](std::size_t at, auto value) {
        Bytes frame = some_frame();
        put(frame, at, value);
        seal(frame, body_at);
        return error_of(frame);
    };
    EXPECT_EQ(refused(96, std::uint16_t{0}), FrameError::kBadExtension);         // type 0
    EXPECT_EQ(refused(98, std::uint16_t{29}), FrameError::kBadExtension);        // over the end
    EXPECT_EQ(refused(98, std::uint16_t{0xffff}), FrameError::kBadExtension);    // far over
    EXPECT_EQ(refused(96 + 4 + 5, std::uint8_t{1}), FrameError::kBadExtension);  // dirty padding
    EXPECT_EQ(refused(98, std::uint16_t{5}), FrameError::kNone);                 // as it was
}

TEST(Frame, HoldsAtMostSixtyFourExtensions) {
    Bytes extensions;
    for (std::size_t i = 0; i < kMaxFrameExtensions; ++i)
        ASSERT_TRUE(append_extension(extensions, ExtensionType{77}, {}));
    Bytes frame;
    EXPECT_TRUE(encode(FrameHeader{}, extensions, {}, frame));
    EXPECT_EQ(error_of(frame), FrameError::kNone);
    ASSERT_TRUE(append_extension(extensions, ExtensionType{77}, {}));
    Bytes more;
    EXPECT_FALSE(encode(FrameHeader{}, extensions, {}, more));
    EXPECT_TRUE(more.empty());
}

TEST(Frame, HoldsAtMostFourKilobytesOfHeader) {
    Bytes extensions;
    EXPECT_FALSE(append_extension(extensions, ExtensionType{7}, Bytes(4000 - 4 + 1)));
    EXPECT_TRUE(extensions.empty());
    ASSERT_TRUE(append_extension(extensions, ExtensionType{7}, Bytes(4000 - 4)));
    EXPECT_FALSE(append_extension(extensions, ExtensionType{7}, {}));
    EXPECT_FALSE(append_extension(extensions, ExtensionType{0}, {}));
    Bytes frame;
    ASSERT_TRUE(encode(FrameHeader{}, extensions, bytes("x"), frame));
    EXPECT_EQ(frame.size(), 4097U);
    EXPECT_EQ(error_of(frame), FrameError::kNone);
}

TEST(Frame, BoundsTheBodyBeforeItIsThere) {
    const Bytes frame = some_frame("hello");
    FrameView view;
    std::size_t consumed = 0;
    EXPECT_EQ(decode(frame, view, consumed, 4), FrameError::kBodyTooLong);
    EXPECT_EQ(decode(std::span<const std::byte>(frame).first(96), view, consumed, 4),
              FrameError::kBodyTooLong);
    EXPECT_EQ(decode(frame, view, consumed, 5), FrameError::kNone);
}

TEST(Frame, NeedsNoChecksumWhenItSaysSo) {
    FrameHeader header;
    header.flags = kFrameNoChecksum;
    Bytes frame;
    ASSERT_TRUE(encode(header, {}, bytes("abc"), frame));
    EXPECT_EQ(error_of(frame), FrameError::kNone);
    frame.back() = std::byte{'z'};
    EXPECT_EQ(error_of(frame), FrameError::kNone);
    put(frame, 12, std::uint32_t{1});  // a checksum that nobody would check is a mistake
    EXPECT_EQ(error_of(frame), FrameError::kBadChecksum);
}

TEST(Frame, IsStampedInPiecesWithoutBeingCopied) {
    // What the daemon does at delivery: decode the client's frame, stamp, send three pieces.
    const Bytes sent = some_frame();
    FrameView view;
    std::size_t consumed = 0;
    ASSERT_EQ(decode(sent, view, consumed), FrameError::kNone);
    FrameHeader header = view.header;
    header.sequence = 1000;
    header.sender_uid = 1001;
    const std::size_t length = encode_header(header, view.extensions, view.body);
    const auto fixed = std::as_bytes(std::span(&header, 1));
    Bytes delivered(fixed.begin(), fixed.end());
    delivered.insert(delivered.end(), view.extensions.begin(), view.extensions.end());
    delivered.insert(delivered.end(), view.body.begin(), view.body.end());
    EXPECT_EQ(delivered.size(), length);
    ASSERT_EQ(decode(delivered, view, consumed), FrameError::kNone);
    EXPECT_EQ(view.header.sequence, 1000U);
    EXPECT_EQ(view.header.sender_uid, 1001U);
    EXPECT_EQ(text(view.body), "hello");
}

TEST(Frame, IsNotEncodedWhenItCouldNotBeDecoded) {
    FrameHeader header;
    header.type = FrameType{0};
    EXPECT_EQ(encode_header(header, {}, {}), 0U);
    header.type = FrameType::kData;
    header.flags = 1U << 7;
    EXPECT_EQ(encode_header(header, {}, {}), 0U);
    header.flags = 0;
    EXPECT_EQ(encode_header(header, bytes("garbage"), {}), 0U);
    EXPECT_EQ(encode_header(header, {}, {}), sizeof header);
}

}  // namespace
}  // namespace ipcfs
