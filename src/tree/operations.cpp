// What operations that waited answer. Any thread.
#include <tree/operation.hpp>
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

void ReadOperation::complete() noexcept {
    Delivery delivery;
    if (result_) {
        delivery.error = *result_;
    } else {
        file_->finish_read(*this, delivery);
    }
    const bool sent = reply(delivery);
    file_->settle(delivery, sent);
}

void WriteOperation::complete() noexcept {
    const int error =
        result_ ? *result_ : error_of(why, cancel_error_.load(std::memory_order_relaxed), enqueued);
    if (error) batch.withdraw();
    batch.clear();
    reply(error, error ? 0 : size_);
}

void GateOperation::complete() noexcept {
    reply(result_ ? *result_ : error_of(why, cancel_error_.load(std::memory_order_relaxed), false),
          file_);
}

}  // namespace ipcfs::tree
