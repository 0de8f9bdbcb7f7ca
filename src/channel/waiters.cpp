// Under the lock of the channel that has it.
#include <algorithm>

#include <base/check.hpp>
#include <channel/waiters.hpp>

namespace ipcfs::channel {

using queue::ReadWaiter;
using queue::Waiter;
using queue::WaiterList;
using queue::WriteWaiter;

namespace {

void unlink(WaiterList& list, Waiter& waiter) {
    list.erase(list.iterator_to(waiter));
}

template <class W>
W* first_of(WaiterList& list) {
    return list.empty() ? nullptr : static_cast<W*>(&list.front());
}

}  // namespace

Waiters::~Waiters() {
    IPCFS_CHECK(readers_.empty() && dead_readers_.empty() && writers_.empty() &&
                enqueued_.empty() && openers_.empty());
    while (!polls_.empty()) {
        std::unique_ptr<PollTicket> ticket(&polls_.front());
        polls_.pop_front();
    }
}

void Waiters::park(ReadWaiter& reader) noexcept {
    reader.parked = true;
    if (reader.lane == Lane::kDead) return dead_readers_.push_back(reader);
    readers_.push_back(reader);
    ++reader_count_;
    leaser_count_ += reader.leases;
}

void Waiters::remove(ReadWaiter& reader) noexcept {
    if (reader.lane == Lane::kDead) return unlink(dead_readers_, reader);
    unlink(readers_, reader);
    --reader_count_;
    leaser_count_ -= reader.leases;
}

ReadWaiter* Waiters::first(Lane lane) noexcept {
    return first_of<ReadWaiter>(lane == Lane::kDead ? dead_readers_ : readers_);
}

void Waiters::park(WriteWaiter& writer) noexcept {
    writer.parked = true;
    writers_.push_back(writer);
    writer.urgent = writer.batch.critical;
    if (writer.urgent) ++critical_writers_;
}

void Waiters::remove(WriteWaiter& writer) noexcept {
    unlink(writer.enqueued ? enqueued_ : writers_, writer);
    if (!writer.enqueued && writer.urgent) --critical_writers_;
}

void Waiters::note_enqueued(WriteWaiter& writer) noexcept {
    remove(writer);
    enqueued_.push_back(writer);
    writer.enqueued = true;
}

WriteWaiter* Waiters::first_writer() noexcept {
    return first_of<WriteWaiter>(writers_);
}

Nanos Waiters::next_deadline() const noexcept {
    Nanos next = kNever;
    for (const WaiterList* list : {&writers_, &enqueued_}) {
        for (const Waiter& waiter : *list) {
            const auto& writer = static_cast<const WriteWaiter&>(waiter);
            if (!writer.cancelled) next = std::min(next, writer.deadline);
        }
    }
    return next;
}

void Waiters::park(OpenWaiter& opener) noexcept {
    opener.parked = true;
    critical_openers_ += opener.ticket->critical;
    openers_.push_back(opener);
}

void Waiters::remove(OpenWaiter& opener) noexcept {
    unlink(openers_, opener);
    critical_openers_ -= opener.ticket->critical;
}

OpenWaiter* Waiters::first_opener() noexcept {
    return first_of<OpenWaiter>(openers_);
}

std::unique_ptr<PollTicket> Waiters::replace(PollSlot& slot,
                                             std::unique_ptr<PollTicket> fresh) noexcept {
    std::unique_ptr<PollTicket> old(slot.ticket);
    if (old) polls_.erase(polls_.iterator_to(*old));
    slot.ticket = fresh.get();
    if (fresh) {
        fresh->slot = &slot;
        polls_.push_back(*fresh.release());
    }
    return old;
}

}  // namespace ipcfs::channel
