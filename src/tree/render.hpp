// A message as its reader sees it: its bytes, with its header before them in framed/. Private to
// src/tree; any thread.
#pragma once

#include <tree/open_file.hpp>

namespace ipcfs::tree {

// `envelope` is the message's, or what it was when the message was given out.
FrameHeader header_of(const queue::Envelope& envelope, const queue::Message& message);

inline std::uint64_t shown_size(const queue::Message& message, bool framed) noexcept {
    return framed ? sizeof(FrameHeader) + message.content().size() : message.content_size();
}
// At most `size` bytes from `from` on, which is inside it; with `header` those of the frame.
void show(const queue::MessageRef& message, const FrameHeader* header, std::uint64_t from,
          std::size_t size, Delivery& to);

// Of consecutive pieces, what lies at most `size` bytes behind `from`.
class Cut {
public:
    Cut(std::uint64_t from, std::size_t size) : from_(from), size_(size) {}
    std::span<const std::byte> operator()(std::span<const std::byte> piece) noexcept;

private:
    std::uint64_t from_;
    std::size_t size_;
};

}  // namespace ipcfs::tree
