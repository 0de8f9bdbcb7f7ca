// The receiving half of a Channel: reads frames from framed/stream (framed/lease for a lease) and waits
// with poll. Internal to the client header. Any thread; one reads at a time, and none while it waits.
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <fcntl.h>
#include <memory>
#include <mutex>
#include <span>
#include <sys/ioctl.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include <ipcfs/directory.hpp>
#include <ipcfs/message.hpp>
#include <ipcfs/options.hpp>
#include <ipcfs/payload_opener.hpp>
#include <ipcfs/result.hpp>
#include <ipcfs/wait.hpp>

namespace ipcfs::detail {

// The decoded frames of one read; the views point into `storage`.
struct Frames {
    std::shared_ptr<const std::byte[]> storage;
    std::vector<FrameView> views;
};

// A read buffer that is reused unless messages still refer to it.
class ReadBuffer {
public:
    static constexpr std::size_t kLeast = 8 << 10;
    static constexpr std::size_t kMost = 1 << 20;
    // A larger frame cannot come from the daemon.
    static constexpr std::size_t kLargestFrame = 64 << 20;

    // How much the next read should ask for. The kernel's cost of a read grows with the size asked
    // for, so this follows the size of earlier reads.
    std::size_t wanted(bool batch) const noexcept {
        return batch ? std::max(wanted_, kBatch) : wanted_;
    }

    // A buffer for `size` bytes, of which the first `kept` are preserved.
    std::byte* room(std::size_t size, std::size_t kept) {
        if (memory_ && size <= memory_->capacity && !memory_->lent.load(std::memory_order_acquire))
            return memory_->bytes.get();
        auto fresh = std::make_shared<Memory>();
        fresh->capacity = std::max(size, memory_ ? memory_->capacity : 0);
        fresh->bytes = std::make_unique_for_overwrite<std::byte[]>(fresh->capacity);
        if (kept != 0) std::memcpy(fresh->bytes.get(), memory_->bytes.get(), kept);
        memory_ = std::move(fresh);
        return memory_->bytes.get();
    }
    std::span<const std::byte> first(std::size_t size) const noexcept {
        return {memory_->bytes.get(), size};
    }

    // Passes the first `used` bytes to the caller: a copy if they are few, else the buffer itself,
    // which is reused after the caller has released it.
    std::shared_ptr<const std::byte[]> take(std::size_t used) {
        wanted_ = std::clamp(std::bit_ceil(used), kLeast, kMost);
        if (used > memory_->capacity / 4 && used > kLeast) {
            memory_->lent.store(true, std::memory_order_relaxed);
            return {memory_->bytes.get(), [memory = memory_](const std::byte*) {
                        memory->lent.store(false, std::memory_order_release);
                    }};
        }
        auto copy = std::make_shared_for_overwrite<std::byte[]>(used);
        std::memcpy(copy.get(), memory_->bytes.get(), used);
        return copy;
    }

private:
    static constexpr std::size_t kBatch = 64 << 10;
    struct Memory {
        std::unique_ptr<std::byte[]> bytes;
        std::size_t capacity = 0;
        std::atomic<bool> lent{false};  // messages refer to it
    };

    std::shared_ptr<Memory> memory_;
    std::size_t wanted_ = kLeast;
};

// Splits the bytes of one read into frames. kTruncated for the first frame: `missing` more bytes
// must be read. Other errors: not data of the daemon.
inline FrameError split_frames(std::span<const std::byte> bytes, std::vector<FrameView>& out,
                               std::size_t& missing) {
    out.clear();
    std::span<const std::byte> rest = bytes;
    while (!rest.empty()) {
        FrameView view;
        std::size_t consumed = 0;
        const FrameError error = decode(rest, view, consumed, ReadBuffer::kLargestFrame);
        if (error == FrameError::kTruncated && out.empty() && rest.size() >= sizeof(FrameHeader)) {
            FrameHeader header;
            std::memcpy(&header, rest.data(), sizeof header);
            missing =
                header.header_length + static_cast<std::size_t>(header.body_length) - rest.size();
            return error;
        }
        // Only the first frame of a read may be incomplete.
        if (error == FrameError::kTruncated) return FrameError::kBadHeaderLength;
        if (error != FrameError::kNone) return error;
        out.push_back(view);
        rest = rest.subspan(consumed);
    }
    return FrameError::kNone;
}

// The file that a Reader reads.
struct ReaderFile {
    const char* name = "framed/stream";
    const char* opening = "open framed/stream";
    int mode = O_RDONLY;
    bool leases = false;  // messages are leased
};

class Reader {
public:
    Reader(std::shared_ptr<const Directory> directory, const ChannelOptions& options,
           const ReaderFile& file = {})
        : directory_(std::move(directory)),
          options_(options),
          file_(file),
          payloads_(directory_, options.accept_pooled, file.leases) {}
    Reader(const Reader&) = delete;
    Reader& operator=(const Reader&) = delete;

    // The file, opened on first use. The reader owns it: do not close it.
    Expected<int> fd() {
        const std::scoped_lock hold(mutex_);
        return open();
    }

    // Receives 1 to `most` (> 0) messages. EAGAIN or ETIMEDOUT if none came in time; EPIPE if the
    // channel is gone.
    Expected<std::vector<Message>> receive(std::uint32_t most, Timeout timeout) {
        constexpr const char* kOperation = "receive";
        const Deadline deadline(timeout);
        bool hung_up = false;
        while (true) {
            int fd = -1;
            {
                const std::scoped_lock hold(mutex_);
                auto opened = open();
                if (!opened) return std::move(opened).error();
                fd = *opened;
                auto taken = take(fd, most);
                if (!taken) return std::move(taken).error();
                if (!taken->empty()) return taken;
            }
            if (hung_up) return Error{EPIPE, kOperation, "the channel is gone"};
            if (deadline.passed())
                return Error{deadline.at_once() ? EAGAIN : ETIMEDOUT, kOperation};
            // Another reader may take the message between poll and read.
            const int ready = poll_one(fd, POLLIN, deadline.left());
            if (ready < 0 && (errno != EINTR || options_.interruptible))
                return last_error(kOperation);
            hung_up = is_gone(ready);
        }
    }

private:
    Expected<int> open() {
        if (fd_) return fd_.get();
        Fd opened(retry_if_lost([&] {
            return ::openat(directory_->fd(), file_.name, file_.mode | O_NONBLOCK | O_CLOEXEC);
        }));
        if (!opened) return last_error(file_.opening);
        fd_ = OwnFd(std::move(opened));
        return fd_.get();
    }

    // Takes messages without waiting; empty if there is none.
    Expected<std::vector<Message>> take(int fd, std::uint32_t most) {
        std::vector<Message> out;
        if (waiting_.empty()) {
            auto read = read_frames(fd, std::min(most, kMaxReadBatch));
            if (!read) return std::move(read).error();
            for (const FrameView& view : read->views) waiting_.emplace_back(view, read->storage);
        }
        out.reserve(std::min<std::size_t>(most, waiting_.size()));
        while (!waiting_.empty() && out.size() < most) {
            auto payload = payloads_.open(waiting_.front().first);
            // Keep the message if no descriptor is free: the next call retries. The daemon keeps
            // the payload until the next read.
            if (!payload && !out.empty()) return out;
            if (!payload) return std::move(payload).error();
            out.emplace_back(waiting_.front().first, std::move(waiting_.front().second),
                             std::move(*payload));
            waiting_.pop_front();
        }
        return out;
    }

    Expected<Frames> read_frames(int fd, std::uint32_t most) {
        constexpr const char* kOperation = "receive";
        if (most != batch_) {
            const std::uint32_t wanted = most > 1 ? most : 0;
            const int done = retry_if_lost([&] { return ::ioctl(fd, kIoctlReadBatch, &wanted); });
            // An older daemon lacks this ioctl and returns one frame a read.
            if (done != 0 && errno != ENOTTY && errno != ENOSYS) return last_error(kOperation);
            batch_ = most;
        }
        std::size_t have = 0;
        std::size_t want = buffer_.wanted(most > 1);
        Frames frames;
        while (true) {
            std::byte* room = buffer_.room(have + want, have);
            const ssize_t got = retry_if_canceled([&] { return ::read(fd, room + have, want); });
            if (got < 0 && errno == EINTR) continue;  // nothing was taken
            if (got < 0 && errno == EAGAIN && have == 0) return Frames{};
            if (got < 0) return last_error(kOperation);
            if (got == 0 && have == 0) return Error{EPIPE, kOperation, "the channel is gone"};
            have += static_cast<std::size_t>(got);
            std::size_t missing = 0;
            const FrameError error = split_frames(buffer_.first(have), frames.views, missing);
            if (error == FrameError::kTruncated && got > 0 && missing != 0) {
                want = missing;
                continue;
            }
            if (error != FrameError::kNone) return Error{EPROTO, kOperation, to_string(error)};
            const std::byte* before = buffer_.first(have).data();
            frames.storage = buffer_.take(have);
            // If the bytes were copied, adjust the views.
            for (FrameView& view : frames.views) {
                view.extensions = moved(view.extensions, before, frames.storage.get());
                view.body = moved(view.body, before, frames.storage.get());
            }
            return frames;
        }
    }

    static std::span<const std::byte> moved(std::span<const std::byte> part, const std::byte* from,
                                            const std::byte* to) noexcept {
        return part.empty() ? std::span<const std::byte>()
                            : std::span(to + (part.data() - from), part.size());
    }

    const std::shared_ptr<const Directory> directory_;
    const ChannelOptions options_;
    const ReaderFile file_;
    std::mutex mutex_;  // guards all below; held while reading, never while waiting
    OwnFd fd_;
    std::uint32_t batch_ = 1;
    ReadBuffer buffer_;
    // Frames read but not returned yet, with the storage of their views.
    std::deque<std::pair<FrameView, std::shared_ptr<const std::byte[]>>> waiting_;
    PayloadOpener payloads_;
};

}  // namespace ipcfs::detail
