// Messages one by one from a file of framed/: stream, where each is taken, or lease, where each is held
// until it is told what became of it. One thread.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include <io.hpp>
#include <tree.hpp>

#include <ipcfs/frame.hpp>

namespace ipcfs::client {

class MessageReader {
public:
    // `file` as "framed/stream"; flags of open(2). Fails as open_or_fail.
    MessageReader(const Channel& channel, std::string_view file, int flags);

    int fd() const { return fd_.get(); }

    // The next message, valid until the next call. False when there was none until the deadline, when a
    // signal came (as `hold` says) or, opened with O_NONBLOCK, at once. Fails with kGone at the end of
    // the channel.
    bool receive(const Hold& hold, const Deadline& deadline, FrameView& frame);
    // The same for one that was opened with O_NONBLOCK; the errno in place of a failure, 0: one, EAGAIN:
    // none, EPIPE: the channel is gone.
    int try_receive(FrameView& frame);

    // `ack`, `nack DELAY`, `extend TIME` or `dead`, on framed/lease. 0 or the errno: ESTALE when the lease
    // has ended.
    int tell(std::string_view words);

private:
    // One read into the buffer at `have`: what is there now is a whole frame, or not yet, or an errno.
    enum class Step { kFrame, kMore, kNothing };
    Step step(std::size_t& have, FrameView& frame, int& error);

    std::string shown_;
    Fd fd_;
    std::vector<std::byte> buffer_;
};

// "nack 500000000ns"
std::string with_time(std::string_view word, std::int64_t nanos);
// How long a lease of this channel holds, ns; 30 s where `ctl` cannot be read.
std::int64_t lease_time(const Channel& channel);
// Fails with advice unless the channel has leases.
void require_leases(const Channel& channel);

}  // namespace ipcfs::client
