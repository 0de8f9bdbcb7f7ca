// What the client header makes of the bytes that a read of framed/ gave, and of its read buffer.
#include <gtest/gtest.h>

#include <ipcfs/batch.hpp>
#include <ipcfs/notifier.hpp>
#include <ipcfs/reader.hpp>
#include <ipcfs/typed.hpp>

namespace ipcfs {
namespace {

using detail::ReadBuffer;
using detail::split_frames;

std::string text_of(std::span<const std::byte> bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

TEST(ClientFrames, ABatchIsSplitIntoItsFrames) {
    Batch batch;
    for (const char* body : {"one", "", "three"}) ASSERT_TRUE(batch.add(body));
    EXPECT_EQ(batch.size(), 3U);
    std::vector<FrameView> views;
    std::size_t missing = 0;
    ASSERT_EQ(split_frames(batch.frames(), views, missing), FrameError::kNone);
    ASSERT_EQ(views.size(), 3U);
    EXPECT_EQ(text_of(views[0].body), "one");
    EXPECT_EQ(text_of(views[1].body), "");
    EXPECT_EQ(text_of(views[2].body), "three");
}

TEST(ClientFrames, ALongFrameSaysHowMuchIsMissing) {
    Batch batch;
    ASSERT_TRUE(batch.add(std::string(100000, 'x')));
    std::vector<FrameView> views;
    std::size_t missing = 0;
    EXPECT_EQ(split_frames(batch.frames().first(8192), views, missing), FrameError::kTruncated);
    EXPECT_EQ(missing, batch.frames().size() - 8192);
}

TEST(ClientFrames, WhatNoDaemonGivesIsAnError) {
    Batch batch;
    ASSERT_TRUE(batch.add("one"));
    ASSERT_TRUE(batch.add("two"));
    std::vector<FrameView> views;
    std::size_t missing = 0;
    const auto frames = batch.frames();
    // Only the first may be cut short.
    EXPECT_NE(split_frames(frames.first(frames.size() - 1), views, missing), FrameError::kNone);
    std::vector<std::byte> garbage(4096, std::byte{0x5a});
    EXPECT_EQ(split_frames(garbage, views, missing), FrameError::kBadMagic);
    // A length that no daemon sends must not become an allocation.
    FrameHeader header;
    header.flags = kFrameNoChecksum;
    header.body_length = kMaxFrameBody;
    EXPECT_EQ(split_frames(std::as_bytes(std::span(&header, 1)), views, missing),
              FrameError::kBodyTooLong);
}

TEST(ClientFrames, ABatchThatIsFullTakesNoMore) {
    Batch batch;
    const std::string body(Batch::kMaxBytes - 2 * sizeof(FrameHeader), 'x');
    ASSERT_TRUE(batch.add(body));
    ASSERT_TRUE(batch.add(""));
    auto refused = batch.add("");
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, EMSGSIZE);
    EXPECT_EQ(batch.size(), 2U);
    EXPECT_EQ(batch.frames().size(), Batch::kMaxBytes);
    batch.clear();
    EXPECT_TRUE(batch.add(body));
}

TEST(ClientReadBuffer, CopiesALittleAndGivesAwayMuch) {
    ReadBuffer buffer;
    std::memset(buffer.room(8192, 0), 'a', 8192);
    const auto little = buffer.take(100);
    EXPECT_NE(little.get(), buffer.first(1).data());
    std::memset(buffer.room(1 << 20, 0), 'b', 1 << 20);
    auto much = buffer.take(1 << 20);
    EXPECT_EQ(much.get(), buffer.first(1).data());
    // It is somebody's now, and is not written to.
    std::memset(buffer.room(8192, 0), 'c', 8192);
    EXPECT_EQ(much[0], std::byte{'b'});
    EXPECT_EQ(little[0], std::byte{'a'});
}

TEST(ClientReadBuffer, UsesABufferAgainThatWasLetGo) {
    ReadBuffer buffer;
    buffer.room(1 << 20, 0);
    const auto* first = buffer.take(1 << 20).get();
    EXPECT_EQ(buffer.room(1 << 20, 0), first);
    EXPECT_EQ(buffer.wanted(false), std::size_t{1} << 20);
    buffer.take(200);
    EXPECT_EQ(buffer.wanted(false), ReadBuffer::kLeast);
}

TEST(ClientEvents, AreReadByTheirFields) {
    auto event = detail::parse_event("7 1795265078960509967 arrival 128 3 size=2\n");
    ASSERT_TRUE(event);
    EXPECT_EQ(event->sequence, 7U);
    EXPECT_EQ(event->time, 1795265078960509967U);
    EXPECT_EQ(event->kind, "arrival");
    EXPECT_EQ(event->priority, 128);
    EXPECT_EQ(event->depth, 3U);
    EXPECT_EQ(event->detail, "size=2");
    for (const char* bad : {"", "x", "1 2 arrival 300 1 size=2", "1 2 arrival", "1  arrival 1 1"})
        EXPECT_FALSE(detail::parse_event(bad)) << bad;
}

struct Sample {
    std::int32_t id;
    double value;
};
struct Other {
    std::int32_t id;
    double value;
};
struct Named {
    static constexpr std::string_view ipcfs_type = "sample/1";
    std::int32_t id;
    double value;
};
struct NamedAlike {
    static constexpr std::string_view ipcfs_type = "sample/1";
    std::int32_t id;
    double value;
};

static_assert(Sendable<Sample> && Sendable<int> && !Sendable<std::string> && !Sendable<int*>);

Message message_of(const std::vector<std::byte>& frame) {
    auto storage = std::make_shared<std::byte[]>(frame.size());
    std::memcpy(storage.get(), frame.data(), frame.size());
    FrameView view;
    std::size_t consumed = 0;
    EXPECT_EQ(decode({storage.get(), frame.size()}, view, consumed), FrameError::kNone);
    return Message(view, storage, Payload());
}

template <class T>
std::vector<std::byte> frame_of(const T& value, const std::string& type) {
    std::vector<std::byte> extensions;
    append_extension(extensions, ExtensionType::kContentType, std::as_bytes(std::span(type)));
    std::vector<std::byte> frame;
    encode(FrameHeader{}, extensions, std::as_bytes(std::span(&value, 1)), frame);
    return frame;
}

TEST(ClientTyped, TakesItsOwnTypeAndNoOther) {
    const Sample sample{7, 0.5};
    const auto frame = frame_of(sample, Typed<Sample>::content_type());
    auto value = Typed<Sample>::from(message_of(frame));
    ASSERT_TRUE(value);
    EXPECT_EQ(value->id, 7);
    EXPECT_EQ(value->value, 0.5);
    auto other = Typed<Other>::from(message_of(frame));
    ASSERT_FALSE(other);
    EXPECT_EQ(other.error().code, EBADMSG);
    EXPECT_FALSE(Typed<Sample>::from(Message()));
    // The type is right, what follows is not.
    EXPECT_FALSE(Typed<Sample>::from(message_of(frame_of(1, Typed<Sample>::content_type()))));
}

TEST(ClientTyped, ANameOfItsOwnChoosesWhatIsTheSameType) {
    EXPECT_EQ(Typed<Named>::content_type(), Typed<NamedAlike>::content_type());
    EXPECT_NE(Typed<Named>::content_type(), Typed<Sample>::content_type());
    EXPECT_TRUE(Typed<Named>::content_type().starts_with("ipcfs.typed;size=16;hash="));
}

}  // namespace
}  // namespace ipcfs
