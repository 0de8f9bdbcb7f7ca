// Sends a message that does not fit one write(2) through `put`, which joins all that is written
// between open and close into one message. One thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <io.hpp>
#include <tree.hpp>

namespace ipcfs::client {

// The source of a large message: `start`, then the rest of a descriptor, if any.
struct LargeBody {
    std::string_view start;
    int rest = -1;
    std::string shown = {};  // how an error names the descriptor
    // Rewinds the descriptor to send it again; false if that is impossible.
    bool rewind();
};

// A message being written. It is sent only when finish() succeeds; if an exception or a signal ends
// it before, it is dropped.
class LargeWrite {
public:
    // `file` is put or framed/put. With `nonblocking`, neither open nor finish() waits for room.
    LargeWrite(const Channel& channel, std::string_view file, bool nonblocking);
    ~LargeWrite();
    LargeWrite(const LargeWrite&) = delete;
    LargeWrite& operator=(const LargeWrite&) = delete;

    int fd() const { return fd_.get(); }
    std::uint64_t written() const { return written_; }
    // Returns 0, or an errno after which the message cannot be sent; finish() gives the better
    // reason.
    int write(std::string_view bytes);
    // Closes the file, which enqueues the message. Returns 0 or the errno.
    int finish();

private:
    void discard();

    Fd fd_;
    const bool framed_;
    std::uint64_t written_ = 0;
    int error_ = 0;
};

// Writes `body`, with progress on a terminal; stops at an error. Throws a Failure if the source
// cannot be read.
int write_body(LargeWrite& out, const LargeBody& body, std::int64_t started);

// Copies the rest of a descriptor to memory, since a header must state the length first.
Fd hold_rest(int source, const std::string& shown);

}  // namespace ipcfs::client
