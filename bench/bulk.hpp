// Ways to carry large messages, of one size, from one process to another: what payloads are
// compared with. Each end is opened in the process that uses it, and stays there. Messages are
// filled with one byte value each, so that a sum tells whether all of it came.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include <base/fd.hpp>

namespace ipcfs::bench {

// Every byte of `memory` becomes `value`.
void fill(std::span<std::byte> memory, std::byte value);
// Reads every byte; the sum of its 64-bit words. The size is a multiple of 64.
std::uint64_t sum(std::span<const std::byte> memory);
// What sum() of `size` bytes of `value` is.
std::uint64_t sum_of(std::size_t size, std::byte value);

// The value of the message that many after the one of `value`.
inline std::byte nth(std::byte value, unsigned message) {
    return static_cast<std::byte>(std::to_integer<unsigned>(value) + message);
}
// Throws when the message has another value anywhere.
void check(std::span<const std::byte> message, std::byte value);

class BulkEnd {
public:
    virtual ~BulkEnd() = default;
    // Sender: writes `count` messages, `value` in the first, one more in each next. Receiver: reads
    // them, and throws when one is wrong.
    virtual void run(unsigned count, std::byte value) = 0;
};

class BulkLink {
public:
    virtual ~BulkLink() = default;
    virtual std::unique_ptr<BulkEnd> open_sender() = 0;
    virtual std::unique_ptr<BulkEnd> open_receiver() = 0;
};

// Shared memory that the processes forked afterwards share, unmapped at the end. Huge pages are
// asked for with `huge`.
class SharedMemory {
public:
    SharedMemory(std::size_t size, bool huge);
    SharedMemory(const SharedMemory&) = delete;
    SharedMemory& operator=(const SharedMemory&) = delete;
    ~SharedMemory();
    std::span<std::byte> bytes() const { return bytes_; }
    int fd() const { return fd_.get(); }

private:
    Fd fd_;
    std::span<std::byte> bytes_;
};

// `chunks` of shared memory, used in turn; two counters and, when one has to wait, a short spin
// and then a futex. The limit of what a pool can do.
std::unique_ptr<BulkLink> open_ring(std::size_t size, unsigned chunks);
// A Unix stream socket: the message is made in the sender's memory and read from the receiver's.
std::unique_ptr<BulkLink> open_stream_socket(std::size_t size);
// A fresh memfd a message, mapped by both, its descriptor passed over a socket.
std::unique_ptr<BulkLink> open_fresh_memfd(std::size_t size, bool huge);

}  // namespace ipcfs::bench
