// An open file as a door sees it, and the operations on it that may wait. A door first tries; where
// that answers kWait it makes an operation object, makes it findable for its interrupts, and starts
// it. The operation completes exactly once, now or later, on any thread, and can be cancelled.
// Every method of OpenFile may be called from any thread, also for one file at once.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <access/subject.hpp>
#include <channel/channel.hpp>
#include <ipcfs/frame.hpp>
#include <queue/waiter.hpp>

namespace ipcfs::tree {

class OpenFile;

// How a file is opened.
struct OpenMode {
    bool reads = false;
    bool writes = false;
    bool nonblocking = false;
    bool truncates = false;
};

enum class Outcome : std::uint8_t { kDone, kWait };

struct ReadRequest {
    std::size_t size = 0;
    std::uint64_t offset = 0;
    bool nonblocking = false;
};

// Bytes that lie in a file of the daemon's own: a door sends them by the shortest way it has.
struct FilePart {
    int file = -1;
    std::uint64_t offset = 0;
    std::size_t length = 0;
};

// What a read gives the client. Its parts stay valid as long as it lives; it does not move, since a
// part may point into it.
struct Delivery {
    Delivery() = default;
    Delivery(const Delivery&) = delete;
    Delivery& operator=(const Delivery&) = delete;

    int error = 0;  // an errno; 0: the parts
    std::array<std::span<const std::byte>, 2>
        parts{};    // one after the other; all empty: end of file
    FilePart file;  // in place of the parts
    // What the parts point into:
    queue::MessageRef message;
    std::vector<queue::MessageRef> more;  // of a batch, after `message`
    payload::PayloadPtr payload;
    std::shared_ptr<const void> region;
    FrameHeader header;
    std::shared_ptr<const std::string> text;
    bool fresh = false;       // the message is being delivered for the first time
    std::size_t skipped = 0;  // of a stream: bytes of `message` that were delivered before

    std::size_t size() const noexcept { return parts[0].size() + parts[1].size() + file.length; }
};

struct WriteRequest {
    std::span<const std::byte> data;
    access::Subject subject;
    bool nonblocking = false;
    std::uint64_t offset = 0;
    std::uint64_t request = 0;  // as queue::Batch::request, which the door sets too
    bool appends = false;       // at the end, wherever `offset` says
};

// A read that waits. Made by the door as a shared pointer.
class ReadOperation : public queue::ReadWaiter, public std::enable_shared_from_this<ReadOperation> {
public:
    ReadOperation(std::shared_ptr<OpenFile> file, const ReadRequest& request)
        : request_(request), file_(std::move(file)) {}

    const ReadRequest& request() const noexcept { return request_; }
    // Once, after construction. The operation keeps itself alive until it has replied.
    void start() noexcept;
    // Ends it with `error` unless it is completing already. Any thread, any time.
    void cancel(int error) noexcept;
    // What it ends with if it was not served: an errno, or 0 at the end of the file.
    int error() const noexcept;

    void finish() noexcept final;

    // A notify file's answer, in place of a message.
    std::shared_ptr<const std::string> text;

protected:
    // Sends the answer. False: the client is gone, it did not get it.
    virtual bool reply(const Delivery& delivery) noexcept = 0;

private:
    ReadRequest request_;
    std::shared_ptr<OpenFile> file_;
    std::shared_ptr<ReadOperation> self_;
    std::atomic<int> cancel_error_{EINTR};
    access::Charge charge_;
};

// A write that waits; `pending` is what try_write left in it.
class WriteOperation : public queue::WriteWaiter,
                       public std::enable_shared_from_this<WriteOperation> {
public:
    WriteOperation(std::shared_ptr<OpenFile> file, queue::Batch&& pending, std::size_t size)
        : size_(size), file_(std::move(file)) {
        batch = std::move(pending);
    }
    void start() noexcept;
    void cancel(int error) noexcept;
    void finish() noexcept final;
    // Finishes what never was a channel's, with an errno or 0.
    void finish_with(int error) noexcept {
        result_ = error;
        finish();
    }

protected:
    // `error` 0: all `size` bytes were taken.
    virtual void reply(int error, std::size_t size) noexcept = 0;

private:
    std::size_t size_;
    int result_ = -1;
    std::shared_ptr<OpenFile> file_;
    std::shared_ptr<WriteOperation> self_;
    std::atomic<int> cancel_error_{EINTR};
    access::Charge charge_;
};

// An open that waits at the gate.
class GateOperation : public channel::OpenWaiter,
                      public std::enable_shared_from_this<GateOperation> {
public:
    explicit GateOperation(std::shared_ptr<OpenFile> file) : file_(std::move(file)) {}
    void start() noexcept;
    void cancel(int error) noexcept;
    void finish() noexcept final;
    void finish_with(int error) noexcept {  // as WriteOperation's
        result_ = error;
        finish();
    }

protected:
    virtual void reply(int error, const std::shared_ptr<OpenFile>& file) noexcept = 0;

private:
    int result_ = -1;
    std::shared_ptr<OpenFile> file_;
    std::shared_ptr<GateOperation> self_;
    std::atomic<int> cancel_error_{EINTR};
    access::Charge charge_;
};

// Memory that a door may let the client use directly, past the daemon.
struct Backing {
    int file = -1;
    // Reads and writes too; otherwise mappings only, and reads and writes come here.
    bool whole = true;
};

class OpenFile {
public:
    virtual ~OpenFile() = default;

    // Asked once, at open. A door that cannot do it goes on without. `backed()` says that it did.
    virtual std::optional<Backing> backing() noexcept { return std::nullopt; }
    virtual void backed() noexcept {}
    // What it shows has a position and may be kept by the client's kernel: `constant` for ever.
    enum class Caching : std::uint8_t { kNone, kWhileOpen, kConstant };
    virtual Caching caching() const noexcept { return Caching::kNone; }
    // close(2) is to be told; see try_flush.
    virtual bool wants_flush() const noexcept { return false; }
    // A descriptor of it is being closed by a process. kDone with an errno for that close, or kWait with
    // what is to be enqueued in `pending`: then a WriteOperation follows.
    virtual Outcome try_flush(const access::Subject&, bool /*nonblocking*/, queue::Batch&,
                              int& error) noexcept {
        error = 0;
        return Outcome::kDone;
    }
    // How many whole frames one read may give (kIoctlReadBatch). An errno, or 0.
    virtual int set_read_batch(std::uint32_t) noexcept { return ENOTTY; }
    // Whether frames may be sent to it by kIoctlSend, which asks for no open mode. An errno, or 0.
    virtual int may_send() const noexcept { return ENOTTY; }

    // What a successor has to know of it when this daemon is killed (the door keeps it; asked before
    // each answer to a read or write). Of any number of bits.
    enum Mark : std::uint32_t {
        kMidway = 1,   // a message has been delivered in part: the rest of it is lost
        kServed = 2,   // it has had the one message that it gives
        kTouched = 4,  // it holds what a successor cannot know
    };
    virtual std::uint32_t marks() const noexcept { return 0; }
    // In the successor, of the file opened in its place. An errno that is all it can answer, or 0.
    virtual int resume(std::uint32_t marks) noexcept { return marks & kTouched ? ESTALE : 0; }

    // No position at all: reads and writes may wait at the same time (type and access decide).
    virtual bool positionless() const noexcept { return false; }

    virtual Outcome try_read(const ReadRequest& request, Delivery& to) noexcept = 0;
    // After the answer of a read: whether the client has it. A fresh message it does not have goes back.
    virtual void settle(Delivery& /*delivery*/, bool /*sent*/) noexcept {}
    // kDone with an errno (0: all was written), or kWait with what is to be written in `pending`.
    virtual Outcome try_write(const WriteRequest& request, queue::Batch& pending,
                              int& error) noexcept = 0;
    // Makes it at least `size` bytes long. An errno, or 0.
    virtual int allocate(std::uint64_t /*size*/) noexcept { return EOPNOTSUPP; }
    // Whether the open may proceed. kDone with an errno, or kWait.
    virtual Outcome try_gate(int& error) noexcept {
        error = 0;
        return Outcome::kDone;
    }

    // POLLIN POLLOUT POLLHUP as they are now; `ticket`, if any, is notified at the next change.
    virtual unsigned poll(std::unique_ptr<channel::PollTicket> ticket) noexcept = 0;

    // For the operations above.
    virtual void start_read(ReadOperation& operation) noexcept = 0;
    virtual void cancel_read(ReadOperation& operation, queue::Wake why) noexcept = 0;
    virtual void finish_read(ReadOperation& operation, Delivery& to) noexcept = 0;
    virtual void start_write(WriteOperation&) noexcept {}
    virtual void cancel_write(WriteOperation&, queue::Wake) noexcept {}
    virtual void start_gate(GateOperation&) noexcept {}
    virtual void cancel_gate(GateOperation&, queue::Wake) noexcept {}
    // Charges a waiting operation to whoever opened the file; empty over the limit.
    virtual std::optional<access::Charge> charge_waiter() noexcept { return access::Charge(); }
};

}  // namespace ipcfs::tree
