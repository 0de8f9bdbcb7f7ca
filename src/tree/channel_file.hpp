// Sending to a channel, as every file and door does it, and what the open files through which its messages go have
// in common: the channel counts them, their openers are charged for them, and what is written through them waits at
// the gate, for room or for a disk as the channel says. Any thread.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <poll.h>

#include <channel/endpoint.hpp>
#include <tree/operation.hpp>

namespace ipcfs::tree {

// An errno: 0 when it is queued; EAGAIN where it would wait.
int error_of(channel::Push push) noexcept;

// A push that no client's request waits for: it does not wait for room. `done` is called once with an
// errno, on any thread, possibly before this returns; by then the batch is queued or gone.
void push_detached(const std::shared_ptr<channel::Endpoint>& channel, queue::Batch batch,
                   std::function<void(int error)> done) noexcept;

// ---- a message as its reader sees it: its bytes, in framed/ with its header before them ----

// `envelope` is the message's, or what it was when the message was given out.
FrameHeader header_of(const queue::Envelope& envelope, const queue::Message& message);

inline std::uint64_t shown_size(const queue::Message& message, bool framed) noexcept {
    return framed ? sizeof(FrameHeader) + message.content().size() : message.content_size();
}
// At most `size` bytes from `from` on, which is inside it; with `header` those of the frame.
void show(const queue::MessageRef& message, const FrameHeader* header, std::uint64_t from,
          std::size_t size, Delivery& to);

// Of consecutive pieces, what lies at most `size` bytes behind `from`.
class Cut {
public:
    Cut(std::uint64_t from, std::size_t size) : from_(from), size_(size) {}
    std::span<const std::byte> operator()(std::span<const std::byte> piece) noexcept;

private:
    std::uint64_t from_;
    std::size_t size_;
};

// The right to have a file of a channel open, until it is destroyed. Moved, never copied.
class Entry {
public:
    // EPIPE when the channel is gone, EDQUOT over the user's limit of open files.
    static Result<Entry> take(std::shared_ptr<channel::Endpoint> channel, OpenMode mode,
                              const access::Subject& subject);
    Entry(Entry&&) noexcept = default;
    Entry& operator=(Entry&&) = delete;
    ~Entry() {
        if (channel) channel->closed(mode.reads, mode.writes);
    }

    std::shared_ptr<channel::Endpoint> channel;
    OpenMode mode;
    access::Account* account;
    access::Charge charge;

private:
    Entry(std::shared_ptr<channel::Endpoint> of, OpenMode how, access::Account& by,
          access::Charge held)
        : channel(std::move(of)), mode(how), account(&by), charge(std::move(held)) {}
};

class ChannelFile : public WaitingFile {
public:
    void cancel_read(ReadOperation& operation, queue::Wake why) noexcept override;
    std::optional<access::Charge> charge_waiter() noexcept override;

protected:
    // The account of a sender, who is mostly the opener.
    access::Account& account_of(const access::Subject& sender) const {
        return sender.uid == account_.uid() ? account_ : channel_->account(sender.uid);
    }
    // The events in `ready` that the open mode can use.
    unsigned usable(unsigned ready) const noexcept {
        return ready & ~((mode_.reads ? 0U : POLLIN) | (mode_.writes ? 0U : POLLOUT));
    }

    explicit ChannelFile(Entry entry)
        : entry_(std::move(entry)),
          channel_(entry_.channel),
          mode_(entry_.mode),
          account_(*entry_.account) {}

private:
    const Entry entry_;

protected:
    const std::shared_ptr<channel::Endpoint>& channel_;
    const OpenMode mode_;
    access::Account& account_;
};

// One that sends, too.
class SendingFile : public ChannelFile {
public:
    ~SendingFile() override;
    Outcome try_gate(int& error) noexcept override;
    void start_gate(GateOperation& operation) noexcept override;
    void cancel_gate(GateOperation& operation, queue::Wake why) noexcept override;
    void start_write(WriteOperation& operation) noexcept override;
    void cancel_write(WriteOperation& operation, queue::Wake why) noexcept override;

protected:
    SendingFile(Entry entry, queue::Via via) : ChannelFile(std::move(entry)), via_(via) {}
    // kDone with an errno (0: queued), or kWait: a WriteOperation with `pending` is to follow.
    Outcome push(queue::Batch& pending, bool nonblocking, int& error) noexcept;

    channel::WriteTicket write_ticket_;

private:
    const queue::Via via_;
};

}  // namespace ipcfs::tree
