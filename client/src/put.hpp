// A message that does not fit one write(2): through `put`, which makes one message of everything that
// is written between open and close. One thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <io.hpp>
#include <tree.hpp>

namespace ipcfs::client {

// What a large message is made of: `start`, then the rest of a descriptor, if there is one.
struct LargeBody {
    std::string_view start;
    int rest = -1;
    std::string shown = {};  // how an error names the descriptor
    // Rewinds it, to be sent once more. False: it cannot be.
    bool rewind();
};

// One message being written. Until finish() has been called and succeeded nothing is sent: whatever
// ends this before, an exception or a signal, drops it.
class LargeWrite {
public:
    // `file`: put or framed/put. With `nonblocking` neither open nor finish() waits for room.
    LargeWrite(const Channel& channel, std::string_view file, bool nonblocking);
    ~LargeWrite();
    LargeWrite(const LargeWrite&) = delete;
    LargeWrite& operator=(const LargeWrite&) = delete;

    int fd() const { return fd_.get(); }
    std::uint64_t written() const { return written_; }
    // 0, or the errno for which nothing can come of it; finish() tells better.
    int write(std::string_view bytes);
    // Closes it: the message is queued, or the errno says why not.
    int finish();

private:
    void drop();

    Fd fd_;
    const bool framed_;
    std::uint64_t written_ = 0;
    int error_ = 0;
};

// `body` written into it, with progress on a terminal; stops at an error. Fails if the source does.
int write_body(LargeWrite& out, const LargeBody& body, std::int64_t started);

// The rest of a descriptor in memory, since a header that comes first has to say how long it is.
Fd hold_rest(int source, const std::string& shown);

}  // namespace ipcfs::client
