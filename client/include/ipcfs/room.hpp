// Waiting for room in a channel after EAGAIN. Internal to the client header. One thread an object.
#pragma once

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <poll.h>

#include <ipcfs/result.hpp>
#include <ipcfs/wait.hpp>

namespace ipcfs::detail {

class RoomWait {
public:
    // Waits until a retry is worthwhile. Backs off when poll reports room but the retry fails: a
    // batch may need more room than poll guarantees, or other senders are faster. EAGAIN if the
    // deadline allows no waiting; ETIMEDOUT after the deadline; EPIPE if the channel is gone.
    Expected<void> wait(int fd, const Deadline& deadline, const char* operation,
                        bool interruptible = false) {
        if (deadline.at_once()) return Error{EAGAIN, operation};
        if (delay_ > Timeout::zero()) poll_one(-1, 0, std::min(deadline.left(), delay_));
        delay_ = std::min<Timeout>(delay_ * 2 + std::chrono::microseconds(50),
                                   std::chrono::milliseconds(20));
        while (true) {
            if (deadline.passed()) return Error{ETIMEDOUT, operation};
            const auto before = Deadline::Clock::now();
            const int ready = poll_one(fd, POLLOUT, deadline.left());
            if (ready < 0 && errno == EINTR && !interruptible) continue;
            if (ready < 0) return last_error(operation);
            if (is_gone(ready)) return Error{EPIPE, operation};
            if (ready == 0) continue;
            // It waited, so this is new room.
            if (Deadline::Clock::now() - before > std::chrono::milliseconds(1)) delay_ = {};
            return {};
        }
    }

private:
    Timeout delay_{0};
};

}  // namespace ipcfs::detail
