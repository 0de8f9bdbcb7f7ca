// The FUSE protocol: a request of the kernel's, what is in it, and its answer. libfuse negotiates the
// connection (FUSE_INIT) and sends invalidations; requests and answers are the kernel's structures
// (<linux/fuse.h>) as they are. How both travel is the transport's: Session and RingQueue.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <linux/fuse.h>
#include <span>
#include <string_view>
#include <sys/types.h>
#include <sys/uio.h>
#include <type_traits>
#include <vector>

#include <access/subject.hpp>
#include <fuse/file_reply.hpp>

struct fuse_conn_info;

namespace ipcfs::fuse {

class Session;
struct RingEntry;

// Must be answered exactly once, by the handler or by the operation it was moved into. Answers return false when the
// requester is gone. One thread at a time.
class Request {
public:
    // `raw` is the whole request, until the handler returns. `entry` is null where it came by /dev/fuse.
    Request(Session& session, const std::byte* raw, RingEntry* entry, bool left) noexcept
        : session_(&session), entry_(entry), raw_(raw), left_(left) {
        std::memcpy(&header_, raw, sizeof header_);
    }
    Request(Request&& other) noexcept;
    Request& operator=(Request&&) = delete;

    Session& session() const noexcept { return *session_; }
    const fuse_in_header& header() const noexcept { return header_; }
    std::uint64_t unique() const noexcept { return header_.unique; }
    // Whether a predecessor left it; it may have done it without answering.
    bool left() const noexcept { return left_; }
    // Who asks. A pid of 0: of another pid namespace.
    access::Subject subject() const noexcept;
    std::vector<gid_t> groups() const;  // supplementary, from /proc

    // Only until the handler returns: the structure behind the header, and what follows `skipped` bytes.
    template <class T>
    T in() const noexcept {
        T value;
        std::memcpy(&value, raw_ + sizeof header_, sizeof value);
        return value;
    }
    const std::byte* behind(std::size_t skipped) const noexcept {
        return raw_ + sizeof header_ + skipped;
    }
    const char* name(std::size_t skipped = 0) const noexcept {
        return reinterpret_cast<const char*>(behind(skipped));
    }

    // Counts its answer in `answers` before it goes out; see Handle.
    void count_in(std::atomic<std::uint32_t>& answers) noexcept { answers_ = &answers; }

    bool fail(int error) noexcept;  // 0: success, without content
    bool reply(std::span<const std::byte> first, std::span<const std::byte> second = {}) noexcept;
    template <class T>
    requires std::is_trivially_copyable_v<T>
    bool reply(const T& answer) noexcept { return reply(std::as_bytes(std::span(&answer, 1))); }
    bool reply_text(std::string_view text) noexcept {
        return reply(std::as_bytes(std::span(text)));
    }
    bool reply_file(const FileBytes& bytes) noexcept;

    // Whether it is still to be answered; and whether it was moved elsewhere to be.
    bool is_open() const noexcept { return state_ == State::kOpen; }
    bool was_moved() const noexcept { return state_ == State::kMoved; }

private:
    friend Session;
    enum class State : std::uint8_t { kOpen, kAnswered, kMoved };
    void begin_answer() noexcept;

    Session* session_;
    RingEntry* entry_;
    const std::byte* raw_;
    std::atomic<std::uint32_t>* answers_ = nullptr;
    fuse_in_header header_;
    State state_ = State::kOpen;
    bool left_;
    bool is_parked_ = false;
};

// Requests counted by opcode. Each thread that serves has a block of its own, so that counting is one uncontended
// addition; whoever asks adds the blocks up.
constexpr std::size_t kOpcodes = 64;  // the kernel uses less than that; others share the last one
using RequestCounts = std::array<std::uint64_t, kOpcodes>;

class alignas(64) OpcodeCounts {
public:
    // One thread.
    void count(std::uint32_t opcode) noexcept {
        auto& cell = cells_[opcode < kOpcodes ? opcode : kOpcodes - 1];
        cell.store(cell.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    }
    // Any thread.
    void add_to(RequestCounts& sum) const noexcept {
        for (std::size_t i = 0; i < kOpcodes; ++i)
            sum[i] += cells_[i].load(std::memory_order_relaxed);
    }

private:
    std::array<std::atomic<std::uint64_t>, kOpcodes> cells_{};
};

// What a file system does: by opcode. A handler answers the request or moves it into an operation that is
// parked. Null: ENOSYS, but for closing a directory.
using Handler = void (*)(Request& request) noexcept;
struct FileSystem {
    std::array<Handler, kOpcodes> handlers{};
    void (*init)(fuse_conn_info* connection) noexcept = nullptr;  // see fuse_lowlevel_ops::init
};

}  // namespace ipcfs::fuse
