// A descriptor that a client sent. Its destructor closes it on an executor's threads if close(2) may
// block. Move-only; one thread at a time.
#pragma once

#include <memory>
#include <sys/types.h>
#include <utility>

#include <control/socket.hpp>

#include <base/executor.hpp>
#include <base/fd.hpp>

namespace ipcfs::control {

class ReceivedFd {
public:
    // `uid` is the sender. The constructor only asks the kernel for the kind of `fd`.
    ReceivedFd(Fd fd, std::shared_ptr<Executor> executor, uid_t uid)
        : fd_(std::move(fd)),
          executor_(std::move(executor)),
          uid_(uid),
          kind_(kind_of(fd_.get())) {}
    ReceivedFd(ReceivedFd&&) noexcept = default;
    ~ReceivedFd() {
        if (!fd_ || !is_foreign()) return;
        executor_->add(uid_, [fd = fd_.release()] { ::close(fd); });
    }

    int get() const noexcept { return fd_.get(); }
    FdKind kind() const noexcept { return kind_; }
    bool is_foreign() const noexcept { return !closes_at_once(kind_); }
    // For callers that know what the descriptor is.
    Fd release() noexcept { return std::move(fd_); }

private:
    Fd fd_;
    std::shared_ptr<Executor> executor_;
    uid_t uid_;
    FdKind kind_;
};

}  // namespace ipcfs::control
