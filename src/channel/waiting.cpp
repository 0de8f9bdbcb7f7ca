// Pausing, the gate for opens, ending waits, poll. Any thread; every private function runs under the
// channel's lock.
#include <poll.h>

#include <channel/channel.hpp>
#include <channel/locked.hpp>
#include <channel/topic.hpp>

namespace ipcfs::channel {

using queue::ReadWaiter;
using queue::Waiter;
using queue::Wake;
using queue::WriteWaiter;

namespace {

constexpr unsigned kHangUp = ~0U;  // wakes every poll, whatever it asked for

}  // namespace

// ---- pausing and the gate -----------------------------------------------------------------------

void Channel::pause(Locked& locked) noexcept {
    paused_ = true;
    paused_since_ = locked.now();
    ++counters_.pauses;
    emit(locked, EventKind::kHigh, 255, 0, backlog_.size());
}

// After anything that makes room: resume at the low mark, let waiting writers and opens in, in
// turn.
void Channel::admit_waiters(Locked& locked) noexcept {
    if (held()) return;
    do {
        made_room_ = false;
        let_writers_in(locked);
    } while (made_room_);  // with them the gate of batches opened, and readers took more than came
    admit_openers(locked);
    if (!polls_.empty()) wake_polls(locked, POLLOUT);
}

// After something came.
void Channel::admit_more(Locked& locked) noexcept {
    if (made_room_) {
        admit_waiters(locked);
    } else {
        admit_openers(locked);
    }
}

void Channel::let_writers_in(Locked& locked) noexcept {
    const bool is_low = topic_ ? topic_->stuck == 0
                               : !blocks() || (backlog_.load() <= settings_.low_mark() &&
                                               backlog_.load_bytes() <= settings_.low_mark_bytes());
    if (paused_ && is_low) {
        paused_ = false;
        emit(locked, EventKind::kLow, 255, 0, backlog_.size());
    }
    if (subscription_) relieve(locked);
    while (!paused_ && !writers_.empty()) {
        auto& writer = static_cast<WriteWaiter&>(writers_.front());
        if (settings_.type == Type::kSync) {
            enqueue_sync(locked, writer);
            continue;
        }
        Push push = admit(locked, writer.batch, writer.via, true);
        if (push == Push::kWait) break;
        let_in(locked, writer, push);
    }
    // The reserve is for the critical ones, also of those that wait.
    for (auto at = writers_.begin(); critical_writers_ > 0 && at != writers_.end();) {
        auto& writer = static_cast<WriteWaiter&>(*at++);
        if (!writer.urgent) continue;
        Push push = admit(locked, writer.batch, writer.via, true);
        if (push != Push::kQueued && push != Push::kCommit) break;
        let_in(locked, writer, push);
    }
}

Gate Channel::try_gate(WriteTicket& ticket) noexcept {
    Locked locked(*this);
    if (removed_.load(std::memory_order_relaxed)) return Gate::kRemoved;
    if (held()) return Gate::kWait;
    if (ticket.critical && settings_.type != Type::kSync) {
        bool waits = blocks() && (critical_openers_ > 0 || !reserve_has_room());
        return waits ? Gate::kWait : Gate::kOpen;
    }
    if (!openers_.empty()) return Gate::kWait;
    if (settings_.type == Type::kSync) {
        if (sync_ticket_) return Gate::kWait;
        sync_ticket_ = &ticket;
        ticket.sync = ticket.held = true;
        return Gate::kOpen;
    }
    if (!blocks()) return Gate::kOpen;
    if (paused_) return Gate::kWait;
    lapse(locked);
    if (!write_tickets_.empty() &&
        backlog_.load() + write_tickets_.size() >= settings_.high_mark()) {
        return Gate::kWait;
    }
    ticket.since = locked.now();
    ticket.held = true;
    write_tickets_.push_back(ticket);
    return Gate::kOpen;
}

void Channel::gate(OpenWaiter& waiter, WriteTicket& ticket) noexcept {
    Locked locked(*this);
    if (removed_.load(std::memory_order_relaxed)) return locked.finish(waiter, Wake::kRemoved);
    if (down_) return locked.finish(waiter, Wake::kShutdown);
    if (waiter.cancelled) return locked.finish(waiter, Wake::kInterrupted);
    waiter.ticket = &ticket;
    waiter.parked = true;
    critical_openers_ += ticket.critical;
    openers_.push_back(waiter);
    admit_openers(locked);
    arm_all(locked);
}

void Channel::lapse(Locked& locked) noexcept {
    while (!write_tickets_.empty() && write_tickets_.front().since + kCreditLife <= locked.now()) {
        release(write_tickets_.front());
    }
}

void Channel::admit_openers(Locked& locked) noexcept {
    if (openers_.empty()) return;
    lapse(locked);
    // The reserve is for critical messages, whoever waits before them.
    bool reserve = settings_.type != Type::kSync && !held() && reserve_has_room();
    for (auto at = openers_.begin(); reserve && critical_openers_ > 0 && at != openers_.end();) {
        auto& opener = static_cast<OpenWaiter&>(*at++);
        if (!opener.ticket->critical) continue;
        unlink(openers_, opener);
        --critical_openers_;
        locked.finish(opener, Wake::kServed);
    }
    while (!openers_.empty() && !held()) {
        auto& opener = static_cast<OpenWaiter&>(openers_.front());
        WriteTicket& ticket = *opener.ticket;
        if (settings_.type == Type::kSync) {
            if (sync_ticket_) return;
            sync_ticket_ = &ticket;
            ticket.sync = ticket.held = true;
        } else if (blocks()) {
            if (paused_) return;
            if (!write_tickets_.empty() &&
                backlog_.load() + write_tickets_.size() >= settings_.high_mark()) {
                return arm(locked, write_tickets_.front().since + kCreditLife);
            }
            ticket.since = locked.now();
            ticket.held = true;
            write_tickets_.push_back(ticket);
        }
        openers_.pop_front();
        critical_openers_ -= ticket.critical;
        locked.finish(opener, Wake::kServed);
    }
}

void Channel::release(WriteTicket& ticket) noexcept {
    if (!ticket.held) return;
    ticket.held = false;
    if (ticket.sync) {
        sync_ticket_ = nullptr;
        ticket.sync = false;
    } else {
        write_tickets_.erase(write_tickets_.iterator_to(ticket));
    }
}

void Channel::leave(WriteTicket& ticket) noexcept {
    Locked locked(*this);
    release(ticket);
    admit_openers(locked);
}

// ---- ending waits -------------------------------------------------------------------------------

void Channel::cancel(ReadWaiter& waiter, Wake why) noexcept {
    Locked locked(*this);
    waiter.cancelled = true;
    if (!waiter.parked) return;
    if (waiter.lane == Lane::kDead) {
        unlink(dead_readers_, waiter);
    } else {
        unlink(readers_, waiter);
        --waiting_readers_;
        waiting_leasers_ -= waiter.leases;
    }
    locked.finish(waiter, why);
}

void Channel::cancel(WriteWaiter& waiter, Wake why) noexcept {
    Locked locked(*this);
    if (!waiter.parked) {
        waiter.cancelled = true;
        return;
    }
    if (waiter.enqueued) return withdraw(locked, waiter, why);
    if (waiter.is_staged) return unstage(locked, waiter, why);
    unpark(locked, waiter, why);
}

void Channel::cancel(OpenWaiter& waiter, Wake why) noexcept {
    Locked locked(*this);
    waiter.cancelled = true;
    if (!waiter.parked) return;
    unlink(openers_, waiter);
    critical_openers_ -= waiter.ticket->critical;
    locked.finish(waiter, why);
}

void Channel::end_all(Locked& locked, Wake why) noexcept {
    waiting_readers_ = waiting_leasers_ = 0;
    critical_openers_ = 0;
    for (queue::WaiterList* list : {&readers_, &dead_readers_, &openers_}) {
        while (!list->empty()) {
            Waiter& waiter = list->front();
            list->pop_front();
            locked.finish(waiter, why);
        }
    }
    while (!writers_.empty()) unpark(locked, static_cast<WriteWaiter&>(writers_.front()), why);
    for (auto at = sync_writers_.begin(); at != sync_writers_.end();) {
        withdraw(locked, static_cast<WriteWaiter&>(*at++), why);
    }
    end_staged(locked, why);
    wake_polls(locked, kHangUp);
}

// ---- type stream --------------------------------------------------------------------------------

std::uint64_t Channel::stream_since() const noexcept {
    std::scoped_lock hold(mutex_);
    return stream_closings_;
}

// As at a FIFO. What is left when nobody writes any more is read first.
bool Channel::stream_ended(const StreamView& view) const noexcept {
    return settings_.type == Type::kStream && !held() && backlog_.empty() && open_writers_ == 0 &&
           (stream_closings_ > view.since || view.has_read);
}

void Channel::end_stream(Locked& locked) noexcept {
    if (settings_.type != Type::kStream || open_writers_ > 0) return;
    for (auto at = readers_.begin(); at != readers_.end();) {
        auto& reader = static_cast<ReadWaiter&>(*at++);
        if (!reader.may_end || !stream_ended(reader.view)) continue;
        unlink(readers_, reader);
        --waiting_readers_;
        waiting_leasers_ -= reader.leases;
        locked.finish(reader, Wake::kEnded);
    }
}

bool Channel::opened(bool reads, bool writes) noexcept {
    Locked locked(*this);
    if (removed_.load(std::memory_order_relaxed)) return false;
    open_readers_ += reads;
    open_writers_ += writes;
    return true;
}

void Channel::closed(bool reads, bool writes) noexcept {
    Locked locked(*this);
    open_readers_ -= reads;
    open_writers_ -= writes;
    if (!writes || open_writers_ > 0 || settings_.type != Type::kStream) return;
    ++stream_closings_;
    if (backlog_.open_gate()) let_out(locked);
    admit_more(locked);
    end_stream(locked);
    wake_polls(locked, kHangUp);
}

// ---- poll ---------------------------------------------------------------------------------------

unsigned Channel::poll(PollSlot& slot, std::unique_ptr<PollTicket> fresh, bool critical, Lane lane,
                       const StreamView* view) noexcept {
    std::unique_ptr<PollTicket> old;
    Locked locked(*this);
    if (removed_.load(std::memory_order_relaxed)) return POLLIN | POLLOUT | POLLHUP;
    if (backlog_.may_expire() && readable() && drop_expired(locked) > 0) {
        admit_waiters(locked);
    }
    if (slot.ticket) {
        old.reset(slot.ticket);
        polls_.erase(polls_.iterator_to(*slot.ticket));
        slot.ticket = nullptr;
    }
    if (fresh) {
        fresh->slot = &slot;
        fresh->critical = critical;
        fresh->lane = lane;
        slot.ticket = fresh.get();
        polls_.push_back(*fresh.release());
    }
    if (lane == Lane::kDead) return !down_ && !backlog_.dead.empty() ? POLLIN : 0U;
    if (view && stream_ended(*view)) return POLLIN | POLLHUP;
    return (readable() ? POLLIN : 0U) | (writable(critical) ? POLLOUT : 0U);
}

void Channel::forget(PollSlot& slot) noexcept {
    std::unique_ptr<PollTicket> old;
    std::scoped_lock hold(mutex_);
    if (!slot.ticket) return;
    old.reset(slot.ticket);
    polls_.erase(polls_.iterator_to(*slot.ticket));
    slot.ticket = nullptr;
}

void Channel::wake_polls(Locked& locked, unsigned events, Lane lane) noexcept {
    for (auto at = polls_.begin(); at != polls_.end();) {
        PollTicket& ticket = *at++;
        unsigned wanted = ticket.events & events;
        if ((wanted & POLLOUT) && !writable(ticket.critical)) {
            wanted &= ~static_cast<unsigned>(POLLOUT);
        }
        if (events != kHangUp && (!wanted || ticket.lane != lane)) continue;
        polls_.erase(polls_.iterator_to(ticket));
        ticket.slot->ticket = nullptr;
        locked.effects.notify.push_back(ticket);
    }
}

}  // namespace ipcfs::channel
