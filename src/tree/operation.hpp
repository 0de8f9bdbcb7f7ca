// Operations on open files that wait. One is started once, completes exactly once, now or later, on any
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

// `Waiter` is what a channel knows of it. `Self` says what starts and cancels it at the file (begin,
// give_up), and replies (complete).
template <class Self, class Waiter>
class Operation : public Waiter, public std::enable_shared_from_this<Self> {
public:
    // Once, after construction.
    void start() noexcept {
        self_ = this->shared_from_this();
        auto charge = file_->charge_waiter();
        if (!charge) return finish_with(EDQUOT);
        charge_ = std::move(*charge);
        static_cast<Self*>(this)->begin(*file_);
    }
    // Ends it with `error` unless it is completing already.
    void cancel(int error) noexcept {
        cancel_error_.store(error, std::memory_order_relaxed);
        static_cast<Self*>(this)->give_up(*file_);
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
    explicit Operation(std::shared_ptr<OpenFile> file)
        : file_(std::static_pointer_cast<WaitingFile>(std::move(file))) {}

    // Who answered kWait.
    const std::shared_ptr<WaitingFile> file_;
    std::optional<int> result_;  // of finish_with
    std::atomic<int> cancel_error_{EINTR};

private:
    std::shared_ptr<Self> self_;
    access::Charge charge_;
};

class ReadOperation : public Operation<ReadOperation, queue::ReadWaiter> {
public:
    ReadOperation(std::shared_ptr<OpenFile> file, const ReadRequest& request)
        : Operation(std::move(file)), request_(request) {}

    const ReadRequest& request() const noexcept { return request_; }
    // What it ends with if it was not served: an errno, or 0 at the end of the file.
    int error() const noexcept;

    // A notify file's answer, in place of a message.
    std::shared_ptr<const std::string> text;

protected:
    // Sends the answer. False: the client is gone, it did not get it.
    virtual bool reply(const Delivery& delivery) noexcept = 0;

private:
    friend Operation;
    void begin(WaitingFile& file) noexcept { file.start_read(*this); }
    void give_up(WaitingFile& file) noexcept { file.cancel_read(*this, queue::Wake::kInterrupted); }
    void complete() noexcept;

    const ReadRequest request_;
};

// A write, or a close that enqueues; `pending` is what the try left in it.
class WriteOperation : public Operation<WriteOperation, queue::WriteWaiter> {
public:
    WriteOperation(std::shared_ptr<OpenFile> file, queue::Batch&& pending, std::size_t size)
        : Operation(std::move(file)), size_(size) {
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
    void complete() noexcept;

    const std::size_t size_;
};

// An open that waits at the gate.
class GateOperation : public Operation<GateOperation, channel::OpenWaiter> {
public:
    explicit GateOperation(std::shared_ptr<OpenFile> file) : Operation(std::move(file)) {}

protected:
    virtual void reply(int error, const std::shared_ptr<OpenFile>& file) noexcept = 0;

private:
    friend Operation;
    void begin(WaitingFile& file) noexcept { file.start_gate(*this); }
    void give_up(WaitingFile& file) noexcept { file.cancel_gate(*this, queue::Wake::kInterrupted); }
    void complete() noexcept;
};

}  // namespace ipcfs::tree
