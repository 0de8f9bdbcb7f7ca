// Channel: a channel of an ipcfs tree, open for sending and receiving messages.
//
//     auto jobs = ipcfs::Channel::open("jobs");
//     if (!jobs) return fail(jobs.error().message());
//     if (auto sent = jobs->send("hello"); !sent) return fail(sent.error().message());
//     auto message = jobs->receive(std::chrono::seconds(1));
//     if (message) use(message->text());
//
// Threads: all of it may be called by any number of threads at once; only moving and destroying a
// Channel need it to be left alone. Fork: a child may go on using its parent's channels; it gets open
// files of its own, so it needs the right to receive itself (what it sends with is inherited).
// Destroying one never blocks. No signal handler is installed, and no signal is raised.
//
// Errors, beside those of each call: EACCES no right to; ENOENT no such channel; EPIPE the channel was
// removed; ENOTCONN, ECONNABORTED, ECONNRESET the daemon is gone; EMFILE, ENFILE, ENOMEM; and EINTR with
// ChannelOptions::interruptible. An error means that nothing was sent, or taken; but for ECONNRESET
// of a payload that was being sent, which nobody knows of.
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
    // `name`: a path ("/ipc/jobs", "./jobs") or a name in the tree of $IPCFS_MOUNT, or /ipc where that
    // is not set ("jobs", "a/b"). Files are opened at the first call that needs them, so rights are
    // looked at then.
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

    // Sends `body`, of any size up to the channel's max-payload. What is over max-message, or does not
    // fit into one write (1 MiB less 4 KiB, with its header), goes as a payload, by copying it once; to
    // send without a copy see loan(). Waits for room. EAGAIN or ETIMEDOUT: none in time; EMSGSIZE: over
    // max-payload; ENOBUFS: full, with `overflow reject`; EDQUOT: over the user's limits; ENOSPC: memory
    // is short; EINVAL: type or extensions. On type sync it waits for a receiver: then a timeout may
    // be exceeded by up to the channel's own `timeout`, and by the wait for other senders.
    Expected<void> send(std::span<const std::byte> body, const SendOptions& options = {}) {
        return core().writer.send(body, options);
    }
    Expected<void> send(std::string_view text, const SendOptions& options = {}) {
        return send(std::as_bytes(std::span(text.data(), text.size())), options);
    }
    // The same without waiting: EAGAIN.
    Expected<void> try_send(std::span<const std::byte> body, SendOptions options = {}) {
        options.timeout = Timeout::zero();
        return send(body, options);
    }
    Expected<void> try_send(std::string_view text, SendOptions options = {}) {
        options.timeout = Timeout::zero();
        return send(text, options);
    }

    // Sends all of them, or none: one write. Does not clear the batch. Errors as send(); EMSGSIZE also
    // where the batch could never fit into the channel (capacity, bytes).
    Expected<void> send_batch(const Batch& batch, Timeout timeout = kForever) {
        if (batch.empty()) return {};
        if (batch.has_loans()) return Error{EINVAL, "send", "loans can be sent only once"};
        return core().writer.write(batch.frames(), timeout);
    }
    // One with loans is empty afterwards: they are the messages' now. EPERM, with nothing sent, where the
    // channel wants no pools any more.
    Expected<void> send_batch(Batch& batch, Timeout timeout = kForever) {
        if (!batch.has_loans()) return send_batch(std::as_const(batch), timeout);
        auto written = core().writer.write(batch.frames(), timeout);
        if (written) batch.sent();
        return written;
    }
    // The same for a range of std::span<const std::byte>, std::string_view or std::string. EMSGSIZE,
    // with nothing sent, when they do not fit into one Batch.
    template <class Range>
    Expected<void> send_batch(const Range& bodies, const SendOptions& options = {}) {
        Batch batch;
        for (const auto& body : bodies)
            if (auto added = batch.add(body, options); !added) return added;
        return send_batch(batch, options.timeout);
    }

    // ---- sending without a copy ----

    // Memory for a body of `size` bytes, to be filled and sent. Where the channel has `payloads pooled` it
    // is a chunk of a pool: from a warm one that takes an atomic operation, no call and no lock. Else
    // fresh memory, with huge pages where there are any. EAGAIN, ETIMEDOUT: all chunks lent, see
    // LoanOptions; ENOMEM and the like.
    Expected<Loan> loan(std::size_t size, const LoanOptions& options = {}) {
        return core().writer.loan(size, options);
    }
    // Sends it, as send() above does. When that fails the loan is the caller's still, and can be sent
    // again; a sealed one cannot be written to any more then. EBUSY: it could not be sealed, since
    // something has it mapped for writing.
    Expected<void> send(Loan&& loan, const SendOptions& options = {}) {
        return core().writer.send(loan, options);
    }

    // ---- receiving ----

    // Takes the next message: the most urgent, the oldest among equals. ETIMEDOUT when none came, EAGAIN
    // for a timeout of zero.
    Expected<Message> receive(Timeout timeout = kForever) {
        auto taken = core().reader.receive(1, timeout);
        if (!taken) return std::move(taken).error();
        return std::move(taken->front());
    }
    Expected<Message> try_receive() { return receive(Timeout::zero()); }
    // Takes what is there, at least one and up to `most` messages, by one read where they are small. A
    // call gives no more than kMaxReadBatch.
    Expected<std::vector<Message>> receive_batch(std::size_t most, Timeout timeout = kForever) {
        if (most == 0) return std::vector<Message>();
        const auto bounded = std::min<std::size_t>(most, kMaxReadBatch);
        return core().reader.receive(static_cast<std::uint32_t>(bounded), timeout);
    }

    // ---- receiving on trial ----

    // Takes the next message as a Lease, which is acknowledged when the work is done: until then it can come
    // back. For types queue and batch, and for named subscriptions; any number at once. ETIMEDOUT, EAGAIN
    // as receive(); ENOENT: a type that has no leases.
    Expected<Lease> lease(Timeout timeout = kForever) { return core().leases->take(timeout); }
    Expected<Lease> try_lease() { return lease(Timeout::zero()); }

    // ---- for event loops ----

    // Readable (POLLIN) when a message waits, POLLHUP when the channel is gone; for poll, select, epoll.
    // The Channel's own: not to be read or closed; another one in a forked child. After POLLIN use
    // try_receive() until EAGAIN: somebody else may have been faster.
    Expected<int> receive_fd() { return core().reader.fd(); }
    // POLLOUT when a small message can be sent. As above.
    Expected<int> send_fd() { return core().writer.fd(); }

    // ---- about it ----

    // The tree it is in; empty where the channel is visible but not its tree (a bind mount).
    std::string mount() const { return core().directory->mount(); }
    // Its name there now, such as "a/b".
    std::string name() const { return core().directory->relative(); }
    // A setting as `ctl` shows it; empty when there is none, or it may not be read.
    std::string setting(const std::string& key) const {
        return core().directory->setting(key.c_str());
    }
    // Its directory (O_PATH), for openat and the like. Not to be closed.
    int directory() const { return core().directory->fd(); }

private:
    // What it is made of, in one process.
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

    // In a forked child. What is inherited stays as it is, in use or not at the moment of the fork.
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
