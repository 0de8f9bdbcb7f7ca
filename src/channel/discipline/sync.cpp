// Type sync: a write ends when its messages are taken. Opens for writing take turns; a nonblocking write needs
// readers that wait.
#include <base/check.hpp>
#include <channel/discipline.hpp>
#include <channel/duties.hpp>

namespace ipcfs::channel {

namespace {

class Sync final : public Discipline {
public:
    using Discipline::Discipline;
    Admission admit(Locked&, const Batch& batch, bool) noexcept override {
        const bool is_taken = batch.is_nonblocking && core_.backlog.empty() &&
                              core_.waiters.readers.size() >= batch.count;
        return is_taken ? Admission::kTake : Admission::kWait;
    }
    bool is_rendezvous() const noexcept override { return true; }
    bool is_writable(bool) const noexcept override { return !core_.waiters.readers.empty(); }
};

}  // namespace

namespace rendezvous {

void enter(Locked& locked, WriteWaiter& writer) noexcept {
    locked->waiters.writers.remove(writer);
    writer.enqueued = true;
    locked->waiters.enqueued.add(writer);
    writer.deadline = locked.now() + locked->settings.timeout;
    locked.arm(writer.deadline);
    writing::enqueue(locked, writer.batch, writer.via, &writer);
}

void resolve(Locked& locked, WriteWaiter& writer, Wake why) noexcept {
    IPCFS_CHECK(writer.unresolved > 0);
    writer.why = why;
    if (--writer.unresolved == 0) writing::unpark(locked, writer, why);
}

void withdraw(Locked& locked, WriteWaiter& writer, Wake why) noexcept {
    std::uint64_t queued = writer.unresolved - writer.in_flight;
    if (!writer.cancelled) writer.ending = why;
    writer.cancelled = true;  // what is in readers' hands does not come back to the queue
    if (queued == 0) return;  // and what becomes of it decides
    writer.why = why;
    locked->backlog.for_each([&](Message& message) {
        if (message.writer == &writer) {
            ++locked->counters.withdrawn;
            message.writer = nullptr;
            locked.discard(locked->backlog.remove(message));
            if (--queued == 0) return false;
        }
        return true;
    });
    writer.unresolved = writer.in_flight;
    if (writer.unresolved == 0) writing::unpark(locked, writer, why);
}

}  // namespace rendezvous

std::unique_ptr<Discipline> make_sync(Core& core) {
    return std::make_unique<Sync>(core);
}

}  // namespace ipcfs::channel
