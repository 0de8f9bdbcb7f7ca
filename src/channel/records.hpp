// What the store keeps of channels and messages, as bytes: a channel's record is CBOR (RFC 8949) with
// names, so that later versions may add to it; a message's head is a fixed struct, since it is made for
// every message. What is read back is checked whole: a file may have been changed by anybody. Pure
// functions; any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <base/result.hpp>
#include <channel/registry.hpp>
#include <channel/settings.hpp>
#include <queue/message.hpp>

namespace ipcfs::channel {

struct ChannelRecord {
    std::uint64_t parent = 0;
    std::string name;
    std::optional<access::Identity> subscriber;  // of a subscription
    Attributes made;
    std::vector<std::pair<std::uint8_t, Attributes>> changed;
    Settings settings;
    std::string filter;  // a subscription's
};

std::vector<std::byte> encode(const ChannelRecord& record);
// EBADMSG with what is wrong.
Result<ChannelRecord> decode_channel(std::span<const std::byte> bytes);

constexpr std::size_t kHeadSize = 80;  // bytes
using Head = std::array<std::byte, kHeadSize>;

// `epoch`: real time less monotonic time, for the moment of expiry.
Head encode_head(const queue::Message& message, Nanos epoch) noexcept;

struct DecodedHead {
    queue::Envelope envelope;      // but for sequence; `enqueued` and `expires` are monotonic again
    std::uint32_t extensions = 0;  // bytes of them before the body
};
// EBADMSG when it cannot be one of ours with `content` bytes behind it.
Result<DecodedHead> decode_head(std::span<const std::byte> head, std::size_t content, Nanos epoch);

}  // namespace ipcfs::channel
