// Message: one received message, by value. Copies share the bytes, which never change; what body(),
// text() and extension() return is valid while a copy lives. Any thread, one at a time for each object.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <utility>

#include <ipcfs/frame.hpp>
#include <ipcfs/payload.hpp>

namespace ipcfs {

class Message {
public:
    Message() = default;
    // `view` points into `storage`.
    Message(const FrameView& view, std::shared_ptr<const std::byte[]> storage, Payload payload)
        : view_(view), storage_(std::move(storage)), payload_(std::move(payload)) {}

    const FrameHeader& header() const noexcept { return view_.header; }
    FrameType type() const noexcept { return view_.header.type; }
    std::uint8_t priority() const noexcept { return view_.header.priority; }
    // The message's number in its channel, from 1.
    std::uint64_t sequence() const noexcept { return view_.header.sequence; }
    // Matches a response to its request; 0: none.
    std::uint64_t correlation_id() const noexcept { return view_.header.correlation_id; }
    std::uint32_t sender_pid() const noexcept { return view_.header.sender_pid; }
    std::uint32_t sender_uid() const noexcept { return view_.header.sender_uid; }
    std::chrono::system_clock::time_point time() const noexcept {
        return std::chrono::system_clock::time_point(
            std::chrono::duration_cast<std::chrono::system_clock::duration>(
                std::chrono::nanoseconds(view_.header.time)));
    }
    // Whether it may have been delivered before.
    bool redelivered() const noexcept { return (view_.header.flags & kFrameRedelivered) != 0; }

    // The value of the first extension of this type, such as ExtensionType::kContentType; empty if
    // there is none.
    std::optional<std::span<const std::byte>> extension(ExtensionType type) const {
        return view_.extension(type);
    }
    // All extensions, for `take_extension`.
    std::span<const std::byte> extensions() const noexcept { return view_.extensions; }

    // Whether the body is a payload, outside the message itself.
    bool has_payload() const noexcept { return static_cast<bool>(payload_); }
    const Payload& payload() const noexcept { return payload_; }
    // The size of the body in bytes, payload or not.
    std::uint64_t size() const noexcept {
        return has_payload() ? payload_.size() : view_.body.size();
    }
    // The body; maps a payload at the first call. Errors as Payload::map().
    Expected<std::span<const std::byte>> map() const {
        return has_payload() ? payload_.map() : view_.body;
    }
    // Like map(), but empty if that fails, which can only happen for a payload.
    std::span<const std::byte> body() const {
        return has_payload() ? payload_.bytes() : view_.body;
    }
    std::string_view text() const { return detail::as_text(body()); }

private:
    FrameView view_;
    std::shared_ptr<const std::byte[]> storage_;
    Payload payload_;
};

}  // namespace ipcfs
