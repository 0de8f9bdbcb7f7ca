// A simple model of a channel that follows the contract, in plain containers and without regard to
// speed: the oracle of channel_model_test.cpp. Messages are numbers. Time moves on a grid: the
// driver calls at() for each point; see there.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <channel/channel.hpp>

namespace ipcfs::channel {

struct Model {
    struct Item {
        int number = 0;
        std::uint8_t priority = 0;
        std::uint64_t size = 0;
        Nanos late = kNever;  // the message's own deadline, monotonic
        Nanos expires = kNever;
        std::uint64_t sequence = 0;
        std::uint64_t place = 0;  // order within its priority
        std::uint32_t deliveries = 0;
        bool again = false, dead = false;
        int writer = -1;
    };
    struct Parcel {  // a batch
        std::vector<Item> items;
        bool natural = false;
        std::uint64_t bytes() const {
            std::uint64_t sum = 0;
            for (const Item& item : items) sum += item.size;
            return sum;
        }
        bool critical() const {
            return std::all_of(items.begin(), items.end(),
                               [](const Item& item) { return item.priority == 255; });
        }
    };
    struct Waiting {
        int id = 0;
        Parcel parcel;
        Nanos deadline = kNever;
        int unresolved = 0, in_flight = 0;
        bool cancelled = false;
        queue::Wake why = queue::Wake::kServed, ending = queue::Wake::kInterrupted;
    };
    struct End {
        queue::Wake why;
        int number;               // for readers: the message
        std::uint64_t lease = 0;  // for readers: the lease
    };
    struct Trial {
        Item item;
        Nanos deadline = 0;
        pid_t holder = 0;
    };
    struct Later {
        Item item;
        Nanos due = 0;
    };

    Settings settings;
    Nanos now = 0;
    bool paused = false, hold = false, removed = false, down = false;
    Nanos paused_since = 0, hold_since = 0, hold_until = 0;
    std::vector<Item> queue;  // unordered; place and priority give the order
    std::map<std::uint64_t, Trial> leases;
    std::vector<Later> delayed;
    std::vector<Item> dead;  // like `queue`
    std::set<int> gone;      // numbers of messages that no longer exist
    std::deque<int> readers, dead_readers;
    std::map<int, pid_t> leasing;  // leasing readers and their holders
    std::deque<Waiting> writers, sync_writers;
    std::deque<int> openers;
    std::deque<std::pair<int, Nanos>> credits;  // credits of opens, oldest first
    int sync_turn = -1;
    std::map<int, Item> taken;  // in readers' hands
    std::map<int, End> ends;    // results of all waiters that have ended
    std::uint64_t sequence = 0, place = 0, last_lease = 0, pass = 0, rings = 0;
    std::uint64_t let_out = 0;       // messages released by the batch gate, if there is one
    Nanos gathering_since = kNever;  // since when the batch gate holds messages back
    std::map<std::uint8_t, std::uint64_t> passes;
    bool deferred = false, made_room = false;
    Counters counts;

    // ---- state
    std::uint64_t bytes() const { return Parcel{queue, false}.bytes(); }
    // What counts against capacity and bytes.
    std::uint64_t load() const { return queue.size() + leases.size() + delayed.size(); }
    std::uint64_t load_bytes() const {
        std::uint64_t sum = bytes();
        for (const auto& [id, trial] : leases) sum += trial.item.size;
        for (const Later& later : delayed) sum += later.item.size;
        return sum;
    }
    bool gated() const { return settings.batch_gate().count > 0; }
    std::uint64_t ready() const { return gated() ? let_out : queue.size(); }
    bool held() const { return hold || down; }
    bool sync() const { return settings.type == Type::kSync; }
    bool blocks() const { return settings.overflow == Overflow::kBlock; }
    bool at_high() const {
        return load() >= settings.high_mark() || load_bytes() >= settings.high_mark_bytes();
    }
    bool within(std::uint64_t messages, std::uint64_t size, bool all) const {
        const std::uint64_t count = load() + messages, sum = load_bytes() + size;
        return all ? count <= settings.capacity && sum <= settings.bytes
                   : count <= settings.high_mark() && sum <= settings.high_mark_bytes();
    }
    bool fits(const Parcel& parcel) const {
        return within(parcel.items.size(), parcel.bytes(), parcel.critical() || load() == 0);
    }
    bool never(const Parcel& parcel) const {
        return parcel.items.size() > settings.capacity || parcel.bytes() > settings.bytes ||
               std::any_of(parcel.items.begin(), parcel.items.end(),
                           [&](const Item& item) { return item.size > settings.max_message; });
    }
    bool readable() const { return !held() && ready() > 0; }
    bool dead_readable() const { return !down && !dead.empty(); }
    bool writable() const {
        if (held()) return false;
        if (sync()) return !readers.empty();
        if (blocks()) return !paused && writers.empty() && within(1, 1, false);
        return settings.overflow != Overflow::kReject || within(1, 1, false);
    }
    int natural_parked() const {
        auto count = [](const auto& list) {
            return std::count_if(list.begin(), list.end(),
                                 [](const Waiting& w) { return w.parcel.natural; });
        };
        return static_cast<int>(count(writers) + count(sync_writers));
    }

    // ---- operations
    Push try_push(Parcel parcel, bool may_wait, int turn);
    void push(int id, Parcel parcel, int turn);
    int try_take();  // 0: nothing
    void take(int id);
    int try_take_dead();
    void take_dead(int id);
    int try_lease(pid_t holder);  // its lease is last_lease
    void lease(int id, pid_t holder);
    bool ack(std::uint64_t lease);
    bool nack(std::uint64_t lease, Nanos delay);
    bool extend(std::uint64_t lease, Nanos time);
    bool bury(std::uint64_t lease);
    bool end_lease(std::uint64_t lease);
    bool undo_lease(std::uint64_t lease);
    std::size_t die(pid_t holder);
    void redrive();
    void delivered(int number);
    void give_back(int number);
    void cancel_reader(int id, queue::Wake why);
    void cancel_writer(int id, queue::Wake why);
    void cancel_opener(int id, queue::Wake why);
    Gate try_gate(int id);
    void gate(int id);
    void leave(int id);
    void poll();
    void purge();
    void pause(Nanos time);
    void resume();
    void set(const Settings& to);
    bool remove();
    void shut_down();
    // Whether every message that ever arrived is in exactly one place.
    bool consistent() const;
    // Runs the timers at `time`: ends of pauses, writers' deadlines, expiry, credits.
    void at(Nanos time);

private:
    void end(int id, queue::Wake why, int number = 0, std::uint64_t lease = 0) {
        ends.insert_or_assign(id, End{why, number, lease});
    }
    std::optional<Item> end_trial(std::uint64_t lease);
    std::uint64_t lease_out(int number, pid_t holder);
    void stamp(Item& item) const;
    void requeue(Item item, Nanos delay);
    void requeue(std::vector<Item> items);
    void requeue(const Item& item);
    void came_back();
    void bury(Item item);
    void serve_dead();
    std::vector<Item>::iterator take_out(std::vector<Item>::iterator at);
    void shrunk();
    bool gather();
    void wait_for_place(const Item& item);
    Push admit(Parcel& parcel, bool waited);
    void enqueue(Parcel& parcel, int writer);
    void serve();
    std::vector<Item>::iterator front();
    int pop();
    int drop_late();
    void drop(const Item& item, queue::Wake why);
    void resolve(int id);
    void withdraw(int id, queue::Wake why);
    void let_in();
    void let_writers_in();
    void more();
    void open();
    void ring();
    void unpark(std::deque<Waiting>& list, int id, queue::Wake why);
    void release(int turn);
    Waiting* sync_writer(int id);
};

}  // namespace ipcfs::channel
