// Any thread.
#include <algorithm>
#include <new>

#include <tree/channel_file.hpp>

namespace ipcfs::tree {

using channel::Push;
using queue::Wake;

namespace {

// Waits by itself.
class Detached final : public queue::WriteWaiter {
public:
    void finish() noexcept override {
        std::unique_ptr<Detached> self(this);
        const int error = error_of(why, EINTR, false);
        if (error) batch.withdraw();
        batch.clear();
        done(error);
    }

    std::function<void(int)> done;
};

}  // namespace

// ---- pushes ---------------------------------------------------------------------------------------

int error_of(Push push) noexcept {
    switch (push) {
        case Push::kQueued: return 0;
        case Push::kFull: return ENOBUFS;
        case Push::kTooLong: return EMSGSIZE;
        case Push::kRemoved: return EPIPE;
        case Push::kNoSpace: return ENOSPC;
        case Push::kDiskFailed: return EIO;
        case Push::kWait:
        case Push::kCommit: break;
    }
    return EAGAIN;
}

void push_detached(const std::shared_ptr<channel::Endpoint>& channel, queue::Batch batch,
                   std::function<void(int error)> done) noexcept {
    const Push push = channel->try_push(batch, queue::Via::kOther, false, nullptr);
    if (push != Push::kCommit) {
        if (push != Push::kQueued) batch.withdraw();
        return done(error_of(push));
    }
    auto* waiter = new (std::nothrow) Detached;
    if (!waiter) {
        batch.withdraw();
        return done(ENOMEM);
    }
    waiter->done = std::move(done);
    waiter->batch = std::move(batch);
    waiter->via = queue::Via::kOther;
    channel->push(*waiter, nullptr);
}

// ---- messages as bytes ----------------------------------------------------------------------------

FrameHeader header_of(const queue::Envelope& e, const queue::Message& message) {
    FrameHeader h;
    h.type = static_cast<FrameType>(e.type);
    h.flags = static_cast<std::uint16_t>((e.redelivered ? kFrameRedelivered : 0) |
                                         (e.drop_when_late ? kFrameExpires : 0));
    h.priority = e.priority;
    h.sequence = e.sequence;
    h.message_id = e.id;
    h.correlation_id = e.correlation;
    h.time = static_cast<std::uint64_t>(e.time);
    h.deadline = static_cast<std::uint64_t>(e.deadline);
    h.sender_pid = static_cast<std::uint32_t>(e.sender.pid);
    h.sender_tid = static_cast<std::uint32_t>(e.sender.tid);
    h.sender_uid = e.sender.uid;
    h.sender_gid = e.sender.gid;
    if (message.payload) h.payload_id = message.payload->id;
    encode_header(h, message.extensions(), message.body());
    return h;
}

std::span<const std::byte> Cut::operator()(std::span<const std::byte> piece) noexcept {
    const std::size_t skip = std::min<std::uint64_t>(from_, piece.size());
    from_ -= skip;
    piece = piece.subspan(skip, std::min(size_, piece.size() - skip));
    size_ -= piece.size();
    return piece;
}

void show(const queue::MessageRef& message, const FrameHeader* header, std::uint64_t from,
          std::size_t size, Delivery& to) {
    to.message = message;
    Cut cut(from, size);
    if (header) {
        to.header = *header;
        to.parts[0] = cut(std::as_bytes(std::span(&to.header, 1)));
        to.parts[1] = cut(message->content());
    } else if (message->payload) {
        const payload::Payload& payload = *message->payload;
        to.file = {payload.file(), payload.offset() + from,
                   static_cast<std::size_t>(std::min<std::uint64_t>(size, payload.size - from))};
    } else {
        to.parts[0] = cut(message->body());
    }
}

// ---- files ----------------------------------------------------------------------------------------

Result<Entry> Entry::take(std::shared_ptr<channel::Endpoint> channel, OpenMode mode,
                          const access::Subject& subject) {
    access::Account& account = channel->account(subject.uid);
    auto charge = charge_open(account);
    if (!charge) return charge.error();
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
