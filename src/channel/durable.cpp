// Of durable channels, what concerns their writers: a write is let in at once, or in two steps: staged (put into
// the store, and waiting for the disk) and, on the store's commit thread, enqueued. And what changes when the
// setting does, and at a restart. Any thread; every private function runs under the channel's lock.
#include <algorithm>

#include <store/store.hpp>

#include <channel/channel.hpp>
#include <channel/discipline.hpp>
#include <channel/locked.hpp>

namespace ipcfs::channel {

using queue::Batch;
using queue::Message;
using queue::MessageRef;
using queue::Wake;
using queue::WriteWaiter;

// Owns itself from the put until the commit thread has called it.
struct Channel::Commit final : store::Completion {
    Commit(std::shared_ptr<Channel> to, Batch&& all, WriteWaiter& by)
        : channel(std::move(to)), batch(std::move(all)), via(by.via), writer(&by) {}
    void durable(int error) noexcept override {
        std::unique_ptr<Commit> self(this);
        auto of = channel;
        of->committed(*this, error);
    }

    std::shared_ptr<Channel> channel;
    // Under the channel's lock:
    Batch batch;
    queue::Via via;
    WriteWaiter* writer;  // null: it was interrupted, and its messages are not wanted
};

std::unique_ptr<Keeper> Channel::make_keeper(Durable durable) const {
    const std::uint64_t last = keeper_ ? keeper_->last_key() : 0;
    if (durable == Durable::kOff || !env_.store) return std::make_unique<NoKeeper>(last);
    return std::make_unique<StoreKeeper>(*env_.store, id_, durable, subscription_ != nullptr, last);
}

Push Channel::keep_first(Locked& locked, Batch& batch) noexcept {
    if (!is_kept_) return Push::kQueued;
    switch (keeper_->needs(batch)) {
        case Keeper::Needs::kNothing: return Push::kQueued;
        case Keeper::Needs::kSync: return Push::kCommit;
        case Keeper::Needs::kAppend: break;
    }
    auto kept = keep(locked, batch);
    if (kept) return Push::kQueued;
    return kept.error().code == ENOSPC ? Push::kNoSpace : Push::kDiskFailed;
}

Result<store::Lsn> Channel::keep(Locked& locked, Batch& batch) noexcept {
    if (is_degraded_) return Fault{EIO, "the channel is degraded"};
    stamp(locked, batch);
    // A topic has it until its subscriptions have.
    auto kept = keeper_->append(batch, discipline_->first_place(), epoch_);
    if (!kept) note_store_fault(kept.error());
    return kept;
}

void Channel::note_store_fault(const Fault& fault) noexcept {
    try {
        last_error_ = "store: " + fault.message();
    } catch (...) {
    }
}

void Channel::stage(Locked& locked, WriteWaiter& writer) noexcept {
    auto kept = keep(locked, writer.batch);
    if (!kept) {
        return locked.finish(writer,
                             kept.error().code == ENOSPC ? Wake::kNoSpace : Wake::kDiskFailed);
    }
    auto commit = std::make_unique<Commit>(shared_from_this(), std::move(writer.batch), writer);
    writer.parked = writer.is_staged = true;
    if (writer.via == queue::Via::kQueueFile) ++queue_file_writes_;
    backlog_.stage(commit->batch);
    commits_.push_back(commit.get());
    keeper_->sync(*kept, *commit.release());
}

// A write that waited for room.
void Channel::let_in(Locked& locked, WriteWaiter& writer, Push push) noexcept {
    if (push != Push::kCommit) return unpark(locked, writer, ending_of(push));
    waiters_.remove(writer);
    if (writer.via == queue::Via::kQueueFile) --queue_file_writes_;  // stage() counts it again
    writer.parked = false;
    stage(locked, writer);
}

// Whoever waits gets its answer at once; what is on its way to the disk is taken back when it is there.
void Channel::unstage(Locked& locked, WriteWaiter& writer, Wake why) noexcept {
    for (Commit* commit : commits_) {
        if (commit->writer == &writer) commit->writer = nullptr;
    }
    writer.is_staged = false;
    end_queue_file_write(locked, writer);
    locked.finish(writer, why);
}

void Channel::end_staged(Locked& locked, Wake why) noexcept {
    for (const Commit* commit : commits_) {
        if (commit->writer) unstage(locked, *commit->writer, why);
    }
}

void Channel::committed(Commit& commit, int error) noexcept {
    Locked locked(*this);
    std::erase(commits_, &commit);
    backlog_.unstage(commit.batch);
    WriteWaiter* writer = commit.writer;
    bool wanted = writer && !removed_.load(std::memory_order_relaxed);
    if (error) degrade(locked, error);
    if (wanted && !error) {
        enqueue(locked, commit.batch, commit.via, nullptr);
        unstage(locked, *writer, Wake::kServed);
        return admit_more(locked);
    }
    while (MessageRef message = take_front(commit.batch.messages)) {
        if (error) message->kept_sequence = 0;  // the store has none of it
        keeper_->gone(*message);
        locked.discard(std::move(message));
    }
    commit.batch.clear();
    if (writer) unstage(locked, *writer, error ? Wake::kDiskFailed : Wake::kRemoved);
    admit_waiters(locked);
}

void Channel::degrade(Locked& locked, int error) noexcept {
    note_store_fault(Fault{error,
                           "what was written could not be made durable; `resume` in ctl "
                           "lets writers try again"});
    if (is_degraded_) return;
    is_degraded_ = true;
    emit(locked, EventKind::kState, 255, 0, static_cast<std::uint64_t>(State::kDegraded));
}

// ---- the setting changes ------------------------------------------------------------------------

Result<void> Channel::change_keeping(const Settings& settings) {
    const bool wants = settings.durable != Durable::kOff;
    if (wants && !env_.store) {
        return Fault{EOPNOTSUPP,
                     "durable: this daemon keeps nothing; see store.kind in its "
                     "configuration"};
    }
    if (wants == (keeper_->durable() != Durable::kOff)) return {};
    std::vector<MessageRef> all = backlog_.everything();
    discipline_->collect(all);
    if (wants) {
        auto keeper = std::make_unique<StoreKeeper>(*env_.store, id_, settings.durable,
                                                    subscription_ != nullptr, keeper_->last_key());
        if (auto adopted = keeper->adopt(std::move(all), epoch_); !adopted) {
            keeper_->note_key(keeper->last_key());
            return adopted;
        }
        keeper_ = std::move(keeper);
        return {};
    }
    if (!commits_.empty()) return Fault{EBUSY, "durable: writes are on their way to the disk"};
    for (const MessageRef& message : all) keeper_->forget(*message);
    return {};
}

// ---- after a restart ----------------------------------------------------------------------------

void Channel::restore_sequence(std::uint64_t last) noexcept {
    Locked locked(*this);
    keeper_->note_key(last);
    if (!subscription_) sequence_ = std::max(sequence_, last);
}

void Channel::restore_settings(const Settings& settings) noexcept {
    Locked locked(*this);
    apply(locked, settings);
}

void Channel::restore(MessageRef message, const store::Recovered& from, bool may_be_seen) noexcept {
    Locked locked(*this);
    queue::Envelope& e = message->envelope;
    const bool taken = from.state.place == store::Place::kTaken;
    e.dead = from.state.place == store::Place::kDead;
    e.redelivered = from.state.redelivered || taken || may_be_seen;
    e.deliveries = from.state.deliveries;
    e.place = backlog_.new_place();
    message->kept_channel = from.key.channel;
    message->kept_sequence = from.key.sequence;
    keeper_->note_key(from.key.sequence);
    if (!subscription_) sequence_ = std::max(sequence_, e.sequence);
    epoch_ = locked.realtime() - locked.now();
    last_arrival_ = std::max(last_arrival_, e.time);
    if (e.dead) return backlog_.dead.push_back(std::move(message));
    if (from.state.not_before > locked.realtime()) {
        const Nanos due = locked.now() + (from.state.not_before - locked.realtime());
        backlog_.delayed.add(std::move(message), due);
        return arm(locked, due);
    }
    mind_expiry(locked, e);
    backlog_.add(std::move(message));
    gather(locked);
    pause_if_high(locked);
}

}  // namespace ipcfs::channel
