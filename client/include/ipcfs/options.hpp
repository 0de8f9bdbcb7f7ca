// Options for opening a channel and for sending a message. Plain values.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <span>
#include <string_view>
#include <sys/types.h>
#include <vector>

#include <ipcfs/control.hpp>
#include <ipcfs/frame.hpp>
#include <ipcfs/loan.hpp>
#include <ipcfs/result.hpp>
#include <ipcfs/wait.hpp>

namespace ipcfs {

namespace detail {
// The largest write that the kernel never splits, in bytes: all frames with headers, extensions and
// bodies.
inline constexpr std::size_t kMaxWrite = 1044480;
}  // namespace detail

struct ChannelOptions {
    bool create = false;  // create it with `mode` (less the umask) if missing
    mode_t mode = 0777;
    // Bodies above this many bytes are sent as payloads, not in the frame. A body that does not fit
    // in one write, or is above the channel's max-message, is always a payload.
    std::size_t inline_limit = detail::kMaxWrite;
    // Whether to accept pooled payloads, whose memory the sender can still change. If false, the
    // daemon replaces each by a sealed copy.
    bool accept_pooled = true;
    PoolOptions pools{};
    // Waiting calls return EINTR after a signal handler has run, instead of waiting on.
    bool interruptible = false;
};

struct SendOptions {
    std::uint8_t priority = 128;  // 0 lowest .. 255 critical
    FrameType type = FrameType::kData;
    std::uint64_t message_id = 0;      // chosen by the sender
    std::uint64_t correlation_id = 0;  // matches a response to its request
    // The daemon drops the message if it is not delivered within this time; zero: never.
    std::chrono::nanoseconds ttl{0};
    // A deadline for the receiver to read, ns since 1970 (CLOCK_REALTIME); 0: none. Only a ttl
    // makes the daemon drop the message.
    std::uint64_t deadline = 0;
    // Extensions, made with append_extension(). This and the following two must stay valid until
    // the call returns.
    std::span<const std::byte> extensions{};
    // Extensions as strings; empty: none. On type multicast, `group` names the receivers' groups,
    // separated by commas.
    std::string_view group{};
    std::string_view method{};
    // How long to wait for room; then ETIMEDOUT, or EAGAIN for zero.
    Timeout timeout = kForever;
};

namespace detail {

// Converts the string options to extensions, which `storage` holds. EINVAL if they do not fit.
inline Expected<SendOptions> with_texts(const SendOptions& options,
                                        std::vector<std::byte>& storage) {
    SendOptions whole = options;
    const auto add = [&](ExtensionType type, std::string_view text) {
        return text.empty() ||
               append_extension(storage, type, std::as_bytes(std::span(text.data(), text.size())));
    };
    std::string_view groups = options.group;
    bool fits = add(ExtensionType::kMethod, options.method);
    while (fits && !groups.empty()) {
        const std::size_t comma = std::min(groups.find(','), groups.size());
        fits = add(ExtensionType::kGroup, groups.substr(0, comma));
        groups.remove_prefix(std::min(comma + 1, groups.size()));
    }
    if (!fits) return Error{EINVAL, "send", "group or method is too long"};
    storage.insert(storage.end(), options.extensions.begin(), options.extensions.end());
    whole.extensions = storage;
    whole.group = whole.method = {};
    return whole;
}

inline bool has_texts(const SendOptions& options) noexcept {
    return !options.group.empty() || !options.method.empty();
}

// A header with the fields that the sender chooses.
inline FrameHeader header_for(const SendOptions& options) noexcept {
    FrameHeader header;
    header.type = options.type;
    header.flags = kFrameNoChecksum;  // the message stays on this machine
    header.priority = options.priority;
    header.message_id = options.message_id;
    header.correlation_id = options.correlation_id;
    header.deadline = options.deadline;
    if (options.ttl > std::chrono::nanoseconds::zero()) {
        timespec now{};
        ::clock_gettime(CLOCK_REALTIME, &now);
        header.deadline = static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 +
                          static_cast<std::uint64_t>(now.tv_nsec) +
                          static_cast<std::uint64_t>(options.ttl.count());
        header.flags |= kFrameExpires;
    }
    return header;
}

// The same for a message that is sent through the control socket; `options` without texts.
inline ControlSend control_send(const SendOptions& options) noexcept {
    const FrameHeader header = header_for(options);
    ControlSend send;
    send.message_id = header.message_id;
    send.correlation_id = header.correlation_id;
    send.deadline = header.deadline;
    send.flags = header.flags & kFrameExpires;
    send.priority = header.priority;
    send.type = static_cast<std::uint8_t>(header.type);
    send.extensions_length = static_cast<std::uint32_t>(options.extensions.size());
    return send;
}

}  // namespace detail
}  // namespace ipcfs
