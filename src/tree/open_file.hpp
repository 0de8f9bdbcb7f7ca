// An open file as a door sees it. A door first tries. If the answer is kWait, it makes an operation (operation.hpp),
// makes it findable for interrupts, and starts it. Methods may be called from several threads at once.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <poll.h>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <access/account.hpp>
#include <access/subject.hpp>
#include <base/result.hpp>
#include <channel/endpoint.hpp>
#include <ipcfs/frame.hpp>
#include <queue/waiter.hpp>

namespace ipcfs::tree {

class ReadOperation;
class WriteOperation;
class GateOperation;

// How a file is opened.
struct OpenMode {
    bool reads = false;
    bool writes = false;
    bool nonblocking = false;
    bool truncates = false;
};

// What every open file holds. EDQUOT over the user's limit.
inline Result<access::Charge> charge_open(access::Account& account) {
    auto charge = access::Charge::take(account, access::Resource::kOpenFiles, 1);
    if (!charge) return Fault{EDQUOT, "open: the user's limit of open files is reached"};
    return std::move(*charge);
}

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

    std::string_view text() const noexcept {
        return {reinterpret_cast<const char*>(data.data()), data.size()};
    }
};

// Memory that a door may let the client use directly, without the daemon.
struct Backing {
    int file = -1;
    // Reads and writes too; otherwise mappings only, and reads and writes come here.
    bool whole = true;
};

// What a door has to know of a file to answer its open.
struct Traits {
    std::optional<Backing> backing = {};
    // Content with positions, which the client's kernel may cache: `kConstant` for ever.
    enum class Caching : std::uint8_t { kNone, kWhileOpen, kConstant } caching = Caching::kNone;
    // It has no position at all: reads and writes may wait at the same time (type and access decide).
    bool is_positionless = false;
    bool wants_flush = false;  // try_flush is called at each close(2)
};

// The base of files that never wait; what they cannot do they refuse.
class OpenFile {
public:
    virtual ~OpenFile() = default;

    // Asked once, after the open has passed its gate.
    virtual Traits traits() const noexcept { return {}; }
    // The door lets the client use the backing.
    virtual void backed() noexcept {}

    virtual Outcome try_read(const ReadRequest&, Delivery& to) noexcept {
        to.error = EBADF;
        return Outcome::kDone;
    }
    // After the answer of a read: whether the client has it. A fresh message it does not have goes back.
    virtual void settle(Delivery& /*delivery*/, bool /*sent*/) noexcept {}
    // kDone with an errno (0: all was written), or kWait with what is to be written in `pending`.
    virtual Outcome try_write(const WriteRequest&, queue::Batch& /*pending*/, int& error) noexcept {
        error = EBADF;
        return Outcome::kDone;
    }
    // A process closes a descriptor of it. kDone with an errno for that close, or kWait with messages to enqueue in
    // `pending`; then a WriteOperation follows.
    virtual Outcome try_flush(const access::Subject&, bool /*nonblocking*/, queue::Batch&,
                              int& error) noexcept {
        error = 0;
        return Outcome::kDone;
    }
    // Whether the open may proceed. kDone with an errno, or kWait.
    virtual Outcome try_gate(int& error) noexcept {
        error = 0;
        return Outcome::kDone;
    }
    // Makes it at least `size` bytes long. An errno, or 0.
    virtual int allocate(std::uint64_t /*size*/) noexcept { return EOPNOTSUPP; }
    // How many whole frames one read may give (kIoctlReadBatch). An errno, or 0.
    virtual int set_read_batch(std::uint32_t) noexcept { return ENOTTY; }
    // Whether frames may be sent to it by kIoctlSend, which asks for no open mode. An errno, or 0.
    virtual int may_send() const noexcept { return ENOTTY; }

    // POLLIN POLLOUT POLLHUP as they are now; `ticket`, if any, is notified at the next change.
    virtual unsigned poll(std::unique_ptr<channel::PollTicket> /*ticket*/) noexcept {
        return POLLIN | POLLOUT;
    }

    // What a successor has to know of the file when this daemon is killed: a set of Mark bits, which the door asks
    // for and records before each answer to a read or write.
    enum Mark : std::uint32_t {
        kMidway = 1,   // a message has been delivered in part: the rest of it is lost
        kServed = 2,   // it has delivered its only message
        kTouched = 4,  // it has state that a successor cannot restore
    };
    virtual std::uint32_t marks() const noexcept { return 0; }
    // Called in the successor, on the reopened file. 0, or an errno with which it will answer everything.
    virtual int resume(std::uint32_t marks) noexcept { return marks & kTouched ? ESTALE : 0; }
};

// The base of files whose reads, writes or opens may answer kWait. The operations call it; each start_
// is called once and leads to exactly one finish() of the operation.
class WaitingFile : public OpenFile {
public:
    virtual void start_read(ReadOperation&) noexcept {}
    virtual void cancel_read(ReadOperation&, queue::Wake) noexcept {}
    // Makes the answer of a read that has ended.
    virtual void finish_read(ReadOperation&, Delivery&) noexcept {}
    virtual void start_write(WriteOperation&) noexcept {}
    virtual void cancel_write(WriteOperation&, queue::Wake) noexcept {}
    virtual void start_gate(GateOperation&) noexcept {}
    virtual void cancel_gate(GateOperation&, queue::Wake) noexcept {}
    // Charges a waiting operation to whoever opened the file; empty over the limit.
    virtual std::optional<access::Charge> charge_waiter() noexcept { return access::Charge(); }
};

}  // namespace ipcfs::tree
