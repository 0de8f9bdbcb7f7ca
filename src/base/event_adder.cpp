// The asynchronous I/O system calls, made directly, without libaio.
#include <array>
#include <cerrno>
#include <cstdint>
#include <linux/aio_abi.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <base/event_adder.hpp>

namespace ipcfs {
namespace {

constexpr unsigned kMaxInFlight = 64;

}  // namespace

EventAdder::EventAdder() noexcept : empty_(::memfd_create("ipcfs-empty", MFD_CLOEXEC)) {
    aio_context_t context = 0;
    if (empty_ && ::syscall(SYS_io_setup, kMaxInFlight, &context) == 0) context_ = context;
}

EventAdder::~EventAdder() {
    if (context_ != 0) ::syscall(SYS_io_destroy, context_);
}

bool EventAdder::submit(int eventfd) noexcept {
    iocb read{};
    read.aio_lio_opcode = IOCB_CMD_PREAD;
    read.aio_fildes = static_cast<std::uint32_t>(empty_.get());
    read.aio_flags = IOCB_FLAG_RESFD;
    read.aio_resfd = static_cast<std::uint32_t>(eventfd);
    iocb* one = &read;
    return ::syscall(SYS_io_submit, context_, 1L, &one) == 1;
}

// Removes completions, including those of other threads, to make room for new requests.
void EventAdder::reap() noexcept {
    std::array<io_event, kMaxInFlight> done;
    timespec at_once{};
    ::syscall(SYS_io_getevents, context_, 0L, static_cast<long>(done.size()), done.data(),
              &at_once);
}

void EventAdder::add(int eventfd) noexcept {
    if (context_ != 0) {
        while (!submit(eventfd)) {
            if (errno != EAGAIN) break;
            reap();
        }
        reap();
        return;
    }
    pollfd room{eventfd, POLLOUT, 0};
    const std::uint64_t one = 1;
    if (::poll(&room, 1, 0) == 1 && (room.revents & POLLOUT) != 0) {
        [[maybe_unused]] auto added = ::write(eventfd, &one, sizeof one);
    }
}

}  // namespace ipcfs
