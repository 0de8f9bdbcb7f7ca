// The body of a received message, wherever it is kept: in its frame, a file of payload/, a chunk of
// its sender's pool, a producer that fills it, or a region that was handed over. One thread.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include <io.hpp>
#include <tree.hpp>

#include <ipcfs/control.hpp>
#include <ipcfs/frame.hpp>

namespace ipcfs::client {

inline std::string_view as_text(std::span<const std::byte> bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

class MessageBody {
public:
    // Construct it before this process receives the channel's next message, since the payload is
    // kept until then. Throws a Failure if the payload cannot be read; the message is then lost.
    // With `leased`, nothing is given back or claimed, since the message may be redelivered.
    MessageBody(const Channel& channel, const FrameView& frame, bool leased = false);

    std::uint64_t size() const { return size_; }
    // Empty if the body is in the frame.
    std::string_view kind() const { return kind_; }

    // Calls `use` with consecutive pieces of at most a few MiB, so that memory use stays bounded.
    void for_each_piece(const std::function<void(std::string_view)>& use) const;
    void copy_to(int fd, const std::string& shown) const;
    std::string text() const;
    // The body as a file, positioned at its start: its own file, or a copy in memory. Consumes this
    // object.
    Fd to_file() &&;

private:
    using Fetch = std::function<std::string_view(std::uint64_t offset, std::size_t length)>;

    void locate(const FrameView& frame, const PayloadRef& ref, bool leased);
    [[noreturn]] void fail_lost(const std::string& why) const;

    const Channel& channel_;
    std::string_view kind_;
    std::uint64_t size_ = 0;
    Fd file_;      // sealed: payload/<id>
    Fetch fetch_;  // for others; results are valid until the next call
};

}  // namespace ipcfs::client
