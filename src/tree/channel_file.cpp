// Any thread.
#include <tree/channel_file.hpp>
#include <tree/pushing.hpp>

namespace ipcfs::tree {

using channel::Push;
using queue::Wake;

Result<Entry> Entry::take(std::shared_ptr<channel::Endpoint> channel, OpenMode mode,
                          const access::Subject& subject) {
    access::Account& account = channel->account(subject.uid);
    auto charge = access::Charge::take(account, access::Resource::kOpenFiles, 1);
    if (!charge) return Fault{EDQUOT, "open: the user's limit of open files is reached"};
    if (!channel->opened(mode.reads, mode.writes)) return Fault{EPIPE, "open: the channel is gone"};
    return Entry(std::move(channel), mode, account, std::move(*charge));
}

void ChannelFile::cancel_read(ReadOperation& operation, Wake why) noexcept {
    channel_->cancel(operation, why);
}

std::optional<access::Charge> ChannelFile::charge_waiter() noexcept {
    return access::Charge::take(account_, access::Resource::kWaiters, 1);
}

SendingFile::~SendingFile() {
    channel_->leave(write_ticket_);
}

Outcome SendingFile::try_gate(int& error) noexcept {
    error = 0;
    if (mode_.reads || mode_.nonblocking) return Outcome::kDone;
    switch (channel_->try_gate(write_ticket_)) {
        case channel::Gate::kOpen: return Outcome::kDone;
        case channel::Gate::kRemoved: error = EPIPE; return Outcome::kDone;
        case channel::Gate::kWait: break;
    }
    return Outcome::kWait;
}

void SendingFile::start_gate(GateOperation& operation) noexcept {
    channel_->gate(operation, write_ticket_);
}

void SendingFile::cancel_gate(GateOperation& operation, Wake why) noexcept {
    channel_->cancel(operation, why);
}

Outcome SendingFile::push(queue::Batch& pending, bool nonblocking, int& error) noexcept {
    const Push push = channel_->try_push(pending, via_, !nonblocking, &write_ticket_);
    if (push == Push::kCommit || (push == Push::kWait && !nonblocking)) return Outcome::kWait;
    error = error_of(push);
    return Outcome::kDone;
}

void SendingFile::start_write(WriteOperation& operation) noexcept {
    operation.via = via_;
    channel_->push(operation, &write_ticket_);
}

void SendingFile::cancel_write(WriteOperation& operation, Wake why) noexcept {
    channel_->cancel(operation, why);
}

}  // namespace ipcfs::tree
