// What the open files through which a channel's messages go have in common: that they are open is
// counted by the channel and charged to whoever opened them, and what is written through them waits at
// the gate, for room or for a disk as the channel says. Any thread.
#pragma once

#include <memory>
#include <optional>

#include <tree/operation.hpp>

namespace ipcfs::tree {

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
