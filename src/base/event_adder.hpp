// Adds to a client's eventfd(2) without ever blocking. The client may fill the counter and clear
// O_NONBLOCK at any time, since both belong to the shared open file, so write(2) could block. The
// kernel's own notifications never block, and asynchronous I/O sends one (io_submit(2),
// IOCB_FLAG_RESFD): a read from an empty file completes at once and adds one. Any thread.
#pragma once

#include <base/fd.hpp>

namespace ipcfs {

class EventAdder {
public:
    // If the kernel has no asynchronous I/O, add() polls for room and then writes, which may block
    // if the owner fills the counter in between.
    EventAdder() noexcept;
    ~EventAdder();
    EventAdder(const EventAdder&) = delete;
    EventAdder& operator=(const EventAdder&) = delete;

    // Adds one; does nothing if `eventfd` is not an eventfd.
    void add(int eventfd) noexcept;

private:
    bool submit(int eventfd) noexcept;
    void reap() noexcept;

    unsigned long context_ = 0;  // aio_context_t; 0: none
    Fd empty_;
};

}  // namespace ipcfs
