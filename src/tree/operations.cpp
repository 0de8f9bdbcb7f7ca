// What operations that waited answer. Any thread.
#include <tree/operation.hpp>

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
        owner_->finish_read(*this, delivery);
    }
    const bool sent = reply(delivery);
    owner_->settle(delivery, sent);
}

void WriteOperation::complete() noexcept {
    const int error = error_of_ending(enqueued);
    if (error) batch.withdraw();
    batch.clear();
    reply(error, error ? 0 : size_);
}

void GateOperation::complete() noexcept {
    reply(error_of_ending(false), owner_);
}

}  // namespace ipcfs::tree
