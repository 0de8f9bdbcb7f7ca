// Channel: a channel of an ipcfs tree, open for sending and receiving messages.
//
//     auto jobs = ipcfs::Channel::open("jobs");
//     if (!jobs) return fail(jobs.error().message());
//     if (auto sent = jobs->send("hello"); !sent) return fail(sent.error().message());
//     auto message = jobs->receive(std::chrono::seconds(1));
//     if (message) use(message->text());
//
// Threads: any number of threads may call any function at the same time; only moving and destroying
// a Channel require that no other thread uses it. Fork: a child may use its parent's channels. It
// opens its own files for receiving, so it needs the right to receive; it inherits the file for
// sending. Destruction never blocks. The library installs no signal handler and raises no signal.
//
// Errors of all calls, beside those listed: EACCES no permission; ENOENT no such channel; EPIPE the
// channel was removed; ENOTCONN, ECONNABORTED, ECONNRESET the daemon is gone; EMFILE, ENFILE,
// ENOMEM; EINTR with ChannelOptions::interruptible. After an error nothing was sent or taken, with
// one exception: after ECONNRESET while sending a payload, whether it was sent is unknown.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ipcfs/batch.hpp>
#include <ipcfs/lease.hpp>
#include <ipcfs/loan.hpp>
#include <ipcfs/message.hpp>
#include <ipcfs/options.hpp>
#include <ipcfs/reader.hpp>
#include <ipcfs/result.hpp>
#include <ipcfs/writer.hpp>

namespace ipcfs {

class Channel {
public:
    // `name` is a path ("/ipc/jobs", "./jobs"), or a name ("jobs", "a/b") in the tree at
    // $IPCFS_MOUNT, or at /ipc if that is unset. Files are opened, and rights checked, by the first
    // call that needs them.
    static Expected<Channel> open(std::string_view name, ChannelOptions options = {}) {
        auto directory = detail::Directory::open(name, options);
        if (!directory) return std::move(directory).error();
        return Channel(std::make_unique<Core>(std::move(*directory), options));
    }

    Channel(Channel&& other) noexcept : core_(other.core_.exchange(nullptr)) {}
    Channel& operator=(Channel&& other) noexcept {
        if (this != &other) destroy(core_.exchange(other.core_.exchange(nullptr)));
        return *this;
    }
    ~Channel() { destroy(core_.load()); }

    // ---- sending ----

    // Sends `body`, of at most the channel's max-payload bytes; waits for room. A body above
    // max-message, or too large for one write (1 MiB - 4 KiB with its header), is copied once and
    // sent as a payload; to avoid the copy, see loan(). EAGAIN or ETIMEDOUT: no room in time;
    // EMSGSIZE: above max-payload; ENOBUFS: full, with `overflow reject`; EDQUOT: above the user's
    // limits; ENOSPC: too little memory is left; EINVAL: invalid type or extensions. On type sync,
    // send() waits for a receiver; it may then exceed the timeout by the channel's own `timeout`
    // and by the wait for other senders.
    Expected<void> send(std::span<const std::byte> body, const SendOptions& options = {}) {
        return core().writer.send(body, options);
    }
    Expected<void> send(std::string_view text, const SendOptions& options = {}) {
        return send(std::as_bytes(std::span(text.data(), text.size())), options);
    }
    // Like send(), without waiting: EAGAIN if there is no room.
    Expected<void> try_send(std::span<const std::byte> body, SendOptions options = {}) {
        options.timeout = Timeout::zero();
        return send(body, options);
    }
    Expected<void> try_send(std::string_view text, SendOptions options = {}) {
        options.timeout = Timeout::zero();
        return send(text, options);
    }

    // Sends all messages of the batch by one write, or none. Does not clear the batch. Errors as
    // send(); EMSGSIZE also if the batch exceeds the channel's capacity or bytes.
    Expected<void> send_batch(const Batch& batch, Timeout timeout = kForever) {
        if (batch.empty()) return {};
        if (batch.has_loans()) return Error{EINVAL, "send", "loans can be sent only once"};
        return core().writer.write(batch.frames(), timeout);
    }
    // For a batch with loans: it is empty after success, since the messages own the loans. EPERM,
    // with nothing sent, if the channel no longer accepts pools.
    Expected<void> send_batch(Batch& batch, Timeout timeout = kForever) {
        if (!batch.has_loans()) return send_batch(std::as_const(batch), timeout);
        auto written = core().writer.write(batch.frames(), timeout);
        if (written) batch.sent();
        return written;
    }
    // The same for a range of std::span<const std::byte>, std::string_view or std::string.
    // EMSGSIZE, with nothing sent, if they do not fit in one Batch.
    template <class Range>
    Expected<void> send_batch(const Range& bodies, const SendOptions& options = {}) {
        Batch batch;
        for (const auto& body : bodies)
            if (auto added = batch.add(body, options); !added) return added;
        return send_batch(batch, options.timeout);
    }

    // ---- sending without a copy ----

    // Lends memory for a body of `size` bytes, to be filled and sent. On a channel with `payloads
    // pooled` it is a chunk of a pool, which costs one atomic operation once the pool exists.
    // Otherwise it is fresh memory, with huge pages if available. EAGAIN, ETIMEDOUT: all chunks are
    // lent, see LoanOptions; ENOMEM and similar.
    Expected<Loan> loan(std::size_t size, const LoanOptions& options = {}) {
        return core().writer.loan(size, options);
    }
    // Sends a loan; errors as send() above. After an error the caller keeps the loan and may send
    // it again; if it was sealed, it can no longer be written to. EBUSY: a writable mapping
    // prevents sealing.
    Expected<void> send(Loan&& loan, const SendOptions& options = {}) {
        return core().writer.send(loan, options);
    }

    // ---- receiving ----

    // Takes the next message: the one with the highest priority, the oldest among equals. ETIMEDOUT
    // if none came in time; EAGAIN with a timeout of zero.
    Expected<Message> receive(Timeout timeout = kForever) {
        auto taken = core().reader.receive(1, timeout);
        if (!taken) return std::move(taken).error();
        return std::move(taken->front());
    }
    Expected<Message> try_receive() { return receive(Timeout::zero()); }
    // Waits for at least one message and takes up to `most` of those queued, small ones by one
    // read. Returns at most kMaxReadBatch.
    Expected<std::vector<Message>> receive_batch(std::size_t most, Timeout timeout = kForever) {
        if (most == 0) return std::vector<Message>();
        const auto bounded = std::min<std::size_t>(most, kMaxReadBatch);
        return core().reader.receive(static_cast<std::uint32_t>(bounded), timeout);
    }

    // ---- receiving with acknowledgement ----

    // Takes the next message as a Lease, to be acknowledged when the work is done; otherwise the
    // message is redelivered. For types queue and batch, and for named subscriptions. Any number of
    // leases may be held. ETIMEDOUT and EAGAIN as receive(); ENOENT: the type has no leases.
    Expected<Lease> lease(Timeout timeout = kForever) { return core().leases->take(timeout); }
    Expected<Lease> try_lease() { return lease(Timeout::zero()); }

    // ---- for event loops ----

    // For poll, select and epoll: POLLIN when a message waits, POLLHUP when the channel is gone.
    // The Channel owns the descriptor: do not read or close it. A forked child has another one.
    // After POLLIN call try_receive() until EAGAIN, since another receiver may have taken the
    // message.
    Expected<int> receive_fd() { return core().reader.fd(); }
    // POLLOUT when a small message can be sent. Otherwise as receive_fd().
    Expected<int> send_fd() { return core().writer.fd(); }

    // ---- about it ----

    // The tree's mount point; empty if only the channel is visible, not its tree (a bind mount).
    std::string mount() const { return core().directory->mount(); }
    // The channel's present name in the tree, such as "a/b".
    std::string name() const { return core().directory->relative(); }
    // A setting as `ctl` shows it; empty if it does not exist or may not be read.
    std::string setting(const std::string& key) const {
        return core().directory->setting(key.c_str());
    }
    // The channel's directory (O_PATH), for openat and the like. Do not close it.
    int directory() const { return core().directory->fd(); }

private:
    // The parts of a Channel within one process.
    struct Core {
        Core(std::shared_ptr<detail::Directory> of, const ChannelOptions& with)
            : epoch(detail::process_epoch()),
              options(with),
              directory(std::move(of)),
              writer(directory, options),
              reader(directory, options),
              leases(std::make_shared<detail::LeaseFiles>(directory, options)) {}

        const std::uint64_t epoch;
        const ChannelOptions options;
        const std::shared_ptr<detail::Directory> directory;
        detail::Writer writer;
        detail::Reader reader;
        const std::shared_ptr<detail::LeaseFiles> leases;
    };

    explicit Channel(std::unique_ptr<Core> core) noexcept : core_(core.release()) {}

    Core& core() const {
        Core* present = core_.load(std::memory_order_acquire);
        if (present->epoch == detail::process_epoch()) return *present;
        return renew(present);
    }

    // In a forked child: makes new parts and leaves the inherited ones untouched, since a parent's
    // thread may have been using them at the fork.
    Core& renew(Core* inherited) const {
        auto fresh = std::make_unique<Core>(inherited->directory->copy(), inherited->options);
        Core* present = inherited;
        if (!core_.compare_exchange_strong(present, fresh.get())) return *present;
        fresh->writer.adopt(inherited->writer.release());
        return *fresh.release();
    }

    static void destroy(Core* core) noexcept {
        if (core == nullptr) return;
        if (core->epoch == detail::process_epoch()) {
            delete core;
        } else if (const int fd = core->writer.release(); fd >= 0) {
            ::close(fd);
        }
    }

    mutable std::atomic<Core*> core_;
};

}  // namespace ipcfs
