// Any thread.
#include <algorithm>

#include <store/store.hpp>

#include <base/executor.hpp>
#include <channel/discipline.hpp>
#include <channel/duties.hpp>

namespace ipcfs::channel {

// Owns itself from the put until the commit thread has called it.
struct Commit final : store::Completion {
    Commit(std::shared_ptr<Channel> to, Batch&& all, WriteWaiter& by)
        : channel(std::move(to)), batch(std::move(all)), via(by.via), writer(&by) {}
    void durable(int error) noexcept override;

    std::shared_ptr<Channel> channel;
    // Under the channel's lock:
    Batch batch;
    Via via;
    WriteWaiter* writer;  // null: it was interrupted, and its messages are not wanted
};

namespace committing {
namespace {

void note_fault(Locked& locked, const Fault& fault) noexcept {
    try {
        locked->last_error = "store: " + fault.message();
    } catch (...) {
    }
}

Result<store::Lsn> keep(Locked& locked, Batch& batch) noexcept {
    if (locked->is_degraded) return Fault{EIO, "the channel is degraded"};
    writing::prepare(locked, batch);
    // A topic has it until its subscriptions have.
    auto kept = locked->keeper->append(batch, locked->discipline->first_place(), locked->epoch);
    if (!kept) note_fault(locked, kept.error());
    return kept;
}

void degrade(Locked& locked, int error) noexcept {
    note_fault(locked, Fault{error,
                             "what was written could not be made durable; `resume` in ctl "
                             "lets writers try again"});
    if (!std::exchange(locked->is_degraded, true)) locked.emit(State::kDegraded);
}

bool is_saved(const Batch& batch) noexcept {
    return std::all_of(batch.messages.begin(), batch.messages.end(), [](const Message& message) {
        return !message.payload || message.payload->is_saved;
    });
}

Result<void> save(store::Store& store, const Batch& batch, bool sync) {
    for (const Message& message : batch.messages) {
        payload::Payload* payload = message.payload.get();
        if (!payload || payload->is_saved) continue;
        if (payload->file() < 0) {
            return Fault{EOPNOTSUPP, "a payload that is filled on demand cannot be kept"};
        }
        auto saved = store.save_payload(payload->id, payload->file(), payload->offset(),
                                        payload->size, sync);
        if (!saved) return saved;
        payload->is_saved = true;
    }
    return {};
}

}  // namespace

Push keep_first(Locked& locked, Batch& batch) noexcept {
    switch (locked->keeper->needs(batch)) {
        case Keeper::Needs::kNothing: return Push::kQueued;
        case Keeper::Needs::kSync: return Push::kCommit;
        case Keeper::Needs::kAppend: break;
    }
    auto kept = keep(locked, batch);
    if (kept) return Push::kQueued;
    return kept.error().code == ENOSPC ? Push::kNoSpace : Push::kDiskFailed;
}

void stage(Locked& locked, WriteWaiter& writer) noexcept {
    auto kept = keep(locked, writer.batch);
    if (!kept) {
        return locked.finish(writer,
                             kept.error().code == ENOSPC ? Wake::kNoSpace : Wake::kDiskFailed);
    }
    auto commit = std::make_unique<Commit>(locked->channel.self(), std::move(writer.batch), writer);
    writer.parked = writer.is_staged = true;
    if (writer.via == Via::kQueueFile) ++locked->queue_file_writes;
    locked->backlog.stage(commit->batch);
    locked->commits.push_back(commit.get());
    locked->keeper->sync(*kept, *commit.release());
}

void stage_parked(Locked& locked, WriteWaiter& writer) noexcept {
    locked->waiters.writers.remove(writer);
    if (writer.via == Via::kQueueFile) --locked->queue_file_writes;  // counted again
    writer.parked = false;
    stage(locked, writer);
}

void unstage(Locked& locked, WriteWaiter& writer, Wake why) noexcept {
    for (Commit* commit : locked->commits) {
        if (commit->writer == &writer) commit->writer = nullptr;
    }
    writer.is_staged = false;
    locked.end_queue_file_write(writer);
    locked.finish(writer, why);
}

void unstage_all(Locked& locked, Wake why) noexcept {
    for (const Commit* commit : locked->commits) {
        if (commit->writer) unstage(locked, *commit->writer, why);
    }
}

Result<void> change_keeping(Locked& locked, const Settings& settings) {
    Core& core = *locked;
    const bool wants = settings.durable != Durable::kOff;
    if (wants && !core.env.store) {
        return Fault{EOPNOTSUPP,
                     "durable: this daemon keeps nothing; see store.kind in its "
                     "configuration"};
    }
    if (wants == core.is_kept) return {};
    if (!core.commits.empty()) return Fault{EBUSY, "durable: writes are on their way to the disk"};
    std::vector<MessageRef> all = core.backlog.everything();
    core.discipline->collect(all);
    if (!wants) {
        for (const MessageRef& message : all) core.keeper->forget(*message);
        return {};
    }
    auto keeper =
        std::make_unique<StoreKeeper>(*core.env.store, core.id, settings.durable,
                                      core.subscription != nullptr, core.keeper->last_key());
    auto adopted = keeper->adopt(std::move(all), core.epoch);
    if (adopted) {
        core.keeper = std::move(keeper);
    } else {
        core.keeper->note_key(keeper->last_key());
    }
    return adopted;
}

}  // namespace committing

void Commit::durable(int error) noexcept {
    const std::unique_ptr<Commit> self(this);
    const auto kept = channel;  // also while the lock is released
    Locked locked(kept->core());
    std::erase(locked->commits, this);
    locked->backlog.unstage(batch);
    if (error) committing::degrade(locked, error);
    if (writer && !locked->removed() && !error) {
        writing::enqueue(locked, batch, via);
        committing::unstage(locked, *writer, Wake::kServed);
        return writing::admit_more(locked);
    }
    while (MessageRef message = take_front(batch.messages)) {
        if (error) message->kept_sequence = 0;  // the store has none of it
        locked.discard(std::move(message));
    }
    batch.clear();
    if (writer) {
        committing::unstage(locked, *writer, error ? Wake::kDiskFailed : Wake::kRemoved);
    }
    writing::admit_waiters(locked);
}

// Large payloads are saved beside the store before the message is. That takes long, so a worker does it.
void Channel::push(WriteWaiter& waiter, WriteTicket* ticket) noexcept {
    Environment& env = core_.env;
    const auto durable = env.store && env.worker && !committing::is_saved(waiter.batch)
                             ? settings().durable
                             : Durable::kOff;
    if (durable == Durable::kOff) return push_now(waiter, ticket);
    // The waiter stays until it is finished, and with it the open file that has the turn.
    const uid_t sender = waiter.batch.messages.front().envelope.sender.uid;
    env.worker->add(sender, [kept = self(), &waiter, ticket, durable] {
        auto saved =
            committing::save(*kept->core_.env.store, waiter.batch, durable == Durable::kSync);
        if (saved) return kept->push_now(waiter, ticket);
        kept->note_error("store: " + saved.error().message());
        waiter.why = saved.error().code == ENOSPC ? Wake::kNoSpace : Wake::kDiskFailed;
        waiter.finish();
    });
}

// ---- after a restart ----------------------------------------------------------------------------

void Channel::restore_sequence(std::uint64_t last) noexcept {
    const Locked locked(core_);
    core_.keeper->note_key(last);
    if (!core_.subscription) core_.sequence = std::max(core_.sequence, last);
}

void Channel::restore_settings(const Settings& settings) noexcept {
    Locked locked(core_);
    apply(locked, settings);
}

void Channel::restore(MessageRef message, const store::Recovered& from, bool may_be_seen) noexcept {
    Locked locked(core_);
    Envelope& e = message->envelope;
    const bool taken = from.state.place == store::Place::kTaken;
    e.dead = from.state.place == store::Place::kDead;
    e.redelivered = from.state.redelivered || taken || may_be_seen;
    e.deliveries = from.state.deliveries;
    e.position = core_.backlog.new_position();
    message->kept_channel = from.key.channel;
    message->kept_sequence = from.key.sequence;
    core_.keeper->note_key(from.key.sequence);
    if (!core_.subscription) core_.sequence = std::max(core_.sequence, e.sequence);
    core_.epoch = locked.realtime() - locked.now();
    core_.last_arrival = std::max(core_.last_arrival, e.time);
    if (e.dead) return core_.backlog.dead.push_back(std::move(message));
    if (from.state.not_before > locked.realtime()) {
        const Nanos due = locked.now() + (from.state.not_before - locked.realtime());
        core_.backlog.leases.add(std::move(message), due, queue::Leases::kNobody);
        return locked.arm(due);
    }
    if (core_.backlog.note_expiry(e)) locked.arm(e.expires);
    core_.discipline->enqueue(std::move(message));
    writing::open_gate_if_due(locked);
    writing::pause_if_high(locked);
}

}  // namespace ipcfs::channel
