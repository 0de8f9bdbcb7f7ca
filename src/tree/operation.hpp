// Operations that wait, at open files and at directories. One is started once, completes exactly once, now or later, on any
// thread, and can be cancelled at any time. The door makes it as a shared pointer, after the file has
// answered kWait; it keeps itself and the file until it has replied.
#pragma once

#include <atomic>
#include <cerrno>
#include <memory>
#include <optional>
#include <string>

#include <access/account.hpp>
#include <queue/waiter.hpp>
#include <tree/open_file.hpp>

namespace ipcfs::tree {

// An errno for how a write or an open ended that waited; `cancelled` is what an interrupted one ends with.
constexpr int error_of(queue::Wake why, int cancelled, bool is_sync) noexcept {
    using queue::Wake;
    switch (why) {
        case Wake::kServed: return 0;
        case Wake::kRemoved: return EPIPE;
        case Wake::kTimedOut: return is_sync ? ETIMEDOUT : EAGAIN;
        case Wake::kInterrupted: return cancelled;
        case Wake::kShutdown: return ENOTCONN;
        case Wake::kPurged: return is_sync ? ECANCELED : ENOBUFS;
        case Wake::kNoSpace: return ENOSPC;
        case Wake::kDiskFailed:
        case Wake::kEnded: break;  // of readers
    }
    return EIO;
}

// `Waiter` is the channel's view of it, `Owner` has answered kWait. `Self` starts it there (begin), cancels it
// (give_up) and replies (complete).
template <class Self, class Waiter, class Owner = WaitingFile>
class Operation : public Waiter, public std::enable_shared_from_this<Self> {
public:
    // Once, after construction.
    void start() noexcept {
        self_ = this->shared_from_this();
        auto charge = owner_->charge_waiter();
        if (!charge) return finish_with(EDQUOT);
        charge_ = std::move(*charge);
        static_cast<Self*>(this)->begin(*owner_);
    }
    // Ends it with `error` unless it is completing already.
    void cancel(int error) noexcept {
        cancel_error_.store(error, std::memory_order_relaxed);
        static_cast<Self*>(this)->give_up(*owner_);
    }
    void finish() noexcept final {
        auto self = std::move(self_);
        charge_.reset();
        self->complete();
    }
    // Finishes what is in no channel's list, with an errno or 0.
    void finish_with(int error) noexcept {
        result_ = error;
        finish();
    }

protected:
    explicit Operation(std::shared_ptr<Owner> owner) : owner_(std::move(owner)) {}

    // The errno of finish_with(), or of how the waiting ended.
    int error_of_ending(bool is_sync) const noexcept {
        const int by_cancel = cancel_error_.load(std::memory_order_relaxed);
        return result_ ? *result_ : error_of(this->why, by_cancel, is_sync);
    }

    const std::shared_ptr<Owner> owner_;
    std::optional<int> result_;  // of finish_with
    std::atomic<int> cancel_error_{EINTR};

private:
    std::shared_ptr<Self> self_;
    access::Charge charge_;
};

// `file` answered kWait.
inline std::shared_ptr<WaitingFile> as_waiting(std::shared_ptr<OpenFile> file) noexcept {
    return std::static_pointer_cast<WaitingFile>(std::move(file));
}

class ReadOperation : public Operation<ReadOperation, queue::ReadWaiter> {
public:
    ReadOperation(std::shared_ptr<OpenFile> file, const ReadRequest& request)
        : Operation(as_waiting(std::move(file))), request_(request) {}

    const ReadRequest& request() const noexcept { return request_; }
    // What it ends with if it was not served: an errno, or 0 at the end of the file.
    int error() const noexcept {
        using queue::Wake;
        const bool has_ended = why == Wake::kServed || why == Wake::kEnded || why == Wake::kRemoved;
        if (has_ended) return 0;
        return why == Wake::kShutdown ? ENOTCONN : cancel_error_.load(std::memory_order_relaxed);
    }

    // A notify file's answer, in place of a message.
    std::shared_ptr<const std::string> text;

protected:
    // Sends the answer. False: the client is gone, it did not get it.
    virtual bool reply(const Delivery& delivery) noexcept = 0;

private:
    friend Operation;
    void begin(WaitingFile& file) noexcept { file.start_read(*this); }
    void give_up(WaitingFile& file) noexcept { file.cancel_read(*this, queue::Wake::kInterrupted); }
    void complete() noexcept {
        Delivery delivery;
        if (result_) {
            delivery.error = *result_;
        } else {
            owner_->finish_read(*this, delivery);
        }
        const bool sent = reply(delivery);
        owner_->settle(delivery, sent);
    }

    const ReadRequest request_;
};

// A write, or a close that enqueues; `pending` is what the try left in it.
class WriteOperation : public Operation<WriteOperation, queue::WriteWaiter> {
public:
    WriteOperation(std::shared_ptr<OpenFile> file, queue::Batch&& pending, std::size_t size)
        : Operation(as_waiting(std::move(file))), size_(size) {
        batch = std::move(pending);
    }

protected:
    // `error` 0: all `size` bytes were taken.
    virtual void reply(int error, std::size_t size) noexcept = 0;

private:
    friend Operation;
    void begin(WaitingFile& file) noexcept { file.start_write(*this); }
    void give_up(WaitingFile& file) noexcept {
        file.cancel_write(*this, queue::Wake::kInterrupted);
    }
    void complete() noexcept {
        const int error = error_of_ending(enqueued);
        if (error) batch.withdraw();
        batch.clear();
        reply(error, error ? 0 : size_);
    }

    const std::size_t size_;
};

// An open that waits at the gate.
class GateOperation : public Operation<GateOperation, channel::OpenWaiter> {
public:
    explicit GateOperation(std::shared_ptr<OpenFile> file)
        : Operation(as_waiting(std::move(file))) {}

protected:
    virtual void reply(int error, const std::shared_ptr<OpenFile>& file) noexcept = 0;

private:
    friend Operation;
    void begin(WaitingFile& file) noexcept { file.start_gate(*this); }
    void give_up(WaitingFile& file) noexcept { file.cancel_gate(*this, queue::Wake::kInterrupted); }
    void complete() noexcept { reply(error_of_ending(false), owner_); }
};

}  // namespace ipcfs::tree
