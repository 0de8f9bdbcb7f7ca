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

class Guest {
public:
    Guest() = default;
    // `uid` is the sender. The constructor only asks the kernel for the kind of `fd`.
    Guest(Fd fd, std::shared_ptr<Executor> executor, uid_t uid)
        : fd_(std::move(fd)),
          executor_(std::move(executor)),
          uid_(uid),
          kind_(kind_of(fd_.get())) {}
    Guest(Guest&&) noexcept = default;
    Guest& operator=(Guest&& other) noexcept {
        if (this != &other) {
            dispose();
            fd_ = std::move(other.fd_);
            executor_ = std::move(other.executor_);
            uid_ = other.uid_;
            kind_ = other.kind_;
        }
        return *this;
    }
    ~Guest() { dispose(); }

    int get() const noexcept { return fd_.get(); }
    FdKind kind() const noexcept { return kind_; }
    bool is_foreign() const noexcept { return !closes_at_once(kind_); }
    // For callers that know what the descriptor is.
    Fd release() noexcept { return std::move(fd_); }

private:
    void dispose() noexcept {
        if (!fd_) return;
        if (!is_foreign()) {
            fd_.reset();
        } else {
            executor_->add(uid_, [fd = fd_.release()] { ::close(fd); });
        }
    }

    Fd fd_;
    std::shared_ptr<Executor> executor_;
    uid_t uid_ = 0;
    FdKind kind_ = FdKind::kOther;
};

}  // namespace ipcfs::control
