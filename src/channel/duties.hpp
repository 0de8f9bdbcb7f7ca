// What is done with a channel, by duty: a namespace each, and a file of that name (rendezvous: discipline/sync.cpp). No
// function here has a lock of its own: each runs under the channel's lock, which `locked` holds. Private to src/channel.
#pragma once

#include <channel/locked.hpp>

namespace ipcfs::channel {

// Letting messages in, and who waits for that.
namespace writing {

// On kQueued the batch has entered, or was dropped as the settings say. `was_waiting`: its writer was parked, and is
// the next.
Push admit(Locked& locked, Batch& batch, Via via, bool was_waiting) noexcept;
// Gives messages their numbers and times, once.
void prepare(Locked& locked, Batch& batch) noexcept;
// A batch that may enter. `waiter`, if any, waits until its messages are taken.
void enqueue(Locked& locked, Batch& batch, Via via, WriteWaiter* waiter = nullptr) noexcept;
// Lets out what the batch gate has, if it is time. Whether it did.
bool open_gate_if_due(Locked& locked) noexcept;
// After the gate was opened: true.
bool gate_opened(Locked& locked) noexcept;

void pause(Locked& locked) noexcept;
void pause_if_high(Locked& locked) noexcept;

// Ends a writer that waits.
void unpark(Locked& locked, WriteWaiter& writer, Wake why) noexcept;
// After anything that makes room: resumes at the low mark, lets waiting writers and opens in, in turn.
void admit_waiters(Locked& locked) noexcept;
void admit_openers(Locked& locked) noexcept;
// After something came.
void admit_more(Locked& locked) noexcept;

}  // namespace writing

// Taking messages out: by readers and by time.
namespace reading {

// The next message for a reader with `room` for its extensions and body; null when there is none. On
// lease if `lease`. Admits whoever waits for room.
MessageRef take(Locked& locked, std::uint64_t room, Leased* lease = nullptr,
                pid_t holder = 0) noexcept;
// Messages may have become readable: whoever waits for one.
void offer(Locked& locked) noexcept;
void serve_dead(Locked& locked) noexcept;
// The only message of a batch, straight to the reader that waits for it. Whether there is one.
bool hand_over(Locked& locked, MessageRef& message) noexcept;

// A message that is lost; a writer that waits for it ends with `why`. The caller admits whoever waits for room.
void drop(Locked& locked, MessageRef message, Wake why) noexcept;
// What is over: in front, or `all`. How many. The caller admits whoever waits for room.
std::uint64_t drop_expired(Locked& locked, bool all = false) noexcept;
// Everything, the dead letters too; the leases are over.
void purge(Locked& locked) noexcept;

}  // namespace reading

// Leases, and where a message goes that was not acknowledged: back into its line, into it later, or among the dead
// letters.
namespace leasing {

// Of a message that was just taken.
Leased begin(Locked& locked, const MessageRef& message, pid_t holder);
// Back to where it was in line. The caller calls after_requeue().
void requeue(Locked& locked, MessageRef message) noexcept;
void after_requeue(Locked& locked) noexcept;
// Ends the leases and delays whose time has come.
void run(Locked& locked) noexcept;
// All dead letters to the back of the queue, as if they had just come, whatever the bounds say.
void redrive(Locked& locked) noexcept;

}  // namespace leasing

// Of durable channels, what concerns their writers: a write is let in at once, or in two steps: staged (put into the
// store, and waiting for the disk) and, on the store's commit thread, enqueued.
namespace committing {

// Before a batch enters the queue of a durable channel. kQueued: it may.
Push keep_first(Locked& locked, Batch& batch) noexcept;
// A writer that keep_first() answered kCommit.
void stage(Locked& locked, WriteWaiter& writer) noexcept;
void stage_parked(Locked& locked, WriteWaiter& writer) noexcept;
// Answers a staged writer. Its messages, which are on their way to the disk, are taken back when they are there.
void unstage(Locked& locked, WriteWaiter& writer, Wake why) noexcept;
void unstage_all(Locked& locked, Wake why) noexcept;
// The setting `durable` is to be as in `settings`: what is queued goes into the store, or out of it.
Result<void> change_keeping(Locked& locked, const Settings& settings);

}  // namespace committing

// Writers that wait until their messages are taken, as those of type sync do.
namespace rendezvous {

// A writer that waited for room waits to be taken now.
void enter(Locked& locked, WriteWaiter& writer) noexcept;
// One of its messages is taken or lost. It ends with `why` when none is left anywhere.
void resolve(Locked& locked, WriteWaiter& writer, Wake why) noexcept;
// Takes its messages back, and ends it with `why` once readers have none of them in their hands.
void withdraw(Locked& locked, WriteWaiter& writer, Wake why) noexcept;

}  // namespace rendezvous

}  // namespace ipcfs::channel
