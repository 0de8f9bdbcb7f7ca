// What a type of channel decides, one file a type in discipline/: whether a write may enter, where it goes, what a
// writer and a reader may wait for, and when a reader's stream ends. What is not overridden here is as for type
// queue. A new type is a file with its class and a row in types.hpp. All of it runs under the lock of
// the channel that it belongs to.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include <base/result.hpp>
#include <channel/core.hpp>

namespace ipcfs::channel {

class Locked;

class Discipline {
public:
    explicit Discipline(Core& core) : type(core.settings.type), core_(core) {}
    virtual ~Discipline() = default;
    Discipline(const Discipline&) = delete;
    Discipline& operator=(const Discipline&) = delete;

    const Type type;

    // ---- writing ----
    enum class Admission : std::uint8_t {
        kEnter,     // it may enter now
        kTake,      // the same, but it is kept nowhere: readers take all of it now
        kRefused,   // it cannot go here; the channel's last error says why
        kWait,      // others are ahead, or there is no room
        kPause,     // there is no room: everybody waits for the low mark
        kOverflow,  // there is no room, and nobody waits for that: the setting `overflow` decides
    };
    // Of a batch within the bounds. `was_waiting`: its writer was parked, and is the next.
    virtual Admission admit(Locked& locked, const queue::Batch& batch, bool was_waiting) noexcept;
    // Where a message that may enter goes. One batch, prepared and counted: true when it was dealt with,
    // false when each of it is to be put into the queue, by enqueue().
    virtual bool deliver(Locked&, queue::Batch&, queue::Via) noexcept { return false; }
    virtual void enqueue(queue::MessageRef message) { core_.backlog.add(std::move(message)); }
    // Where the store has what is appended before deliver().
    virtual store::Place first_place() const noexcept { return store::Place::kQueued; }
    // Whether writers wait where there is no room.
    virtual bool blocks() const noexcept { return core_.settings.overflow == Overflow::kBlock; }
    // Whether the low mark is reached, so that a pause is over.
    virtual bool is_low() const noexcept { return !blocks() || core_.flow.at_low(); }
    // Whether a writer that waits is let in at once, and waits until its messages are taken. Then opens for
    // writing take turns, and nothing pauses.
    virtual bool is_rendezvous() const noexcept { return false; }
    // POLLOUT.
    virtual bool is_writable(bool critical) const noexcept;

    // ---- reading ----
    // Whether a reader's file has come to its end; see StreamView.
    virtual bool has_ended(const StreamView&) const noexcept { return false; }
    virtual std::uint64_t closings() const noexcept { return 0; }
    // The last writer has closed. Whether readers may have come to the end.
    virtual bool last_writer_closed() noexcept { return false; }

    // ---- what it has beside the backlog ----
    virtual bool is_idle() const noexcept { return true; }  // nothing, and nobody takes part
    virtual Result<void> may_be_removed() const { return {}; }
    virtual void end(Locked&) noexcept {}
    virtual void shut_down(Locked&) noexcept {}
    virtual void settings_changed(Locked&) noexcept {}
    // Drops its messages. How many.
    virtual std::uint64_t purge(Locked&) noexcept { return 0; }
    virtual void collect(std::vector<queue::MessageRef>&) const {}
    virtual void describe(Snapshot&) const noexcept {}

protected:
    // Where overflow is block: whether others are ahead, or the low mark has to be reached first.
    bool has_to_wait(const queue::Batch& batch, bool was_waiting) const noexcept;

    Core& core_;
};

std::unique_ptr<Discipline> make_discipline(Core& core);

// One for each file in discipline/.
#define IPCFS_ROW(value, name, make) std::unique_ptr<Discipline> make(Core& core);
IPCFS_CHANNEL_TYPES(IPCFS_ROW)
#undef IPCFS_ROW

}  // namespace ipcfs::channel
