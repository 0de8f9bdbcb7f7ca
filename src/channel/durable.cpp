// Keeping the messages of a durable channel. What enters the queue is put into the store first; what a
// reader takes is marked before it gets it, and erased when it has it; so whatever dies, a message is
// there again or was delivered, and what may have been seen says so. With `durable sync` a write is let
// in in two steps: staged (put, and waiting for the disk) and, on the store's commit thread, enqueued.
// Any thread; every private function runs under the channel's lock.
#include <algorithm>

#include <boost/container/small_vector.hpp>
#include <store/store.hpp>

#include <channel/channel.hpp>
#include <channel/locked.hpp>
#include <channel/records.hpp>
#include <channel/topic.hpp>

namespace ipcfs::channel {

using queue::Batch;
using queue::Message;
using queue::MessageRef;
using queue::Wake;
using queue::WriteWaiter;

namespace {

store::Key key_of(const Message& message) {
    return {message.kept_channel, message.kept_sequence};
}

store::State state_of(const Message& message, store::Place place) {
    return {place, message.envelope.redelivered, message.envelope.deliveries, 0};
}

store::Put put_of(const Message& message, store::Key key, const Head& head, store::Place place) {
    store::Put put;
    put.key = key;
    put.state = state_of(message, place);
    put.head = head;
    put.content = message.content();
    put.payload = message.payload ? message.payload->id : 0;
    return put;
}

}  // namespace

void Lingering::add(std::uint64_t channel, std::uint64_t sequence) noexcept {
    const bool first = waiting_.with([&](Waiting& waiting) {
        waiting.young.emplace_back(channel, sequence);
        return waiting.young.size() == 1 && waiting.old.empty();
    });
    if (first) env_.timers.arm(weak_from_this(), env_.clock.monotonic() + kMoment);
}

void Lingering::on_time(Nanos now) noexcept {
    Keys done;
    const bool more = waiting_.with([&](Waiting& waiting) {
        done.swap(waiting.old);
        waiting.old.swap(waiting.young);
        return !waiting.old.empty();
    });
    erase(done);
    if (more) env_.timers.arm(weak_from_this(), now + kMoment);
}

void Lingering::finish() noexcept {
    Waiting all;
    waiting_.with([&](Waiting& waiting) { std::swap(all, waiting); });
    erase(all.old);
    erase(all.young);
}

void Lingering::erase(const Keys& keys) noexcept {
    for (const auto& [channel, sequence] : keys) (void)env_.store->erase({channel, sequence});
}

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

bool Channel::keeps() const noexcept {
    return settings_.durable != Durable::kOff && env_.store != nullptr;
}

// A subscription's messages are on disk by their topic's commit.
bool Channel::waits_for_disk() const noexcept {
    return keeps() && settings_.durable == Durable::kSync && !subscription_;
}

Push Channel::keep_first(Locked& locked, Batch& batch) noexcept {
    if (!keeps() || batch.is_prepared) return Push::kQueued;
    if (waits_for_disk()) return Push::kCommit;
    for (const Message& message : batch.messages) {
        if (message.payload && !message.payload->is_saved) return Push::kCommit;
    }
    stamp(locked, batch);
    auto kept = keep(batch);
    if (kept) return Push::kQueued;
    return kept.error().code == ENOSPC ? Push::kNoSpace : Push::kDiskFailed;
}

// What the store is to know it by, after `last`: its own number, but of a subscription one that counts
// what is kept there.
std::uint64_t Channel::next_kept(const Message& message, std::uint64_t last) const noexcept {
    return std::max(last + 1, subscription_ ? 0 : message.envelope.sequence);
}

Result<std::uint64_t> Channel::keep(Batch& batch) noexcept {
    if (is_degraded_) return Fault{EIO, "the channel is degraded"};
    boost::container::small_vector<Head, 2> heads;
    boost::container::small_vector<store::Put, 2> puts;
    heads.reserve(batch.count);
    puts.reserve(batch.count);
    std::uint64_t last = kept_last_;
    for (const Message& message : batch.messages) {
        heads.push_back(encode_head(message, epoch_));
        last = next_kept(message, last);
        // A topic has it until its subscriptions have.
        puts.push_back(put_of(message, {id_, last}, heads.back(),
                              topic_ ? store::Place::kTaken : store::Place::kQueued));
        const Message* origin = message.origin();
        if (origin && origin->kept_sequence) {
            puts.back().origin = key_of(*origin);
            puts.back().content = {};
        }
    }
    auto done = env_.store->put(puts, batch.request);
    if (!done) {
        note_store_fault(done.error());
        return done.error();
    }
    kept_last_ = last;
    auto put = puts.begin();
    for (Message& message : batch.messages) {
        message.kept_channel = put->key.channel;
        message.kept_sequence = put->key.sequence;
        ++put;
    }
    return Result<std::uint64_t>(boost::system::in_place_value, *done);
}

void Channel::note_store_fault(const Fault& fault) noexcept {
    try {
        last_error_ = "store: " + fault.message();
    } catch (...) {
    }
}

void Channel::stage(Locked& locked, WriteWaiter& writer) noexcept {
    stamp(locked, writer.batch);
    auto kept = keep(writer.batch);
    if (!kept) {
        return locked.finish(writer,
                             kept.error().code == ENOSPC ? Wake::kNoSpace : Wake::kDiskFailed);
    }
    auto commit = std::make_unique<Commit>(shared_from_this(), std::move(writer.batch), writer);
    writer.parked = writer.is_staged = true;
    if (writer.via == queue::Via::kQueueFile) ++queue_file_writes_;
    backlog_.stage(commit->batch);
    commits_.push_back(commit.get());
    env_.store->when_durable(*kept, *commit.release());
}

// A write that waited for room.
void Channel::let_in(Locked& locked, WriteWaiter& writer, Push push) noexcept {
    if (push != Push::kCommit) return unpark(locked, writer, ending_of(push));
    unlink(writers_, writer);
    if (writer.urgent) --critical_writers_;
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
        stored_gone(locked, *message);
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

void Channel::stored_taken(Locked&, const Message& message) noexcept {
    if (!message.kept_sequence) return;
    auto state =
        state_of(message, message.envelope.dead ? store::Place::kDead : store::Place::kTaken);
    if (message.envelope.dead) state.redelivered = true;
    (void)env_.store->move(key_of(message), state);
}

void Channel::stored_back(Locked&, const Message& message, Nanos due) noexcept {
    if (!message.kept_sequence) return;
    auto state =
        state_of(message, message.envelope.dead ? store::Place::kDead : store::Place::kQueued);
    if (due > 0) state.not_before = due + epoch_;
    (void)env_.store->move(key_of(message), state);
}

void Channel::stored_dead(Locked&, const Message& message) noexcept {
    if (!message.kept_sequence) return;
    (void)env_.store->move(key_of(message), state_of(message, store::Place::kDead));
}

void Channel::stored_redriven(Locked&, const Message& message) noexcept {
    if (!message.kept_sequence) return;
    (void)env_.store->move(key_of(message), state_of(message, store::Place::kQueued));
}

void Channel::stored_gone(Locked&, const Message& message) noexcept {
    if (message.kept_sequence) (void)env_.store->erase(key_of(message));
}

// ---- the setting changes ------------------------------------------------------------------------

Result<void> Channel::change_keeping(const Settings& settings) {
    const bool wants = settings.durable != Durable::kOff;
    if (wants && !env_.store) {
        return Fault{EOPNOTSUPP,
                     "durable: this daemon keeps nothing; see store.kind in its "
                     "configuration"};
    }
    if (wants == (settings_.durable != Durable::kOff)) return {};
    if (wants) return keep_all();
    if (!commits_.empty()) return Fault{EBUSY, "durable: writes are on their way to the disk"};
    forget_all();
    return {};
}

// Everything that is here goes to the store, or nothing.
Result<void> Channel::keep_all() {
    std::vector<MessageRef> all = everything();
    std::vector<MessageRef> done;
    for (MessageRef& message : all) {
        if (message->kept_sequence) continue;
        const Head head = encode_head(*message, epoch_);
        const store::Put put =
            put_of(*message, {id_, next_kept(*message, kept_last_)}, head,
                   message->envelope.dead ? store::Place::kDead : store::Place::kQueued);
        auto kept = message->payload
                        ? Result<store::Lsn>(Fault{EBUSY,
                                                   "durable: large payloads are queued; purge or "
                                                   "read them first"})
                        : env_.store->put(std::span(&put, 1), 0);
        if (!kept) {
            for (const MessageRef& undo : done) {
                (void)env_.store->erase(key_of(*undo));
                undo->kept_sequence = 0;
            }
            return kept.error();
        }
        kept_last_ = put.key.sequence;
        message->kept_channel = id_;
        message->kept_sequence = put.key.sequence;
        done.push_back(message);
    }
    return {};
}

void Channel::forget_all() noexcept {
    for (const MessageRef& message : everything()) {
        if (!message->kept_sequence) continue;
        (void)env_.store->erase(key_of(*message));
        message->kept_sequence = 0;
    }
}

std::vector<MessageRef> Channel::everything() {
    std::vector<MessageRef> all = backlog_.everything();
    if (topic_) {
        for (const MessageRef& message : topic_->retained) all.push_back(message);
    }
    // In the order they came: keys grow.
    std::sort(all.begin(), all.end(), [](const MessageRef& a, const MessageRef& b) {
        return a->envelope.sequence < b->envelope.sequence;
    });
    return all;
}

// ---- after a restart ----------------------------------------------------------------------------

void Channel::restore_sequence(std::uint64_t last) noexcept {
    Locked locked(*this);
    kept_last_ = std::max(kept_last_, last);
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
    kept_last_ = std::max(kept_last_, from.key.sequence);
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
