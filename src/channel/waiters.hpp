// Who waits at a channel: readers for a message, writers for room or until their messages are taken, opens at
// the gate, polls. It counts them, and knows nothing of what they wait for. No lock of its own: the channel's is
// held around every call.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>

#include <boost/intrusive/list.hpp>

#include <base/check.hpp>
#include <channel/endpoint.hpp>
#include <queue/waiter.hpp>

namespace ipcfs::channel {

using PollTickets = boost::intrusive::list<PollTicket, boost::intrusive::constant_time_size<false>>;

// Those who wait for one thing, in turn, and how many of them have the flag.
template <class W, bool W::*kFlag>
class Line {
public:
    ~Line() { IPCFS_CHECK(list_.empty()); }
    void add(W& waiter) noexcept {
        waiter.parked = true;
        list_.push_back(waiter);
        ++size_;
        flagged_ += waiter.*kFlag;
    }
    void remove(W& waiter) noexcept {
        list_.erase(list_.iterator_to(waiter));
        --size_;
        flagged_ -= waiter.*kFlag;
    }
    W* first() noexcept { return list_.empty() ? nullptr : static_cast<W*>(&list_.front()); }
    bool empty() const noexcept { return list_.empty(); }
    std::uint32_t size() const noexcept { return size_; }
    std::uint32_t flagged() const noexcept { return flagged_; }
    // `use` may remove the waiter that it is given.
    template <class F>
    void for_each(F&& use) {
        for (auto at = list_.begin(); at != list_.end();) use(static_cast<W&>(*at++));
    }

private:
    queue::WaiterList list_;
    std::uint32_t size_ = 0, flagged_ = 0;
};

struct Waiters {
    using Readers = Line<queue::ReadWaiter, &queue::ReadWaiter::leases>;
    using Writers = Line<queue::WriteWaiter, &queue::WriteWaiter::urgent>;
    Readers readers, dead_readers;
    Writers writers;   // for room
    Writers enqueued;  // type sync: until their messages are taken
    Line<OpenWaiter, &OpenWaiter::critical> openers;
    PollTickets polls;

    ~Waiters() { polls.clear_and_dispose(std::default_delete<PollTicket>()); }
    Readers& line(Lane lane) noexcept { return lane == Lane::kDead ? dead_readers : readers; }
    Writers& line(const queue::WriteWaiter& writer) noexcept {
        return writer.enqueued ? enqueued : writers;
    }
    // Whether `count` messages would be taken for good at once, so that they need no room.
    bool can_take(std::uint64_t count) const noexcept {
        return readers.size() >= count && readers.flagged() == 0;
    }
    // Whether somebody is ahead of such a batch: critical ones pass the others, not their like.
    bool are_ahead_of(bool critical) const noexcept {
        return critical ? writers.flagged() > 0 : !writers.empty();
    }
    // The deadline of a writer that is next; kNever.
    Nanos next_deadline() noexcept {
        Nanos next = kNever;
        for (Writers* each : {&writers, &enqueued}) {
            each->for_each([&](const queue::WriteWaiter& writer) {
                if (!writer.cancelled) next = std::min(next, writer.deadline);
            });
        }
        return next;
    }
    // Puts `fresh`, if any, into the slot. What was there is the caller's, to be freed without the lock.
    std::unique_ptr<PollTicket> replace(PollSlot& slot,
                                        std::unique_ptr<PollTicket> fresh) noexcept {
        std::unique_ptr<PollTicket> old(slot.ticket);
        if (old) polls.erase(polls.iterator_to(*old));
        slot.ticket = fresh.get();
        if (fresh) {
            fresh->slot = &slot;
            polls.push_back(*fresh.release());
        }
        return old;
    }
};

}  // namespace ipcfs::channel
