// Waiting for room in a channel before a request on the control socket, where the daemon never
// waits. Internal to the client header. Any thread.
#pragma once

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <poll.h>
#include <utility>

#include <ipcfs/channel.hpp>
#include <ipcfs/result.hpp>
#include <ipcfs/wait.hpp>

namespace ipcfs::detail {

// After EAGAIN, waits until a retry is worthwhile. EAGAIN if the deadline allows no waiting;
// ETIMEDOUT after the deadline; EPIPE if the channel is gone.
inline Expected<void> wait_for_room(Channel& channel, const Deadline& deadline,
                                    const char* operation) {
    if (deadline.at_once()) return Error{EAGAIN, operation};
    auto fd = channel.send_fd();
    if (!fd) return std::move(fd).error();
    // poll may report room that is too small for this message, so wait briefly to avoid spinning.
    poll_one(-1, 0, std::min<Timeout>(deadline.left(), std::chrono::microseconds(200)));
    while (!deadline.passed()) {
        const int ready = poll_one(*fd, POLLOUT, deadline.left());
        if (ready < 0 && errno != EINTR) return last_error(operation);
        if (is_gone(ready)) return Error{EPIPE, operation};
        if (ready > 0) return {};
    }
    return Error{ETIMEDOUT, operation};
}

}  // namespace ipcfs::detail
