// The sending half of a Channel: writes frames to framed/queue, passes memory to the control
// socket, and waits for room with poll. Internal to the client header. Any thread; the kernel makes
// writes atomic.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fcntl.h>
#include <memory>
#include <span>
#include <string>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include <ipcfs/connection.hpp>
#include <ipcfs/directory.hpp>
#include <ipcfs/loan.hpp>
#include <ipcfs/options.hpp>
#include <ipcfs/result.hpp>
#include <ipcfs/room.hpp>
#include <ipcfs/wait.hpp>

namespace ipcfs::detail {

class Writer {
public:
    Writer(std::shared_ptr<const Directory> directory, const ChannelOptions& options)
        : directory_(std::move(directory)), options_(options), pools_(options.pools) {}
    Writer(const Writer&) = delete;
    Writer& operator=(const Writer&) = delete;
    ~Writer() {
        if (const int fd = fd_.load(); fd >= 0) ::close(fd);
    }

    // The open framed/queue, opened on first use.
    Expected<int> fd() {
        if (const int fd = fd_.load(std::memory_order_acquire); fd >= 0) return fd;
        Fd opened(retry_if_lost([&] {
            return ::openat(directory_->fd(), "framed/queue", O_WRONLY | O_NONBLOCK | O_CLOEXEC);
        }));
        if (!opened) return last_error("open framed/queue for writing");
        int none = -1;
        if (fd_.compare_exchange_strong(none, opened.get())) return opened.release();
        return none;
    }
    // Passes the descriptor to a forked child, which uses or closes it: a descriptor for writing
    // has no state.
    int release() noexcept { return fd_.exchange(-1); }
    void adopt(int fd) noexcept { fd_.store(fd); }

    Expected<void> send(std::span<const std::byte> body, const SendOptions& options) {
        if (has_texts(options)) {
            std::vector<std::byte> storage;
            auto whole = with_texts(options, storage);
            return whole ? send(body, *whole) : std::move(whole).error();
        }
        if (auto good = check(options); !good) return good;
        FrameHeader header = header_for(options);
        const std::size_t length = sizeof header + options.extensions.size() + body.size();
        if (body.size() <= options_.inline_limit && length <= kMaxWrite) {
            encode_header(header, options.extensions, body);
            auto sent = write_frame(header, options.extensions, body, options.timeout);
            // Above max-message; as a payload, max-payload applies.
            if (sent || sent.error().code != EMSGSIZE || body.empty()) return sent;
        }
        auto loan = copy_to_loan(body, options);
        if (!loan) return std::move(loan).error();
        return send(*loan, options);
    }

    // Consumes the loan only on success.
    Expected<void> send(Loan& loan, const SendOptions& options) {
        if (has_texts(options)) {
            std::vector<std::byte> storage;
            auto whole = with_texts(options, storage);
            return whole ? send(loan, *whole) : std::move(whole).error();
        }
        if (loan && loan.size() == 0) {
            auto sent = send(std::span<const std::byte>(), options);
            if (sent) loan = Loan();
            return sent;
        }
        if (auto good = check(options); !good) return good;
        const Deadline deadline(options.timeout);
        if (SendPool* pool = Loan::Access::pool(loan)) {
            if (pool->inherited()) return Error{EINVAL, "send", "not a loan of this process"};
            auto sent = send_chunk(*pool, Loan::Access::reference(loan), options, deadline);
            if (sent) {
                Loan::Access::sent(loan);
                return sent;
            }
            if (!is_refusal(sent.error().code)) return sent;
            // The channel no longer accepts pools, or the daemon does not know this one.
            pools_.refused(*pool, sent.error().code != EPERM);
            auto copy = fill_sealed(loan.bytes());
            if (!copy) return std::move(copy).error();
            auto copied = send_sealed(*copy, options, deadline);
            if (copied) loan = Loan();
            return copied;
        }
        auto sent = send_sealed(loan, options, deadline);
        if (sent) Loan::Access::sent(loan);
        return sent;
    }

    Expected<Loan> loan(std::size_t size, const LoanOptions& options) {
        SendPool* pool = nullptr;
        if (options.pooled && size != 0)
            pool = pools_.find(
                size, [this] { return std::pair(directory_->mount(), directory_->relative()); });
        if (pool == nullptr) return Loan::Access::sealed(size);
        auto taken = pool->take();
        if (taken.generation == 0) {
            const Deadline deadline(options.sealed_when_busy ? Timeout::zero() : options.timeout);
            taken = pool->take(deadline);
            if (taken.generation == 0) {
                if (options.sealed_when_busy) return Loan::Access::sealed(size);
                return Error{deadline.at_once() ? EAGAIN : ETIMEDOUT, "loan",
                             "all chunks of the pool are lent"};
            }
        }
        return Loan::Access::pooled(pool->shared_from_this(), taken, size);
    }

    // Writes whole frames unchanged; all or none are queued.
    Expected<void> write(std::span<const std::byte> frames, Timeout timeout) {
        const iovec part{const_cast<std::byte*>(frames.data()), frames.size()};
        return write_parts(std::span(&part, 1), frames.size(), Deadline(timeout));
    }

    const Directory& directory() const noexcept { return *directory_; }

private:
    // A write of two pieces may touch up to three more pages than its body has.
    static constexpr std::size_t kMaxPieces = kMaxWrite - 3 * kPage;
    static constexpr std::size_t kSmall = 4096;

    // Refuses what the daemon would refuse in any case.
    static Expected<void> check(const SendOptions& options) {
        const FrameType type = options.type;
        if (type < FrameType::kControl || type > FrameType::kError ||
            type == FrameType::kCapability || type == FrameType::kHandoff)
            return Error{EINVAL, "send", "messages of this type cannot be sent"};
        if (options.deadline > INT64_MAX) return Error{EINVAL, "send", "deadline"};
        if (!valid_extensions(options.extensions))
            return Error{EINVAL, "send", "malformed extensions"};
        return {};
    }

    static bool is_refusal(int code) noexcept {
        return code == EPERM || code == EINVAL || code == ENOENT || code == ESTALE;
    }

    Expected<void> write_frame(const FrameHeader& header, std::span<const std::byte> extensions,
                               std::span<const std::byte> body, Timeout timeout) {
        const std::size_t length = header.header_length + body.size();
        std::array<std::byte, kMaxFrameHeader + kSmall> front;
        std::memcpy(front.data(), &header, sizeof header);
        if (!extensions.empty())
            std::memcpy(front.data() + sizeof header, extensions.data(), extensions.size());
        const bool small = body.size() <= kSmall;
        if (small && !body.empty())
            std::memcpy(front.data() + header.header_length, body.data(), body.size());
        const Deadline deadline(timeout);
        if (small) return write_whole({front.data(), length}, deadline);
        if (length <= kMaxPieces) {
            const std::array<iovec, 2> parts{
                iovec{front.data(), header.header_length},
                iovec{const_cast<std::byte*>(body.data()), body.size()}};
            return write_parts(parts, length, deadline);
        }
        // Two pieces could span more pages than the kernel accepts in one write.
        const auto joined = std::make_unique_for_overwrite<std::byte[]>(length);
        std::memcpy(joined.get(), front.data(), header.header_length);
        std::memcpy(joined.get() + header.header_length, body.data(), body.size());
        return write_whole({joined.get(), length}, deadline);
    }

    Expected<void> write_whole(std::span<std::byte> frame, const Deadline& deadline) {
        const iovec part{frame.data(), frame.size()};
        return write_parts(std::span(&part, 1), frame.size(), deadline);
    }

    Expected<void> write_parts(std::span<const iovec> parts, std::size_t length,
                               const Deadline& deadline) {
        constexpr const char* kOperation = "send";
        if (length > kMaxWrite) return Error{EMSGSIZE, kOperation};
        auto opened = fd();
        if (!opened) return std::move(opened).error();
        RoomWait room;
        while (true) {
            const ssize_t written =
                retry_if_canceled([&] { return write_once(*opened, parts, length); });
            if (written == static_cast<ssize_t>(length)) return {};
            if (written >= 0) return Error{EPROTO, kOperation, "only a part was written"};
            if (errno == EINTR && !options_.interruptible) continue;
            if (errno != EAGAIN) return last_error(kOperation);
            if (!deadline.at_once() && is_sync()) return write_sync(parts, deadline);
            if (auto waited = wait_for_room(room, *opened, deadline); !waited) return waited;
        }
    }

    // Uses an ioctl if the frames fit: the kernel serializes write(2) to a file, so senders to one
    // durable channel would wait for one flush after the other.
    ssize_t write_once(int fd, std::span<const iovec> parts, std::size_t length) {
        if (length <= kMaxIoctlSend && takes_ioctl_.load(std::memory_order_relaxed)) {
            std::array<std::byte, kMaxIoctlSend> joined;
            const void* frames = parts.front().iov_base;
            if (parts.size() > 1) {
                std::byte* end = joined.data();
                for (const iovec& part : parts)
                    end = std::copy_n(static_cast<const std::byte*>(part.iov_base), part.iov_len,
                                      end);
                frames = joined.data();
            }
            if (::ioctl(fd, ioctl_send(length), frames) == 0) return static_cast<ssize_t>(length);
            if (errno != ENOTTY && errno != ENOSYS) return -1;
            takes_ioctl_.store(false, std::memory_order_relaxed);  // an older daemon
        }
        return ::writev(fd, parts.data(), static_cast<int>(parts.size()));
    }

    bool is_sync() {
        if (!type_known_) {
            sync_ = directory_->setting("type") == "sync";
            type_known_ = true;
        }
        return sync_;
    }

    // On type sync, a writer waits for its turn in open, and for a reader in write.
    Expected<void> write_sync(std::span<const iovec> parts, const Deadline& deadline) {
        constexpr const char* kOperation = "send";
        while (true) {
            const Fd file(retry_if_canceled(
                [&] { return ::openat(directory_->fd(), "framed/queue", O_WRONLY | O_CLOEXEC); }));
            if (!file && (errno != EINTR || options_.interruptible)) return last_error(kOperation);
            if (!file) continue;
            if (::writev(file.get(), parts.data(), static_cast<int>(parts.size())) >= 0) return {};
            const bool again = (errno == EINTR && !options_.interruptible) || errno == ETIMEDOUT;
            if (!again || (errno == ETIMEDOUT && deadline.passed())) return last_error(kOperation);
        }
    }

    Expected<void> wait_for_room(RoomWait& room, int fd, const Deadline& deadline) const {
        return room.wait(fd, deadline, "send", options_.interruptible);
    }

    Expected<void> send_chunk(const SendPool& pool, const PayloadRef& ref,
                              const SendOptions& options, const Deadline& deadline) {
        constexpr std::size_t kExtension = padded_extension(sizeof ref);
        if (!pool.usable()) return Error{ESTALE, "send"};
        FrameHeader header = header_for(options);
        if (options.extensions.size() > kMaxFrameHeader - sizeof header - kExtension)
            return Error{EMSGSIZE, "send", "too many extensions"};
        std::array<std::byte, kMaxFrameHeader> frame;
        std::byte* at = frame.data() + sizeof header;
        const auto type = static_cast<std::uint16_t>(ExtensionType::kPayload);
        const std::uint16_t size = sizeof ref;
        std::memset(at, 0, kExtension);
        std::memcpy(at, &type, sizeof type);
        std::memcpy(at + 2, &size, sizeof size);
        std::memcpy(at + 4, &ref, sizeof ref);
        if (!options.extensions.empty())
            std::memcpy(at + kExtension, options.extensions.data(), options.extensions.size());
        header.header_length =
            static_cast<std::uint16_t>(sizeof header + kExtension + options.extensions.size());
        std::memcpy(frame.data(), &header, sizeof header);
        return write_whole({frame.data(), header.header_length}, deadline);
    }

    Expected<void> send_sealed(Loan& loan, const SendOptions& options, const Deadline& deadline) {
        constexpr const char* kOperation = "send payload";
        if (directory_->mount().empty())
            return Error{ENOTSUP, kOperation, "the channel's mount has no control socket"};
        auto queue = fd();  // checks permission, and is polled for room
        if (!queue) return std::move(queue).error();
        auto sealed = Loan::Access::seal(loan);
        if (!sealed) return std::move(sealed).error();
        ControlSend send = control_send(options);
        send.size = loan.size();
        RoomWait room;
        while (true) {
            const std::string path = directory_->relative();
            send.path_length = static_cast<std::uint32_t>(path.size());
            auto sent =
                Connection::request(directory_->mount(), ControlOp::kSend, send,
                                    {path, as_text(options.extensions)}, std::span(&*sealed, 1));
            if (sent) return {};
            if (sent.error().code != EAGAIN) return std::move(sent).error();
            if (auto waited = wait_for_room(room, *queue, deadline); !waited) return waited;
        }
    }

    Expected<Loan> copy_to_loan(std::span<const std::byte> body, const SendOptions& options) {
        LoanOptions how;
        how.timeout = options.timeout;
        how.sealed_when_busy = true;
        if (pools_.enabled()) {
            auto lent = loan(body.size(), how);
            if (!lent || lent->pooled()) {
                if (lent && !body.empty()) std::memcpy(lent->data(), body.data(), body.size());
                return lent;
            }
        }
        return fill_sealed(body);
    }

    // write(2) fills fresh memory faster than page faults, unless huge pages are used.
    static Expected<Loan> fill_sealed(std::span<const std::byte> body) {
        const bool by_write = body.size() < kHugeFrom || !shared_huge_pages();
        auto made =
            by_write ? Loan::Access::unmapped(body.size()) : Loan::Access::sealed(body.size());
        if (!made) return made;
        if (!by_write) {
            std::memcpy(made->data(), body.data(), body.size());
            return made;
        }
        const int fd = Loan::Access::memory(*made);
        for (std::size_t done = 0; done < body.size();) {
            const ssize_t written =
                ::pwrite(fd, body.data() + done, body.size() - done, static_cast<off_t>(done));
            if (written < 0 && errno == EINTR) continue;
            if (written < 0) return last_error("send payload");
            if (written == 0) return Error{ENOSPC, "send payload"};
            done += static_cast<std::size_t>(written);
        }
        return made;
    }

    const std::shared_ptr<const Directory> directory_;
    const ChannelOptions options_;
    std::atomic<int> fd_{-1};
    std::atomic<bool> type_known_{false};
    std::atomic<bool> sync_{false};
    std::atomic<bool> takes_ioctl_{true};
    SendPools pools_;
};

}  // namespace ipcfs::detail
