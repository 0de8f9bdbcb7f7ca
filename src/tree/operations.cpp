// The life of operations that wait: charged, started, finished once. Any thread.
#include <tree/open_file.hpp>
#include <tree/pushing.hpp>

namespace ipcfs::tree {
using queue::Wake;

int ReadOperation::error() const noexcept {
    switch (why) {
        case Wake::kServed:
        case Wake::kEnded:
        case Wake::kRemoved: return 0;
        case Wake::kShutdown: return ENOTCONN;
        default: return cancel_error_.load(std::memory_order_relaxed);
    }
}

void ReadOperation::start() noexcept {
    self_ = shared_from_this();
    auto charge = file_->charge_waiter();
    if (!charge) {
        Delivery refused;
        refused.error = EDQUOT;
        reply(refused);
        auto self = std::move(self_);
        return;
    }
    charge_ = std::move(*charge);
    file_->start_read(*this);
}

void ReadOperation::cancel(int error) noexcept {
    cancel_error_.store(error, std::memory_order_relaxed);
    file_->cancel_read(*this, Wake::kInterrupted);
}

void ReadOperation::finish() noexcept {
    auto self = std::move(self_);
    charge_.reset();
    Delivery delivery;
    file_->finish_read(*this, delivery);
    bool sent = reply(delivery);
    file_->settle(delivery, sent);
}

void WriteOperation::start() noexcept {
    self_ = shared_from_this();
    auto charge = file_->charge_waiter();
    if (!charge) {
        reply(EDQUOT, 0);
        auto self = std::move(self_);
        return;
    }
    charge_ = std::move(*charge);
    file_->start_write(*this);
}

void WriteOperation::cancel(int error) noexcept {
    cancel_error_.store(error, std::memory_order_relaxed);
    file_->cancel_write(*this, Wake::kInterrupted);
}

void WriteOperation::finish() noexcept {
    auto self = std::move(self_);
    charge_.reset();
    int error = result_ >= 0
                    ? result_
                    : error_of(why, cancel_error_.load(std::memory_order_relaxed), enqueued);
    if (error) batch.withdraw();
    batch.clear();
    reply(error, error ? 0 : size_);
}

void GateOperation::start() noexcept {
    self_ = shared_from_this();
    auto charge = file_->charge_waiter();
    if (!charge) {
        reply(EDQUOT, file_);
        auto self = std::move(self_);
        return;
    }
    charge_ = std::move(*charge);
    file_->start_gate(*this);
}

void GateOperation::cancel(int error) noexcept {
    cancel_error_.store(error, std::memory_order_relaxed);
    file_->cancel_gate(*this, Wake::kInterrupted);
}

void GateOperation::finish() noexcept {
    auto self = std::move(self_);
    charge_.reset();
    int error = result_ >= 0 ? result_
                             : error_of(why, cancel_error_.load(std::memory_order_relaxed), false);
    reply(error, file_);
}

}  // namespace ipcfs::tree
