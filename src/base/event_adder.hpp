// Adding to an eventfd(2) that somebody else owns, without ever waiting: its owner may fill the
// counter and take O_NONBLOCK away at any time, both being the open file's and not ours. The kernel's
// own users of eventfds never wait, and asynchronous I/O (io_submit(2), IOCB_FLAG_RESFD) is one:
// reading nothing from an empty file completes at once and adds one. Any thread.
#pragma once

#include <base/fd.hpp>

namespace ipcfs {

class EventAdder {
public:
    // Where there is no asynchronous I/O, add() looks whether there is room, then writes.
    EventAdder() noexcept;
    ~EventAdder();
    EventAdder(const EventAdder&) = delete;
    EventAdder& operator=(const EventAdder&) = delete;

    // Adds one, if it is an eventfd.
    void add(int eventfd) noexcept;

private:
    bool submit(int eventfd) noexcept;
    void reap() noexcept;

    unsigned long context_ = 0;  // aio_context_t; 0: none
    Fd empty_;
};

}  // namespace ipcfs
