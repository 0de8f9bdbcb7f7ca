// Who waits at a channel: readers for a message, writers for room or until their messages are taken, opens at
// the gate, polls. It counts them, and knows nothing of what they wait for. No lock of its own: the channel's is
// held around every call.
#pragma once

#include <cstdint>
#include <memory>

#include <boost/intrusive/list.hpp>

#include <channel/endpoint.hpp>
#include <queue/waiter.hpp>

namespace ipcfs::channel {

using PollTickets = boost::intrusive::list<PollTicket, boost::intrusive::constant_time_size<false>>;

class Waiters {
public:
    Waiters() = default;
    Waiters(const Waiters&) = delete;
    Waiters& operator=(const Waiters&) = delete;
    ~Waiters();  // all but polls have ended

    // ---- readers, each in the lane that it names ----
    void park(queue::ReadWaiter& reader) noexcept;
    void remove(queue::ReadWaiter& reader) noexcept;
    bool has_readers() const noexcept { return !readers_.empty(); }
    std::uint64_t readers() const noexcept { return reader_count_; }
    std::uint64_t dead_readers() const noexcept { return dead_readers_.size(); }
    // Whether `count` messages would be taken for good at once, so that they need no room.
    bool can_take(std::uint64_t count) const noexcept {
        return reader_count_ >= count && leaser_count_ == 0;
    }
    // Null when nobody waits there.
    queue::ReadWaiter* first(Lane lane) noexcept;
    // Calls use(reader) for each that waits for a message; it may remove it.
    template <class F>
    void for_each_reader(F&& use) {
        each<queue::ReadWaiter>(readers_, use);
    }

    // ---- writers: they wait for room, and on type sync, once enqueued, until they are done ----
    void park(queue::WriteWaiter& writer) noexcept;
    void remove(queue::WriteWaiter& writer) noexcept;
    void note_enqueued(queue::WriteWaiter& writer) noexcept;
    bool has_writers() const noexcept { return !writers_.empty(); }
    // Of those that wait for room, the ones with critical messages only.
    bool has_critical_writers() const noexcept { return critical_writers_ > 0; }
    // Whether somebody is ahead of such a batch: critical ones pass the others, not their like.
    bool are_ahead_of(bool critical) const noexcept {
        return critical ? critical_writers_ > 0 : !writers_.empty();
    }
    std::uint64_t writers() const noexcept {
        return writers_.size() + enqueued_.size() + openers_.size();
    }
    queue::WriteWaiter* first_writer() noexcept;  // for room
    template <class F>
    void for_each_writer(F&& use) {  // for room
        each<queue::WriteWaiter>(writers_, use);
    }
    template <class F>
    void for_each_enqueued(F&& use) {
        each<queue::WriteWaiter>(enqueued_, use);
    }
    // The deadline of a writer that is next; kNever.
    Nanos next_deadline() const noexcept;

    // ---- opens at the gate ----
    void park(OpenWaiter& opener) noexcept;
    void remove(OpenWaiter& opener) noexcept;
    bool has_openers() const noexcept { return !openers_.empty(); }
    bool has_critical_openers() const noexcept { return critical_openers_ > 0; }
    OpenWaiter* first_opener() noexcept;
    template <class F>
    void for_each_opener(F&& use) {
        each<OpenWaiter>(openers_, use);
    }

    // ---- polls ----
    // Puts `fresh`, if any, into the slot. What was there is the caller's, to be freed without the lock.
    std::unique_ptr<PollTicket> replace(PollSlot& slot, std::unique_ptr<PollTicket> fresh) noexcept;
    bool has_polls() const noexcept { return !polls_.empty(); }
    // Moves those for which `is_due(ticket)` to `notify`.
    template <class F>
    void wake(PollTickets& notify, F&& is_due) {
        for (auto at = polls_.begin(); at != polls_.end();) {
            PollTicket& ticket = *at++;
            if (!is_due(ticket)) continue;
            polls_.erase(polls_.iterator_to(ticket));
            ticket.slot->ticket = nullptr;
            notify.push_back(ticket);
        }
    }

private:
    template <class W, class F>
    static void each(queue::WaiterList& list, F&& use) {
        for (auto at = list.begin(); at != list.end();) use(static_cast<W&>(*at++));
    }

    queue::WaiterList readers_, dead_readers_, writers_, enqueued_, openers_;
    PollTickets polls_;
    std::uint64_t reader_count_ = 0;
    std::uint64_t leaser_count_ = 0;  // of readers_, those that take on lease
    std::uint64_t critical_writers_ = 0, critical_openers_ = 0;
};

}  // namespace ipcfs::channel
