// A channel as the contract has it, in plain containers and without any thought of speed: the
// oracle of channel_model_test.cpp. Messages are numbers. Time is on a grid: whoever drives it
// calls sweep() and at() for each point, see there.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include <channel/channel.hpp>

namespace ipcfs::channel {

struct Model {
    struct Item {
        int number = 0;
        std::uint8_t priority = 0;
        std::uint64_t size = 0;
        Nanos late = kForever;  // its own end, monotonic
        Nanos expires = kForever;
        std::uint64_t sequence = 0;
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
        Nanos deadline = kForever;
        int unresolved = 0, in_flight = 0;
        bool cancelled = false;
        queue::Wake why = queue::Wake::kServed, ending = queue::Wake::kInterrupted;
    };
    struct End {
        queue::Wake why;
        int number;  // of the message, for readers
    };

    Settings settings;
    Nanos now = 0;
    bool paused = false, hold = false, removed = false, down = false;
    Nanos paused_since = 0, hold_since = 0, hold_until = 0;
    std::vector<Item> queue;  // in no order: sequence and priority tell
    std::deque<int> readers;
    std::deque<Waiting> writers, sync_writers;
    std::deque<int> openers;
    std::deque<std::pair<int, Nanos>> credits;  // of opens, oldest first
    int sync_turn = -1;
    std::map<int, Item> taken;  // in readers' hands
    std::map<int, End> ends;    // of waiters, all that ever ended
    std::uint64_t sequence = 0, pass = 0, rings = 0;
    std::map<std::uint8_t, std::uint64_t> passes;
    bool deferred = false;
    Counters counts;

    // ---- what holds
    std::uint64_t bytes() const { return Parcel{queue, false}.bytes(); }
    bool held() const { return hold || down; }
    bool sync() const { return settings.type == Type::kSync; }
    bool blocks() const { return settings.overflow == Overflow::kBlock; }
    bool at_high() const {
        return queue.size() >= settings.high_mark() || bytes() >= settings.high_mark_bytes();
    }
    bool within(std::uint64_t messages, std::uint64_t size, bool all) const {
        const std::uint64_t count = queue.size() + messages, sum = bytes() + size;
        return all ? count <= settings.capacity && sum <= settings.bytes
                   : count <= settings.high_mark() && sum <= settings.high_mark_bytes();
    }
    bool fits(const Parcel& parcel) const {
        return within(parcel.items.size(), parcel.bytes(), parcel.critical() || queue.empty());
    }
    bool never(const Parcel& parcel) const {
        return parcel.items.size() > settings.capacity || parcel.bytes() > settings.bytes ||
               std::any_of(parcel.items.begin(), parcel.items.end(),
                           [&](const Item& item) { return item.size > settings.max_message; });
    }
    bool readable() const { return !held() && !queue.empty(); }
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
    // The timers at `time`: ends of holds, writers' deadlines, expiry, credits.
    void at(Nanos time);

private:
    void end(int id, queue::Wake why, int number = 0) {
        ends.insert_or_assign(id, End{why, number});
    }
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
    void open();
    void ring();
    void unpark(std::deque<Waiting>& list, int id, queue::Wake why);
    void release(int turn);
    Waiting* sync_writer(int id);
};

}  // namespace ipcfs::channel
