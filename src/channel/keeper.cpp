// Under the lock of the channel that has it; Lingering on any thread.
#include <algorithm>

#include <boost/container/small_vector.hpp>

#include <channel/keeper.hpp>
#include <channel/records.hpp>

namespace ipcfs::channel {

using queue::Batch;
using queue::Message;
using queue::MessageRef;

namespace {

store::Key key_of(const Message& message) {
    return {message.kept_channel, message.kept_sequence};
}

store::State state_of(const Message& message, store::Place place) {
    if (message.envelope.dead) place = store::Place::kDead;
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

void note_kept(Message& message, store::Key key) {
    message.kept_channel = key.channel;
    message.kept_sequence = key.sequence;
}

}  // namespace

void Keeper::keep_taken(const Message& message) noexcept {
    store::State state = state_of(message, store::Place::kTaken);
    if (message.envelope.dead) state.redelivered = true;
    move(key_of(message), state);
}

void Keeper::back(const Message& message, Nanos not_before) noexcept {
    if (!message.kept_sequence) return;
    store::State state = state_of(message, store::Place::kQueued);
    state.not_before = not_before;
    move(key_of(message), state);
}

Keeper::Needs StoreKeeper::needs(const Batch& batch) const noexcept {
    if (batch.is_prepared) return Needs::kNothing;
    if (durable_ == Durable::kSync && !is_subscription_) return Needs::kSync;
    for (const Message& message : batch.messages) {
        if (message.payload && !message.payload->is_saved) return Needs::kSync;
    }
    return Needs::kAppend;
}

Result<store::Lsn> StoreKeeper::append(Batch& batch, store::Place place, Nanos epoch) noexcept {
    boost::container::small_vector<Head, 2> heads;
    boost::container::small_vector<store::Put, 2> puts;
    heads.reserve(batch.count);
    puts.reserve(batch.count);
    std::uint64_t last = last_key();
    for (const Message& message : batch.messages) {
        heads.push_back(encode_head(message, epoch));
        last = next_key(message, last);
        puts.push_back(put_of(message, {id_, last}, heads.back(), place));
        const Message* origin = message.origin();
        if (origin && origin->kept_sequence) {
            puts.back().origin = key_of(*origin);
            puts.back().content = {};
        }
    }
    auto done = store_.put(puts, batch.request);
    if (!done) return done;
    note_key(last);
    auto put = puts.begin();
    for (Message& message : batch.messages) note_kept(message, (put++)->key);
    return done;
}

Result<void> StoreKeeper::adopt(std::vector<MessageRef> all, Nanos epoch) {
    std::sort(all.begin(), all.end(), [](const MessageRef& a, const MessageRef& b) {
        return a->envelope.sequence < b->envelope.sequence;
    });
    std::vector<MessageRef> done;
    for (MessageRef& message : all) {
        if (message->kept_sequence) continue;
        const Head head = encode_head(*message, epoch);
        const store::Put put =
            put_of(*message, {id_, next_key(*message, last_key())}, head, store::Place::kQueued);
        auto kept = message->payload
                        ? Result<store::Lsn>(Fault{EBUSY,
                                                   "durable: large payloads are queued; purge or "
                                                   "read them first"})
                        : store_.put(std::span(&put, 1), 0);
        if (!kept) {
            for (const MessageRef& undo : done) forget(*undo);
            return kept.error();
        }
        note_key(put.key.sequence);
        note_kept(*message, put.key);
        done.push_back(message);
    }
    return {};
}

void Lingering::add(store::Key key) noexcept {
    const bool first = waiting_.with([&](Waiting& waiting) {
        waiting.young.push_back(key);
        return waiting.young.size() == 1 && waiting.old.empty();
    });
    if (first) timers_.arm(weak_from_this(), clock_.monotonic() + kMoment);
}

void Lingering::on_time(Nanos now) noexcept {
    Keys done;
    const bool more = waiting_.with([&](Waiting& waiting) {
        done.swap(waiting.old);
        waiting.old.swap(waiting.young);
        return !waiting.old.empty();
    });
    erase(done);
    if (more) timers_.arm(weak_from_this(), now + kMoment);
}

void Lingering::finish() noexcept {
    Waiting all;
    waiting_.with([&](Waiting& waiting) { std::swap(all, waiting); });
    erase(all.old);
    erase(all.young);
}

void Lingering::erase(const Keys& keys) noexcept {
    for (const store::Key& key : keys) (void)store_.erase(key);
}

}  // namespace ipcfs::channel
