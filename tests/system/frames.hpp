// Encoding and decoding frames like a client of framed/.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <ipcfs/frame.hpp>

namespace ipcfs::test {

inline std::span<const std::byte> bytes(std::string_view text) {
    return std::as_bytes(std::span(text.data(), text.size()));
}

inline std::string frame(FrameHeader header, std::string_view body,
                         std::span<const std::byte> extensions = {}) {
    std::vector<std::byte> out;
    if (!encode(header, extensions, bytes(body), out)) return {};
    return {reinterpret_cast<const char*>(out.data()), out.size()};
}

inline std::string frame(std::string_view body) {
    return frame(FrameHeader{}, body);
}

struct Received {
    FrameError error = FrameError::kTruncated;
    FrameHeader header;
    std::string extensions;
    std::string body;
    bool whole = false;  // the bytes were this frame and nothing else
};

inline Received parse_frame(const std::string& in) {
    Received got;
    FrameView view;
    std::size_t consumed = 0;
    got.error = decode(bytes(in), view, consumed);
    if (got.error != FrameError::kNone) return got;
    got.header = view.header;
    got.extensions = {reinterpret_cast<const char*>(view.extensions.data()),
                      view.extensions.size()};
    got.body = {reinterpret_cast<const char*>(view.body.data()), view.body.size()};
    got.whole = consumed == in.size();
    return got;
}

}  // namespace ipcfs::test
