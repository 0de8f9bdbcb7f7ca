// What can be said of a channel when it is opened, and of a message when it is sent. Plain values.
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

#include <ipcfs/frame.hpp>
#include <ipcfs/loan.hpp>
#include <ipcfs/result.hpp>
#include <ipcfs/wait.hpp>

namespace ipcfs {

namespace detail {
// What the kernel never splits: header, extensions and body of all frames of one write, bytes.
inline constexpr std::size_t kMaxWrite = 1044480;
}  // namespace detail

struct ChannelOptions {
    bool create = false;  // mkdir it with `mode` (less the umask) unless it is there
    mode_t mode = 0777;
    // Bodies longer than this are sent as payloads, not in the frame; bytes. What does not fit into one
    // write, or is over the channel's max-message, is a payload in any case.
    std::size_t inline_limit = detail::kMaxWrite;
    // Whether to take pooled payloads as they are: in memory that their sender could still change.
    // False: each is replaced by a sealed copy, which the daemon makes.
    bool accept_pooled = true;
    PoolOptions pools{};
    // Waiting calls give EINTR when a signal handler has run, instead of going on.
    bool interruptible = false;
};

struct SendOptions {
    std::uint8_t priority = 128;  // 0 lowest .. 255 critical
    FrameType type = FrameType::kData;
    std::uint64_t message_id = 0;      // the sender's choice
    std::uint64_t correlation_id = 0;  // ties a response to its request
    // Dropped by the daemon rather than delivered later than this from now on; zero: never.
    std::chrono::nanoseconds ttl{0};
    // Or: until when it is worth something, ns since 1970 (CLOCK_REALTIME); 0: for ever. The receiver
    // sees it; only with a ttl is the message dropped.
    std::uint64_t deadline = 0;
    // Made with append_extension(). These three must stay until the call returns.
    std::span<const std::byte> extensions{};
    // Extensions as texts; empty: none. On type multicast `group` names whom it is for, several with commas
    // between them.
    std::string_view group{};
    std::string_view method{};
    // How long to wait for room: ETIMEDOUT after it, EAGAIN at once for zero.
    Timeout timeout = kForever;
};

namespace detail {

// The options with their texts turned into extensions, which `storage` keeps. EINVAL: no room for them.
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

// The header's fields that the sender chooses.
inline FrameHeader header_for(const SendOptions& options) noexcept {
    FrameHeader header;
    header.type = options.type;
    header.flags = kFrameNoChecksum;  // it does not leave this machine
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

}  // namespace detail
}  // namespace ipcfs
