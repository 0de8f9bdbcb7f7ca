// Under the lock of the channel that has it.
#include <channel/flow.hpp>

namespace ipcfs::channel {

bool Flow::fits(const queue::BatchFigures& batch) const noexcept {
    if (batch.critical || backlog_.load() == 0) {
        return backlog_.load() + batch.count <= settings_.capacity &&
               backlog_.load_bytes() + batch.bytes <= settings_.bytes;
    }
    return !over_high(batch.count, batch.bytes);
}

bool Flow::never_fits(const queue::Batch& batch) const noexcept {
    if (batch.count > settings_.capacity || batch.bytes > settings_.bytes) return true;
    for (const queue::Message& message : batch.messages) {
        if (message.body().size() > settings_.max_message) return true;
    }
    return false;
}

void Flow::hold(Nanos now, Nanos until) noexcept {
    if (!held_) held_since_ = now;
    held_ = true;
    held_until_ = until;
}

void Flow::end_hold(Nanos now) noexcept {
    held_ = false;
    held_until_ = 0;
    if (paused_) paused_since_ = now;
}

void Flow::give(WriteTicket& ticket, Nanos now) noexcept {
    ticket.since = now;
    ticket.held = true;
    credits_.push_back(ticket);
}

void Flow::release(WriteTicket& ticket) noexcept {
    if (!ticket.held) return;
    ticket.held = false;
    if (ticket.sync) {
        turn_ = nullptr;
        ticket.sync = false;
    } else {
        credits_.erase(credits_.iterator_to(ticket));
    }
}

void Flow::lapse(Nanos now) noexcept {
    while (credit_end() <= now) release(credits_.front());
}

}  // namespace ipcfs::channel
