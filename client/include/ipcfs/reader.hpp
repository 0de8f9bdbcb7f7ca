// The receiving half of a Channel: frames from framed/stream (or, for a lease, framed/lease), waiting
// with poll. Internal to the client header. Any thread; one reads at a time, and none while it waits.
#pragma once

#include <algorithm>
#include <array>
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

// The frames of one read, decoded; the views point into `storage`.
struct Frames {
    std::shared_ptr<const std::byte[]> storage;
    std::vector<FrameView> views;
};

// A buffer that is read into again and again, unless what it holds is given away.
class ReadBuffer {
public:
    static constexpr std::size_t kLeast = 8 << 10;
    static constexpr std::size_t kMost = 1 << 20;
    // More in one frame is no daemon's doing.
    static constexpr std::size_t kLargestFrame = 64 << 20;

    // How much the next read should ask for: the kernel's cost of a read grows with what it could
    // give, so this follows the size of what came before.
    std::size_t wanted(bool batch) const noexcept {
        return batch ? std::max(wanted_, kBatch) : wanted_;
    }

    // Room for `size` bytes in all, the first `kept` of them as they are.
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

    // The first `used` bytes to give away: a copy where they are few, else the memory itself, which is
    // used again once they have been let go.
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
        std::atomic<bool> lent{false};  // messages still show it
    };

    std::shared_ptr<Memory> memory_;
    std::size_t wanted_ = kLeast;
};

// Splits the bytes that a read gave into frames. kTruncated in the first: `missing` more bytes are to be
// read. Any other error: not what a daemon gives.
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
        // Only whole frames are given together.
        if (error == FrameError::kTruncated) return FrameError::kBadHeaderLength;
        if (error != FrameError::kNone) return error;
        out.push_back(view);
        rest = rest.subspan(consumed);
    }
    return FrameError::kNone;
}

// What a Reader reads.
struct ReaderFile {
    const char* name = "framed/stream";
    const char* opening = "open framed/stream";
    int mode = O_RDONLY;
    bool leases = false;  // what it gives is not the reader's yet
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

    // Its file, opened at the first use; the reader's, not to be closed.
    Expected<int> fd() {
        const std::scoped_lock hold(mutex_);
        return open();
    }

    // Up to `most` > 0 messages, at least one. EAGAIN or ETIMEDOUT when none came in time; EPIPE when
    // the channel is gone.
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
            // What is there when poll returns may be somebody else's by the time of the read.
            const int ready = poll_one(fd, POLLIN, deadline.left());
            if (ready < 0 && (errno != EINTR || options_.interruptible))
                return last_error(kOperation);
            hung_up = is_gone(ready);
        }
    }

private:
    Expected<int> open() {
        if (fd_) return fd_.get();
        Fd opened(open_at(directory_->fd(), file_.name, file_.mode | O_NONBLOCK));
        if (!opened) return last_error(file_.opening);
        fd_ = OwnFd(std::move(opened));
        return fd_.get();
    }

    // Messages that are there now; none if there is none.
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
            // Nothing is lost for want of a descriptor: it is tried again with the next call. The
            // daemon keeps the payload until the next read.
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
            const int done = again_if_undone([&] { return ::ioctl(fd, kIoctlReadBatch, &wanted); });
            // A daemon that does not know it gives one frame a read.
            if (done != 0 && errno != ENOTTY && errno != ENOSYS) return last_error(kOperation);
            batch_ = most;
        }
        std::size_t have = 0;
        std::size_t want = buffer_.wanted(most > 1);
        Frames frames;
        while (true) {
            std::byte* room = buffer_.room(have + want, have);
            const ssize_t got = again_if_undone([&] { return ::read(fd, room + have, want); });
            if (got < 0 && errno == EINTR) continue;  // it took nothing
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
            // Where the bytes were copied the views follow them.
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
    std::mutex mutex_;  // of all below; held for a read, never for a wait
    OwnFd fd_;
    std::uint32_t batch_ = 1;
    ReadBuffer buffer_;
    // Taken from the channel and not given yet, with what their views point into.
    std::deque<std::pair<FrameView, std::shared_ptr<const std::byte[]>>> waiting_;
    PayloadOpener payloads_;
};

}  // namespace ipcfs::detail
