// Messages on trial. Any thread.
#include <algorithm>
#include <poll.h>

#include <base/process.hpp>
#include <base/units.hpp>
#include <tree/lease_file.hpp>

namespace ipcfs::tree {

using channel::Take;
using queue::Leased;
using queue::MessageRef;
using queue::Wake;

Result<std::shared_ptr<LeaseFile>> LeaseFile::open(std::shared_ptr<channel::Endpoint> channel,
                                                   bool framed, OpenMode mode,
                                                   const access::Subject& subject) {
    // For the channel it is a reader, whatever it may say of what it has read.
    auto entry = Entry::take(std::move(channel), {true, false, mode.nonblocking}, subject);
    if (!entry) return entry.error();
    return std::make_shared<LeaseFile>(std::move(*entry), framed, mode.writes, subject.pid);
}

LeaseFile::LeaseFile(Entry entry, bool framed, bool writes, pid_t opener)
    : ChannelFile(std::move(entry)), framed_(framed), writes_(writes), opener_(opener) {}

LeaseFile::~LeaseFile() {
    if (current_.lease) channel_->end_lease(current_.lease);
    channel_->forget(poll_slot_);
}

// The process whose end ends the lease: the one that opened the file, since the programs to which a shell passes it come
// and go. 0 if that process is gone already (a daemon's parent) or not visible.
pid_t LeaseFile::holder() const noexcept {
    return opener_ > 0 && thread_group(opener_) == opener_ ? opener_ : 0;
}

// ---- reading --------------------------------------------------------------------------------------

Outcome LeaseFile::try_read(const ReadRequest& request, Delivery& to) noexcept {
    {
        std::scoped_lock hold(mutex_);
        if (std::exchange(torn_, false)) {
            to.error = EIO;
            return Outcome::kDone;
        }
        // To the start of the file is to the start of the message.
        if (request.offset < current_.base) current_.base = 0;
        if (current_.lease && request.offset - current_.base < current_.size) {
            const std::uint64_t from = request.offset - current_.base;
            current_.done = std::min<std::uint64_t>(current_.size, from + request.size);
            show(current_.message, framed_ ? &current_.header : nullptr, from, request.size, to);
            return Outcome::kDone;
        }
        if (current_.lease || lost_) return Outcome::kDone;
        if (taking_) {
            to.error = EBUSY;
            return Outcome::kDone;
        }
        taking_ = true;
    }
    MessageRef message;
    Leased lease;
    const Take taken = channel_->try_lease(message, lease, holder());
    if (taken == Take::kTaken && !refuses(*message, lease, to)) {
        adopt(std::move(message), lease, request, to);
    }
    std::scoped_lock hold(mutex_);
    taking_ = false;
    if (taken != Take::kEmpty) return Outcome::kDone;
    if (!request.nonblocking) return Outcome::kWait;
    to.error = EAGAIN;
    return Outcome::kDone;
}

void LeaseFile::adopt(MessageRef message, const Leased& lease, const ReadRequest& request,
                      Delivery& to) noexcept {
    Current next;
    next.lease = lease.id;
    if (framed_) next.header = header_of(lease.envelope, *message);
    next.size = shown_size(*message, framed_);
    next.base = request.offset;
    next.done = std::min<std::uint64_t>(next.size, request.size);
    next.message = std::move(message);
    to.fresh = true;
    std::scoped_lock hold(mutex_);
    std::swap(current_, next);
    show(current_.message, framed_ ? &current_.header : nullptr, 0, request.size, to);
}

// What cannot be tried and given back stays where it is.
bool LeaseFile::refuses(const queue::Message& message, const Leased& lease, Delivery& to) noexcept {
    if (!message.payload) return false;
    const bool region = message.payload->kind == PayloadKind::kHandoff;
    if (!region && (framed_ || message.payload->kind != PayloadKind::kLazy)) return false;
    channel_->note_error(region ? "lease: a hand-off cannot be leased; only framed/ gives it away"
                                : "lease: a lazy payload; only the client header and framed/ can "
                                  "receive it");
    channel_->undo_lease(lease.id);
    to.error = EOPNOTSUPP;
    return true;
}

void LeaseFile::settle(Delivery& delivery, bool sent) noexcept {
    if (!delivery.fresh) return;
    if (!sent) {
        Current before;
        {
            std::scoped_lock hold(mutex_);
            if (current_.message == delivery.message) std::swap(before, current_);
        }
        delivery.message.reset();
        if (before.lease) channel_->undo_lease(before.lease);
        return;
    }
    channel_->refresh_attributes();
}

void LeaseFile::start_read(ReadOperation& operation) noexcept {
    bool busy = false;
    {
        std::scoped_lock hold(mutex_);
        busy = taking_ || current_.lease;
        if (!busy) taking_ = true;
    }
    if (busy) {
        operation.why = Wake::kPurged;
        return operation.finish();
    }
    operation.leases = true;
    operation.holder = holder();
    channel_->take(operation);
}

void LeaseFile::finish_read(ReadOperation& operation, Delivery& to) noexcept {
    if (operation.why == Wake::kPurged) {  // another read was faster
        to.error = EBUSY;
        return;
    }
    to.error = operation.error();
    if (operation.why == Wake::kServed && !refuses(*operation.message, operation.lease, to)) {
        adopt(std::move(operation.message), operation.lease, operation.request(), to);
    }
    std::scoped_lock hold(mutex_);
    taking_ = false;
}

// ---- what became of it ----------------------------------------------------------------------------

std::optional<LeaseFile::Order> LeaseFile::parse(std::string_view text) noexcept {
    constexpr std::string_view kSpace = " \t\r\n";
    auto word = [&] {
        text.remove_prefix(std::min(text.find_first_not_of(kSpace), text.size()));
        std::string_view found = text.substr(0, text.find_first_of(kSpace));
        text.remove_prefix(found.size());
        return found;
    };
    const std::string_view first = word(), second = word(), more = word();
    std::optional<Nanos> time;
    if (!second.empty()) time = parse_duration(second);
    if (!more.empty() || (!second.empty() && !time)) return std::nullopt;
    if (first == "ack" && !time) return Order{Order::Word::kAck, 0};
    if (first == "dead" && !time) return Order{Order::Word::kDead, 0};
    if (first == "nack") return Order{Order::Word::kNack, time.value_or(0)};
    if (first == "extend" && time && *time > 0) return Order{Order::Word::kExtend, *time};
    return std::nullopt;
}

int LeaseFile::obey(const Order& order) noexcept {
    std::uint64_t lease = 0;
    MessageRef message;
    {
        std::scoped_lock hold(mutex_);
        lease = current_.lease;
        message = current_.message;
    }
    bool done = false;
    if (lease) {
        switch (order.word) {
            case Order::Word::kAck:
                done = channel_->ack(lease);
                // From now on the payload is charged to whoever has it mapped; a chunk goes back to its pool.
                if (done && message->payload) message->payload->delivered(account_, opener_, false);
                break;
            case Order::Word::kNack: done = channel_->nack(lease, order.time); break;
            case Order::Word::kExtend: done = channel_->extend(lease, order.time); break;
            case Order::Word::kDead: done = channel_->bury(lease); break;
        }
    }
    Current before;
    std::unique_ptr<channel::PollTicket> ticket;
    bool lost = false;
    {
        std::scoped_lock hold(mutex_);
        lost = std::exchange(lost_, false);
        const bool over = !done || order.word != Order::Word::kExtend;
        if (over && current_.lease == lease) std::swap(before, current_);
        if (over) ticket = std::move(ticket_);
    }
    if (ticket) ticket->notify();
    if (!done) channel_->note_error(lease || lost ? "the lease has ended" : "no lease is held");
    return done ? 0 : ESTALE;
}

Outcome LeaseFile::try_write(const WriteRequest& request, queue::Batch&, int& error) noexcept {
    constexpr std::size_t kLongest = 256;
    std::optional<Order> order;
    if (request.data.size() <= kLongest) order = parse(request.text());
    if (order) {
        error = obey(*order);
    } else {
        error = EINVAL;
        channel_->note_error("lease: ack, nack [DELAY], extend DURATION or dead is expected");
    }
    // A write moves the file's position: what has not been read yet moves along.
    if (!error) {
        std::scoped_lock hold(mutex_);
        current_.base += request.data.size();
    }
    return Outcome::kDone;
}

// ---- polling --------------------------------------------------------------------------------------

unsigned LeaseFile::poll(std::unique_ptr<channel::PollTicket> ticket) noexcept {
    unsigned ready = writes_ ? POLLOUT : 0U;
    std::unique_ptr<channel::PollTicket> old;
    {
        std::scoped_lock hold(mutex_);
        if (current_.lease || lost_) {
            if (ticket) {
                old = std::move(ticket_);
                ticket_ = std::move(ticket);
            }
            if (current_.done < current_.size) ready |= POLLIN;
            if (channel_->removed()) ready |= POLLIN | POLLHUP;
            return ready;
        }
    }
    return ready |
           (channel_->poll(poll_slot_, std::move(ticket)) & ~static_cast<unsigned>(POLLOUT));
}

// ---- a daemon that was killed ---------------------------------------------------------------------

std::uint32_t LeaseFile::marks() const noexcept {
    std::scoped_lock hold(mutex_);
    const bool midway = torn_ || (current_.lease && current_.done < current_.size);
    return (midway ? kMidway : 0U) | (current_.lease || lost_ ? kServed : 0U);
}

int LeaseFile::resume(std::uint32_t marks) noexcept {
    std::scoped_lock hold(mutex_);
    torn_ = (marks & kMidway) != 0;
    lost_ = (marks & kServed) != 0;
    return 0;
}

}  // namespace ipcfs::tree
