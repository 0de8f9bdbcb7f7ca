// Reads messages one by one from a file of framed/: from stream, which takes each message, or from
// lease, which holds each until a command ends the lease. One thread.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include <command.hpp>
#include <io.hpp>
#include <tree.hpp>

#include <ipcfs/frame.hpp>

namespace ipcfs::client {

class MessageReader {
public:
    // `file` is for example "framed/stream"; `flags` are those of open(2). Fails like open_or_fail.
    MessageReader(const Channel& channel, std::string_view file, int flags);

    int fd() const { return fd_.get(); }

    // Receives the next message, valid until the next call. False at the deadline, after a signal
    // (see `signals`), or with O_NONBLOCK if there is none. Throws kGone if the channel is removed.
    bool receive(const DeferSignals& signals, const Deadline& deadline, FrameView& frame);
    // Like receive() for a file opened with O_NONBLOCK. Returns 0 with a message, EAGAIN without,
    // EPIPE if the channel is gone, or another errno.
    int try_receive(FrameView& frame);

    // Writes `ack`, `nack DELAY`, `extend TIME` or `dead` to framed/lease. Returns 0 or the errno;
    // ESTALE if the lease has ended.
    int command(std::string_view words);

private:
    // Returns 0 or the errno; EINTR if a signal came before any of a message was read.
    int read_frame(FrameView& frame);

    std::string shown_;
    Fd fd_;
    std::vector<std::byte> buffer_;
};

// Says, unless it need not be said, that no message came in time; returns or throws kNothing.
int no_message(const Globals& globals, const Channel& channel,
               const std::optional<std::int64_t>& timeout);
// "nack 500000000ns"
std::string with_time(std::string_view word, std::int64_t nanos);
// The channel's lease time in ns; 30 s if `ctl` cannot be read.
std::int64_t lease_time(const Channel& channel);
// Throws a Failure with advice if the channel has no leases.
void require_leases(const Channel& channel);

}  // namespace ipcfs::client
