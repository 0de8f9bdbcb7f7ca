// Where a channel's messages are beside memory: nowhere (NoKeeper), or in the store, as durable channels
// promise (StoreKeeper). What enters the queue is appended first; what a reader takes is marked before it
// gets it, and erased when it has it. So whatever dies, a message is there again or was delivered, and what
// may have been seen says so. No lock of its own: the channel's is held. Nothing here waits for a disk.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include <store/store.hpp>

#include <base/clock.hpp>
#include <base/guarded.hpp>
#include <base/result.hpp>
#include <base/timer_queue.hpp>
#include <channel/settings.hpp>
#include <queue/message.hpp>
#include <queue/waiter.hpp>

namespace ipcfs::channel {

class Keeper {
public:
    // What a batch needs before it enters the queue.
    enum class Needs : std::uint8_t { kNothing, kAppend, kSync };

    // `last_key`: the last one that was ever given in this channel; none is used again.
    explicit Keeper(std::uint64_t last_key) : last_key_(last_key) {}
    virtual ~Keeper() = default;
    Keeper(const Keeper&) = delete;
    Keeper& operator=(const Keeper&) = delete;

    // How durable it makes messages.
    virtual Durable durable() const noexcept = 0;
    virtual Needs needs(const queue::Batch& batch) const noexcept = 0;
    // All of the batch, to `place`, or nothing. `epoch`: real time less monotonic time. ENOSPC, EIO.
    virtual Result<store::Lsn> append(queue::Batch& batch, store::Place place,
                                      Nanos epoch) noexcept = 0;
    // Calls `then` when everything up to `lsn` is on disk.
    virtual void sync(store::Lsn lsn, store::Completion& then) noexcept = 0;

    // What has become of a message; nothing happens if the store has none of it.
    void taken(const queue::Message& message) noexcept {  // by a reader, also on lease
        if (message.kept_sequence) keep_taken(message);
    }
    void back(const queue::Message& message, Nanos not_before) noexcept;  // real time; 0: now
    void gone(const queue::Message& message) noexcept {                   // for good
        if (message.kept_sequence) erase({message.kept_channel, message.kept_sequence});
    }
    // That it is nowhere any more, whatever was appended.
    void forget(queue::Message& message) noexcept {
        gone(message);
        message.kept_sequence = 0;
    }

    std::uint64_t last_key() const noexcept { return last_key_; }
    void note_key(std::uint64_t key) noexcept { last_key_ = std::max(last_key_, key); }

protected:
    virtual void move(store::Key key, const store::State& state) noexcept = 0;
    virtual void erase(store::Key key) noexcept = 0;

private:
    void keep_taken(const queue::Message& message) noexcept;

    std::uint64_t last_key_;
};

class NoKeeper final : public Keeper {
public:
    using Keeper::Keeper;
    Durable durable() const noexcept override { return Durable::kOff; }
    Needs needs(const queue::Batch&) const noexcept override { return Needs::kNothing; }
    Result<store::Lsn> append(queue::Batch&, store::Place, Nanos) noexcept override {
        return store::appended(0);
    }
    void sync(store::Lsn, store::Completion& then) noexcept override { then.durable(0); }

private:
    void move(store::Key, const store::State&) noexcept override {}
    void erase(store::Key) noexcept override {}
};

class StoreKeeper final : public Keeper {
public:
    // Of the channel `id`. A subscription's messages are numbered by their topics, and are on disk by
    // their topic's commit: it counts what it keeps itself, and never asks for a sync.
    StoreKeeper(store::Store& store, std::uint64_t id, Durable durable, bool is_subscription,
                std::uint64_t last_key)
        : Keeper(last_key),
          store_(store),
          id_(id),
          durable_(durable),
          is_subscription_(is_subscription) {}
    Durable durable() const noexcept override { return durable_; }
    Needs needs(const queue::Batch& batch) const noexcept override;
    Result<store::Lsn> append(queue::Batch& batch, store::Place place,
                              Nanos epoch) noexcept override;
    void sync(store::Lsn lsn, store::Completion& then) noexcept override {
        store_.when_durable(lsn, then);
    }
    // Appends what a channel has that was not durable until now, in the order of their numbers, or
    // nothing. ENOSPC, EIO; EBUSY: large payloads are among it.
    Result<void> adopt(std::vector<queue::MessageRef> all, Nanos epoch);

private:
    void move(store::Key key, const store::State& state) noexcept override {
        (void)store_.move(key, state);
    }
    void erase(store::Key key) noexcept override { (void)store_.erase(key); }
    std::uint64_t next_key(const queue::Message& message, std::uint64_t last) const noexcept {
        return std::max(last + 1, is_subscription_ ? 0 : message.envelope.sequence);
    }

    store::Store& store_;
    const std::uint64_t id_;
    const Durable durable_;
    const bool is_subscription_;
};

// Delivered messages of durable channels that the store still has. A ring hands several replies over to
// the kernel at once, a moment after they were made; if the daemon dies in that moment, such a message must
// not be gone: it comes back, flagged. Any thread.
class Lingering final : public Timed, public std::enable_shared_from_this<Lingering> {
public:
    Lingering(store::Store& store, const Clock& clock, TimerQueue& timers)
        : store_(store), clock_(clock), timers_(timers) {}
    void add(store::Key key) noexcept;
    void on_time(Nanos now) noexcept override;
    // All of it, now: the doors are closed.
    void finish() noexcept;

private:
    static constexpr Nanos kMoment = 10 * kMillisecond;  // erased after one to two of it
    using Keys = std::vector<store::Key>;
    struct Waiting {
        Keys young, old;
    };
    void erase(const Keys& keys) noexcept;

    store::Store& store_;
    const Clock& clock_;
    TimerQueue& timers_;
    Guarded<Waiting> waiting_;
};

}  // namespace ipcfs::channel
