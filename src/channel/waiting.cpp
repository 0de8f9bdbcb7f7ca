// Pausing, the gate for opens, ending waits, poll. Any thread; every private function runs under the
// channel's lock.
#include <poll.h>

#include <channel/channel.hpp>
#include <channel/discipline.hpp>
#include <channel/locked.hpp>

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
    flow_.pause(locked.now());
    ++counters_.pauses;
    emit(locked, EventKind::kHigh, 255, 0, backlog_.size());
}

// After anything that makes room: resume at the low mark, let waiting writers and opens in, in
// turn.
void Channel::admit_waiters(Locked& locked) noexcept {
    if (flow_.held()) return;
    do {
        made_room_ = false;
        let_writers_in(locked);
    } while (made_room_);  // with them the gate of batches opened, and readers took more than came
    admit_openers(locked);
    if (waiters_.has_polls()) wake_polls(locked, POLLOUT);
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
    if (flow_.paused() && discipline_->is_low()) {
        flow_.resume();
        emit(locked, EventKind::kLow, 255, 0, backlog_.size());
    }
    if (subscription_) relieve(locked);
    while (!flow_.paused()) {
        WriteWaiter* const writer = waiters_.first_writer();
        if (!writer) break;
        const Push push = admit(locked, writer->batch, writer->via, true);
        if (push != Push::kWait) {
            let_in(locked, *writer, push);
        } else if (discipline_->meets()) {
            enqueue_sync(locked, *writer);
        } else {
            break;
        }
    }
    // The reserve is for the critical ones, also of those that wait.
    if (!waiters_.has_critical_writers()) return;
    bool has_room = true;
    waiters_.for_each_writer([&](WriteWaiter& writer) {
        if (!writer.urgent || !has_room) return;
        const Push push = admit(locked, writer.batch, writer.via, true);
        has_room = push == Push::kQueued || push == Push::kCommit;
        if (has_room) let_in(locked, writer, push);
    });
}

Gate Channel::try_gate(WriteTicket& ticket) noexcept {
    Locked locked(*this);
    if (removed_.load(std::memory_order_relaxed)) return Gate::kRemoved;
    if (flow_.held()) return Gate::kWait;
    if (ticket.critical && !discipline_->meets()) {
        const bool waits =
            discipline_->blocks() && (waiters_.has_critical_openers() || !flow_.reserve_has_room());
        return waits ? Gate::kWait : Gate::kOpen;
    }
    if (waiters_.has_openers()) return Gate::kWait;
    if (discipline_->meets()) {
        if (!flow_.turn_is_free()) return Gate::kWait;
        flow_.give_turn(ticket);
        return Gate::kOpen;
    }
    if (!discipline_->blocks()) return Gate::kOpen;
    if (flow_.paused()) return Gate::kWait;
    flow_.lapse(locked.now());
    if (!flow_.has_credit()) return Gate::kWait;
    flow_.give(ticket, locked.now());
    return Gate::kOpen;
}

void Channel::gate(OpenWaiter& waiter, WriteTicket& ticket) noexcept {
    Locked locked(*this);
    if (removed_.load(std::memory_order_relaxed)) return locked.finish(waiter, Wake::kRemoved);
    if (flow_.down()) return locked.finish(waiter, Wake::kShutdown);
    if (waiter.cancelled) return locked.finish(waiter, Wake::kInterrupted);
    waiter.ticket = &ticket;
    waiters_.park(waiter);
    admit_openers(locked);
    arm_all(locked);
}

void Channel::admit_openers(Locked& locked) noexcept {
    if (!waiters_.has_openers()) return;
    flow_.lapse(locked.now());
    const auto admit = [&](OpenWaiter& opener) {
        waiters_.remove(opener);
        locked.finish(opener, Wake::kServed);
    };
    // The reserve is for critical messages, whoever waits before them.
    if (!discipline_->meets() && !flow_.held() && flow_.reserve_has_room() &&
        waiters_.has_critical_openers()) {
        waiters_.for_each_opener([&](OpenWaiter& opener) {
            if (opener.ticket->critical) admit(opener);
        });
    }
    while (waiters_.has_openers() && !flow_.held()) {
        OpenWaiter& opener = *waiters_.first_opener();
        if (discipline_->meets()) {
            if (!flow_.turn_is_free()) return;
            flow_.give_turn(*opener.ticket);
        } else if (discipline_->blocks()) {
            if (flow_.paused()) return;
            if (!flow_.has_credit()) return arm(locked, flow_.credit_end());
            flow_.give(*opener.ticket, locked.now());
        }
        admit(opener);
    }
}

void Channel::leave(WriteTicket& ticket) noexcept {
    Locked locked(*this);
    flow_.take_back(ticket);
    admit_openers(locked);
}

// ---- ending waits -------------------------------------------------------------------------------

void Channel::cancel(ReadWaiter& waiter, Wake why) noexcept {
    Locked locked(*this);
    waiter.cancelled = true;
    if (!waiter.parked) return;
    waiters_.remove(waiter);
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
    waiters_.remove(waiter);
    locked.finish(waiter, why);
}

void Channel::end_all(Locked& locked, Wake why) noexcept {
    const auto end = [&](auto& waiter) {
        waiters_.remove(waiter);
        locked.finish(waiter, why);
    };
    for (const Lane lane : {Lane::kMain, Lane::kDead}) {
        while (ReadWaiter* const reader = waiters_.first(lane)) end(*reader);
    }
    while (OpenWaiter* const opener = waiters_.first_opener()) end(*opener);
    while (WriteWaiter* const writer = waiters_.first_writer()) unpark(locked, *writer, why);
    waiters_.for_each_enqueued([&](WriteWaiter& writer) { withdraw(locked, writer, why); });
    end_staged(locked, why);
    wake_polls(locked, kHangUp);
}

// ---- type stream --------------------------------------------------------------------------------

std::uint64_t Channel::stream_since() const noexcept {
    std::scoped_lock hold(mutex_);
    return discipline_->closings();
}

void Channel::end_stream(Locked& locked) noexcept {
    if (open_writers_ > 0) return;
    waiters_.for_each_reader([&](ReadWaiter& reader) {
        if (!reader.may_end || !discipline_->has_ended(reader.view)) return;
        waiters_.remove(reader);
        locked.finish(reader, Wake::kEnded);
    });
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
    if (!writes || open_writers_ > 0 || !discipline_->last_writer_closed()) return;
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
    if (fresh) {
        fresh->critical = critical;
        fresh->lane = lane;
    }
    old = waiters_.replace(slot, std::move(fresh));
    if (lane == Lane::kDead) return !flow_.down() && !backlog_.dead.empty() ? POLLIN : 0U;
    if (view && discipline_->has_ended(*view)) return POLLIN | POLLHUP;
    return (readable() ? POLLIN : 0U) | (writable(critical) ? POLLOUT : 0U);
}

void Channel::forget(PollSlot& slot) noexcept {
    std::unique_ptr<PollTicket> old;
    std::scoped_lock hold(mutex_);
    old = waiters_.replace(slot, nullptr);
}

void Channel::wake_polls(Locked& locked, unsigned events, Lane lane) noexcept {
    waiters_.wake(locked.effects.notify, [&](const PollTicket& ticket) {
        if (events == kHangUp) return true;
        unsigned wanted = ticket.events & events;
        if ((wanted & POLLOUT) && !writable(ticket.critical)) {
            wanted &= ~static_cast<unsigned>(POLLOUT);
        }
        return wanted && ticket.lane == lane;
    });
}

}  // namespace ipcfs::channel
