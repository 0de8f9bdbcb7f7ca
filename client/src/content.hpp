// The body of a received message, wherever it is: in its frame, in a file of payload/, in a chunk of
// its sender's pool, with a producer that fills it, or in a region that was handed over. One thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include <io.hpp>
#include <tree.hpp>

#include <ipcfs/control.hpp>
#include <ipcfs/frame.hpp>

namespace ipcfs::client {

class Content {
public:
    // To be made before the next message of the channel is received by this process: until then its
    // payload is kept. Fails when it cannot be reached: the message is lost then, and it says so. With
    // `leased` the message is not this process' yet, and nothing of it is given back or claimed.
    Content(const Channel& channel, const FrameView& frame, bool leased = false);

    std::uint64_t size() const { return size_; }
    // Nothing where the body is in the frame.
    std::string_view kind() const { return kind_; }

    // `use` is given it piece by piece, in order, a few MiB at most: memory stays bounded however
    // large it is.
    void for_each_piece(const std::function<void(std::string_view)>& use) const;
    void copy_to(int fd, const std::string& shown) const;
    // All of it.
    std::string text() const;
    // As a file at its start: what it is in already, or memory. The content is not to be used any more.
    Fd to_file() &&;

private:
    using Fetch = std::function<std::string_view(std::uint64_t offset, std::size_t length)>;

    void reach(const FrameView& frame, const PayloadRef& ref, bool leased);
    [[noreturn]] void lost(const std::string& why) const;

    const Channel& channel_;
    std::string_view kind_;
    std::uint64_t size_ = 0;
    Fd file_;      // sealed: payload/<id>
    Fetch fetch_;  // else; what it gives is valid until the next call
};

}  // namespace ipcfs::client
