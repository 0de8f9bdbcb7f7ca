// Reading and writing of messages as files. Any thread.
#include <algorithm>
#include <cstring>
#include <poll.h>

#include <ipcfs/frame.hpp>
#include <tree/message_file.hpp>

namespace ipcfs::tree {

using channel::Take;
using queue::MessageRef;
using queue::Wake;

Result<std::shared_ptr<MessageFile>> MessageFile::open(std::shared_ptr<channel::Endpoint> channel,
                                                       const MessageStyle& style, OpenMode mode,
                                                       const access::Subject& subject,
                                                       payload::Store& payloads) {
    auto entry = Entry::take(std::move(channel), mode, subject);
    if (!entry) return entry.error();
    std::shared_ptr<channel::Endpoint> subscription;
    if (mode.reads && entry->channel->is_topic()) {
        subscription = entry->channel->open_subscription(subject, *entry->account);
        if (!subscription) return Fault{EPIPE, "open: the channel is gone"};
    }
    return std::make_shared<MessageFile>(std::move(*entry), std::move(subscription), style,
                                         subject.pid, payloads);
}

MessageFile::MessageFile(Entry entry, std::shared_ptr<channel::Endpoint> subscription,
                         const MessageStyle& style, pid_t opener, payload::Store& payloads)
    : SendingFile(std::move(entry), style.via),
      subscription_(std::move(subscription)),
      source_(subscription_ ? *subscription_ : *channel_),
      style_(style),
      opener_(opener),
      payloads_(payloads) {
    write_ticket_.critical = style.priority == queue::kCritical;
}

MessageFile::~MessageFile() {
    source_.forget(poll_slot_);
}

// ---- reading --------------------------------------------------------------------------------------

Outcome MessageFile::try_read(const ReadRequest& request, Delivery& to) noexcept {
    {
        std::scoped_lock hold(mutex_);
        if (std::exchange(torn_, false)) {
            to.error = EIO;
            return Outcome::kDone;
        }
        if (current_.message) {
            std::uint64_t from = positionless() ? current_.done : request.offset - current_.base;
            if ((positionless() || request.offset >= current_.base) && from < current_.size) {
                current_.done = std::min<std::uint64_t>(current_.size, from + request.size);
                fill(current_, from, request.size, to);
                return Outcome::kDone;
            }
        }
        if (style_.read == Read::kOne && current_.one_taken) return Outcome::kDone;
    }
    MessageRef message;
    switch (source_.try_take(message, UINT64_MAX, style_.lane)) {
        case Take::kTaken:
            if (refuses(message, to)) return Outcome::kDone;
            adopt(std::move(message), request.offset, request.size, to);
            return Outcome::kDone;
        case Take::kEnded:
        case Take::kRemoved: return Outcome::kDone;
        case Take::kEmpty: break;
    }
    if (style_.read == Read::kDrain) return Outcome::kDone;
    if (!request.nonblocking) return Outcome::kWait;
    to.error = EAGAIN;
    return Outcome::kDone;
}

void MessageFile::adopt(MessageRef message, std::uint64_t offset, std::size_t size, Delivery& to) {
    Current next;
    if (style_.framed) next.header = header_of(message->envelope, *message);
    next.size = shown_size(*message, style_.framed);
    next.base = offset;
    next.one_taken = true;
    next.message = std::move(message);
    if (read_batch_.load(std::memory_order_relaxed) > 1) gather(next, size);
    next.done = std::min<std::uint64_t>(next.size, size);
    to.fresh = true;
    {
        std::scoped_lock hold(mutex_);
        std::swap(current_, next);
        fill(current_, 0, size, to);
    }
    // What was current before is freed here, outside the lock.
}

// A lazy payload cannot be read as bytes: its producer fills a receiver's memory. It stays queued.
bool MessageFile::refuses(MessageRef& message, Delivery& to) noexcept {
    if (style_.framed || !message->payload || message->payload->kind != PayloadKind::kLazy)
        return false;
    channel_->note_error("read: a lazy payload; only the client header and framed/ can receive it");
    source_.give_back(std::move(message));
    to.error = EOPNOTSUPP;
    return true;
}

// Adds what else is queued, as long as it fits into the reader's buffer whole.
void MessageFile::gather(Current& current, std::size_t room) {
    std::uint32_t most = read_batch_.load(std::memory_order_relaxed);
    if (current.size >= room) return;
    std::string text;
    auto append = [&](const FrameHeader& header, const queue::Message& message) {
        text.append(reinterpret_cast<const char*>(&header), sizeof header);
        auto content = message.content();
        text.append(reinterpret_cast<const char*>(content.data()), content.size());
    };
    std::uint64_t used = current.size;
    while (current.more.size() + 1 < most && used < room) {
        MessageRef next;
        if (room - used < sizeof(FrameHeader) ||
            source_.try_take(next, room - used - sizeof(FrameHeader)) != Take::kTaken) {
            break;
        }
        if (text.empty()) append(current.header, *current.message);
        append(header_of(next->envelope, *next), *next);
        used += sizeof(FrameHeader) + next->content().size();
        current.more.push_back(std::move(next));
    }
    if (current.more.empty()) return;
    current.size = text.size();
    current.text = std::make_shared<const std::string>(std::move(text));
}

int MessageFile::set_read_batch(std::uint32_t most) noexcept {
    if (!style_.framed || !mode_.reads) return ENOTTY;
    if (most > kMaxReadBatch || style_.read == Read::kOne) return EINVAL;
    read_batch_.store(most, std::memory_order_relaxed);
    return 0;
}

int MessageFile::may_send() const noexcept {
    if (!style_.framed || style_.read != Read::kDrain) return ENOTTY;
    return mode_.writes ? 0 : EBADF;
}

std::uint32_t MessageFile::marks() const noexcept {
    std::scoped_lock hold(mutex_);
    // A successor cannot know what was published between the two daemons.
    if (subscription_) return kTouched;
    const bool midway = torn_ || (current_.message && current_.done < current_.size);
    return (midway ? kMidway : 0U) |
           (style_.read == Read::kOne && current_.one_taken ? kServed : 0U);
}

int MessageFile::resume(std::uint32_t marks) noexcept {
    std::scoped_lock hold(mutex_);
    if (marks & kTouched) return ESTALE;
    torn_ = (marks & kMidway) != 0;
    current_.one_taken = (marks & kServed) != 0;
    return 0;
}

void MessageFile::fill(const Current& current, std::uint64_t from, std::size_t size,
                       Delivery& to) const {
    if (to.fresh) to.more = current.more;
    if (!current.text) {
        return show(current.message, style_.framed ? &current.header : nullptr, from, size, to);
    }
    to.message = current.message;
    to.text = current.text;
    to.parts[0] = Cut(from, size)(std::as_bytes(std::span(*current.text)));
}

void MessageFile::settle(Delivery& delivery, bool sent) noexcept {
    if (!delivery.fresh) return;
    MessageRef message = std::move(delivery.message);
    if (!sent) {
        Current before;
        {
            std::scoped_lock hold(mutex_);
            if (current_.message == message) std::swap(before, current_);
        }
        // Each goes to the front: the last one first.
        while (!delivery.more.empty()) {
            MessageRef last = std::move(delivery.more.back());
            delivery.more.pop_back();
            source_.give_back(std::move(last));
        }
        return source_.give_back(std::move(message));
    }
    settle_one(*message);
    for (const MessageRef& each : delivery.more) settle_one(*each);
    // Before the refresh, which may take long: the reader may have the next message already, and then the payload
    // must be gone.
    message.reset();
    delivery.more.clear();
    delivery.payload.reset();
    if (style_.via != queue::Via::kQueueFile) channel_->refresh_attributes();
}

// From now on the reader keeps the message, for re-reading, and is charged for it in place of the sender.
void MessageFile::settle_one(queue::Message& message) noexcept {
    source_.delivered(message);
    message.charged_message.reset();
    message.charged_bytes =
        access::Charge::force(account_, access::Resource::kBytes, message.size());
    if (message.payload) message.payload->delivered(account_, opener_, style_.framed);
}

void MessageFile::start_read(ReadOperation& operation) noexcept {
    operation.lane = style_.lane;
    source_.take(operation);
}

void MessageFile::cancel_read(ReadOperation& operation, Wake why) noexcept {
    source_.cancel(operation, why);
}

void MessageFile::finish_read(ReadOperation& operation, Delivery& to) noexcept {
    to.error = operation.error();
    if (operation.why != Wake::kServed || refuses(operation.message, to)) return;
    adopt(std::move(operation.message), operation.request().offset, operation.request().size, to);
}

// ---- writing --------------------------------------------------------------------------------------

int MessageFile::add(MessageRef message, const access::Subject& sender, access::Account& account,
                     queue::Batch& batch) {
    if (!message) return ENOMEM;
    if (!message->charge(account)) return EDQUOT;
    message->envelope.sender = sender;
    batch.add(std::move(message));
    return 0;
}

// A chunk of the sender's pool, if the frame names one.
int MessageFile::lend(const FrameView& frame, const access::Subject& sender,
                      queue::Message& message) {
    auto value = frame.extension(ExtensionType::kPayload);
    if (!value) return 0;
    PayloadRef ref;
    Result<payload::PayloadPtr> payload =
        Fault{EINVAL,
              "the extension `payload` is the daemon's word; only a chunk of a pool may be named"};
    if (value->size() == sizeof ref && frame.body.empty()) {
        std::memcpy(&ref, value->data(), sizeof ref);
        channel::Settings settings = channel_->settings();
        if (ref.kind != PayloadKind::kPooled) {
        } else if (channel_->is_topic()) {
            payload = Fault{EOPNOTSUPP, "a chunk is lent to one receiver, not published"};
        } else if (settings.payloads != channel::Payloads::kPooled) {
            payload =
                Fault{EPERM, "pooled payloads are off here; `payloads pooled` in ctl allows them"};
        } else if (ref.size > settings.max_payload) {
            payload = Fault{EMSGSIZE, "the payload is larger than max-payload"};
        } else {
            payload = payloads_.add_pooled(channel_->id(), ref, sender.uid);
        }
    }
    if (!payload) {
        channel_->note_error("framed write: " + payload.error().operation);
        return payload.error().code;
    }
    message.payload = std::move(*payload);
    return 0;
}

int MessageFile::parse_frames(const WriteRequest& request, access::Account& account,
                              queue::Batch& batch) {
    std::span<const std::byte> rest = request.data;
    while (!rest.empty()) {
        FrameView frame;
        std::size_t consumed = 0;
        FrameError wrong = decode(rest, frame, consumed, channel::kMaxWrite);
        if (wrong != FrameError::kNone) {
            channel_->note_error(std::string("framed write: frame ") +
                                 std::to_string(batch.count + 1) + ": " + to_string(wrong));
            return EINVAL;
        }
        const FrameHeader& h = frame.header;
        if (h.type == FrameType::kCapability || h.capability_id || h.deadline > INT64_MAX) {
            channel_->note_error(
                "framed write: capabilities are not in this version, and a deadline is below "
                "2^63 ns");
            return EINVAL;
        }
        if (h.type == FrameType::kHandoff || h.payload_id) {
            channel_->note_error(
                "framed write: a payload comes by `put` or the control socket, a hand-off by the "
                "control socket");
            return EINVAL;
        }
        MessageRef message = channel_->make_message(frame.extensions, frame.body);
        if (!message) return ENOMEM;
        if (!frame.extensions.empty()) {
            if (int error = lend(frame, request.subject, *message)) return error;
        }
        queue::Envelope& e = message->envelope;
        e.priority = h.priority;
        e.type = static_cast<std::uint8_t>(h.type);
        e.id = h.message_id;
        e.correlation = h.correlation_id;
        e.deadline = static_cast<Nanos>(h.deadline);
        e.drop_when_late = (h.flags & kFrameExpires) != 0;
        if (int error = add(std::move(message), request.subject, account, batch)) return error;
        rest = rest.subspan(consumed);
    }
    return 0;
}

int MessageFile::parse(const WriteRequest& request, queue::Batch& batch) {
    if (request.data.size() > channel::kMaxWrite) return EMSGSIZE;
    access::Account& account = account_of(request.subject);
    if (style_.framed) return parse_frames(request, account, batch);
    MessageRef message = channel_->make_message({}, request.data);
    if (message) message->envelope.priority = style_.priority;
    return add(std::move(message), request.subject, account, batch);
}

Outcome MessageFile::try_write(const WriteRequest& request, queue::Batch& pending,
                               int& error) noexcept {
    error = parse(request, pending);
    if (error) pending.withdraw();
    if (error || pending.count == 0) return Outcome::kDone;
    const Outcome outcome = push(pending, request.nonblocking, error);
    if (error) pending.withdraw();
    return outcome;
}

// ---- polling --------------------------------------------------------------------------------------

unsigned MessageFile::poll(std::unique_ptr<channel::PollTicket> ticket) noexcept {
    unsigned ready =
        source_.poll(poll_slot_, std::move(ticket), write_ticket_.critical, style_.lane);
    {
        std::scoped_lock hold(mutex_);
        if (current_.message && current_.done < current_.size) ready |= POLLIN;
        if (style_.read == Read::kOne && current_.one_taken) ready |= POLLIN;
    }
    return usable(ready);
}

}  // namespace ipcfs::tree
