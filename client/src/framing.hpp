// How messages are sent: the file they go to, and their frame, if any. One thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <ipcfs/frame.hpp>

namespace ipcfs::client {

struct FramingOptions {
    std::string priority;
    std::string type;  // a frame type, or a media type if it has a slash
    std::string method;
    std::string group;
    std::optional<std::int64_t> ttl;
};

struct Framing {
    // Throws a usage Failure for invalid options.
    explicit Framing(const FramingOptions& options);

    std::string frame(std::string_view message) const;
    // The header of a message sent now, before its length is known.
    FrameHeader header_now() const;

    std::string file = "queue";
    bool framed = false;
    FrameHeader header;
    std::vector<std::byte> extensions;
    std::optional<std::int64_t> ttl;
};

}  // namespace ipcfs::client
