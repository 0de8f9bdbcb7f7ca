// The oracle's rules, each as the contract states it.
#include "channel_model.hpp"

#include <optional>
#include <utility>

namespace ipcfs::channel {

using queue::Wake;

namespace {

template <class List>
auto of(List& list, int id) {
    return std::find_if(list.begin(), list.end(), [&](const auto& one) { return one.id == id; });
}

}  // namespace

Push Model::try_push(Parcel parcel, bool may_wait, int turn) {
    if (removed) return Push::kRemoved;
    if (turn != sync_turn) release(turn);
    if (sync()) {
        if (never(parcel)) return Push::kTooLong;
        if (may_wait || held() || !queue.empty() || readers.size() < parcel.items.size()) {
            return Push::kWait;
        }
        enqueue(parcel, -1);
        return Push::kQueued;
    }
    const Push push = admit(parcel, false);
    more();
    return push;
}

Push Model::admit(Parcel& parcel, bool waited) {
    if (never(parcel)) return Push::kTooLong;
    if (held()) return Push::kWait;
    const bool straight =
        queue.empty() && readers.size() >= parcel.items.size() && leasing.empty() && !gated();
    if (!straight && blocks()) {
        const bool critical = parcel.critical();
        const bool like = std::any_of(writers.begin(), writers.end(),
                                      [](const Waiting& w) { return w.parcel.critical(); });
        if (!waited && (critical ? like : paused || !writers.empty())) return Push::kWait;
        if (!critical && paused) return Push::kWait;
        if (!fits(parcel)) {
            if (!paused) {
                paused = true;
                paused_since = now;
                ++counts.pauses;
            }
            return Push::kWait;
        }
    } else if (!straight && !fits(parcel)) {
        if (settings.overflow == Overflow::kReject) {
            counts.rejected += parcel.items.size();
            return Push::kFull;
        }
        while (settings.overflow == Overflow::kDropOldest && !fits(parcel)) {
            auto victim =
                std::min_element(queue.begin(), queue.end(), [](const Item& a, const Item& b) {
                    return std::pair(a.priority, a.place) < std::pair(b.priority, b.place);
                });
            if (victim == queue.end() || victim->priority > parcel.items.front().priority) break;
            gone.insert(victim->number);
            take_out(victim);
            ++counts.dropped_oldest;
        }
        if (!fits(parcel)) {
            counts.dropped_newest += parcel.items.size();  // which never came
            return Push::kQueued;
        }
    }
    enqueue(parcel, -1);
    return Push::kQueued;
}

void Model::enqueue(Parcel& parcel, int writer) {
    for (Item item : parcel.items) {
        item.sequence = ++sequence;
        item.writer = writer;
        item.place = ++place;
        stamp(item);
        wait_for_place(item);
        queue.push_back(item);
        ++counts.enqueued;
    }
    const bool natural = parcel.natural && writer == -1;
    gather();
    serve();
    if (blocks() && !paused && !sync() && at_high()) {
        paused = true;
        paused_since = now;
        ++counts.pauses;
    }
    if (!natural) ring();
}

void Model::stamp(Item& item) const {
    item.expires = settings.ttl > 0 ? now + settings.ttl : kNever;
    if (item.late != kNever) item.expires = std::min(item.expires, std::max(now, item.late));
}

// A level that was idle does not claim the turns that it did not need.
void Model::wait_for_place(const Item& item) {
    const bool idle = std::none_of(queue.begin(), queue.end(), [&](const Item& other) {
        return other.priority == item.priority;
    });
    if (idle) passes[item.priority] = std::max(passes[item.priority], pass);
}

bool Model::gather() {
    if (!gated() || let_out == queue.size()) return false;
    if (gathering_since == kNever) gathering_since = now;
    const auto [count, delay] = settings.batch_gate();
    const auto enough = std::min<std::uint64_t>(count, settings.high_mark());
    if (queue.size() - let_out < enough && now < gathering_since + delay) return false;
    let_out = queue.size();
    gathering_since = kNever;
    const auto before = load();
    serve();
    made_room |= load() < before;
    return true;
}

// Something left the queue otherwise than by a reader.
void Model::shrunk() {
    if (gated() && let_out >= queue.size()) {
        let_out = queue.size();
        gathering_since = kNever;
    }
}

std::vector<Model::Item>::iterator Model::take_out(std::vector<Item>::iterator at) {
    auto next = queue.erase(at);
    shrunk();
    return next;
}

void Model::ring() {
    if (natural_parked() > 0 && !sync()) {
        deferred = true;
    } else {
        ++rings;
    }
}

void Model::push(int id, Parcel parcel, int turn) {
    if (turn != sync_turn) release(turn);
    if (removed) return end(id, Wake::kRemoved);
    if (down) return end(id, Wake::kShutdown);
    Waiting waiting;
    waiting.id = id;
    waiting.parcel = parcel;
    if (sync() && !hold) {
        waiting.unresolved = static_cast<int>(parcel.items.size());
        waiting.deadline = now + settings.timeout;
        sync_writers.push_back(waiting);
        return enqueue(parcel, id);
    }
    const Push push = admit(parcel, false);
    if (push != Push::kWait) {
        end(id, push == Push::kQueued ? Wake::kServed : Wake::kPurged);
        return more();
    }
    waiting.deadline = (hold ? hold_since : paused_since) + settings.timeout;
    if (waiting.deadline <= now) {
        ++counts.timed_out;
        return end(id, Wake::kTimedOut);
    }
    writers.push_back(waiting);
}

std::vector<Model::Item>::iterator Model::front() {
    return std::min_element(queue.begin(), queue.end(), [&](const Item& a, const Item& b) {
        if (a.priority == b.priority) return a.place < b.place;
        if (settings.schedule == queue::Schedule::kFair) {
            const auto pa = passes[a.priority], pb = passes[b.priority];
            if (pa != pb) return pa < pb;
        }
        return a.priority > b.priority;
    });
}

int Model::pop() {
    if (ready() == 0) return 0;
    auto at = front();
    if (settings.schedule == queue::Schedule::kFair) {
        pass = passes[at->priority];
        passes[at->priority] += 720720U / (1U + at->priority / 16U);
    }
    const Item item = *at;
    queue.erase(at);
    if (gated()) --let_out;
    taken[item.number] = item;
    ++counts.delivered;
    counts.redelivered += item.again;
    if (Waiting* writer = sync_writer(item.writer)) ++writer->in_flight;
    return item.number;
}

int Model::drop_late() {
    int lost = 0;
    for (auto at = front(); at != queue.end() && at->expires <= now; at = front()) {
        const Item item = *at;
        take_out(at);
        drop(item, Wake::kTimedOut);
        ++counts.expired;
        ++lost;
    }
    return lost;
}

void Model::serve() {
    while (!held() && !readers.empty()) {
        drop_late();
        const int number = pop();
        if (number == 0) return;
        const int reader = readers.front();
        readers.pop_front();
        auto on_trial = leasing.find(reader);
        if (on_trial == leasing.end()) {
            end(reader, Wake::kServed, number);
        } else {
            end(reader, Wake::kServed, number, lease_out(number, on_trial->second));
            leasing.erase(on_trial);
        }
    }
}

int Model::try_take() {
    if (removed || !readable()) return 0;
    drop_late();
    const int number = pop();
    let_in();
    return number;
}

void Model::take(int id) {
    if (removed) return end(id, Wake::kRemoved);
    if (down) return end(id, Wake::kShutdown);
    readers.push_back(id);
    const bool there_was = readable();
    serve();
    if (there_was) let_in();
}

void Model::lease(int id, pid_t holder) {
    if (!removed && !down) leasing[id] = holder;
    take(id);
}

int Model::try_take_dead() {
    if (removed || !dead_readable()) return 0;
    auto at = std::min_element(dead.begin(), dead.end(), [](const Item& a, const Item& b) {
        return std::pair(255 - a.priority, a.place) < std::pair(255 - b.priority, b.place);
    });
    const Item item = *at;
    dead.erase(at);
    taken[item.number] = item;
    ++counts.dead_taken;
    return item.number;
}

void Model::take_dead(int id) {
    if (removed) return end(id, Wake::kRemoved);
    if (down) return end(id, Wake::kShutdown);
    dead_readers.push_back(id);
    serve_dead();
}

void Model::serve_dead() {
    while (!dead_readers.empty() && dead_readable()) {
        end(dead_readers.front(), Wake::kServed, try_take_dead());
        dead_readers.pop_front();
    }
}

// ---- leases

int Model::try_lease(pid_t holder) {
    if (removed || !readable()) return 0;
    drop_late();
    const int number = pop();
    if (number) lease_out(number, holder);
    let_in();
    return number;
}

std::uint64_t Model::lease_out(int number, pid_t holder) {
    Item item = taken.at(number);
    taken.erase(number);
    ++item.deliveries;
    ++counts.leased;
    leases[++last_lease] = Trial{item, now + settings.lease, holder};
    return last_lease;
}

std::optional<Model::Item> Model::end_trial(std::uint64_t lease) {
    auto at = leases.find(lease);
    if (at == leases.end()) return std::nullopt;
    Item item = at->second.item;
    leases.erase(at);
    return item;
}

bool Model::ack(std::uint64_t lease) {
    auto item = end_trial(lease);
    if (!item) return false;
    ++counts.acked;
    gone.insert(item->number);
    let_in();
    return true;
}

bool Model::nack(std::uint64_t lease, Nanos delay) {
    auto item = end_trial(lease);
    if (!item) return false;
    ++counts.nacked;
    requeue(*item, delay);
    came_back();
    return true;
}

bool Model::extend(std::uint64_t lease, Nanos time) {
    auto at = leases.find(lease);
    if (at == leases.end()) return false;
    at->second.deadline = now + time;
    return true;
}

bool Model::bury(std::uint64_t lease) {
    auto item = end_trial(lease);
    if (!item) return false;
    ++counts.lease_buried;
    item->again = true;
    bury(*item);
    let_in();
    return true;
}

bool Model::end_lease(std::uint64_t lease) {
    auto item = end_trial(lease);
    if (!item) return false;
    ++counts.lease_returns;
    requeue(*item, 0);
    came_back();
    return true;
}

bool Model::undo_lease(std::uint64_t lease) {
    auto item = end_trial(lease);
    if (!item) return false;
    ++counts.lease_undone;
    --item->deliveries;
    item->again = true;
    requeue(*item);
    came_back();
    return true;
}

std::size_t Model::die(pid_t holder) {
    std::vector<Item> items;
    std::erase_if(leases, [&](const auto& entry) {
        if (entry.second.holder != holder) return false;
        items.push_back(entry.second.item);
        return true;
    });
    counts.lease_returns += items.size();
    if (!items.empty()) requeue(items);
    return items.size();
}

void Model::requeue(Item item, Nanos delay) {
    item.again = true;
    if (item.deliveries >= settings.max_deliveries) return bury(item);
    if (delay > 0) {
        delayed.push_back({item, now + delay});
    } else {
        requeue(item);
    }
}

void Model::requeue(std::vector<Item> items) {
    std::sort(items.begin(), items.end(),
              [](const Item& a, const Item& b) { return a.place < b.place; });
    for (const Item& item : items) requeue(item, 0);
    came_back();
}

void Model::requeue(const Item& item) {
    wait_for_place(item);
    queue.push_back(item);
    if (gated()) ++let_out;
}

void Model::came_back() {
    serve();
    if (!queue.empty()) ring();
    let_in();
}

void Model::bury(Item item) {
    ++counts.dead;
    item.dead = true;
    item.place = ++place;
    dead.push_back(item);
    serve_dead();
}

void Model::redrive() {
    if (dead.empty()) return;
    std::sort(dead.begin(), dead.end(), [](const Item& a, const Item& b) {
        return std::pair(255 - a.priority, a.place) < std::pair(255 - b.priority, b.place);
    });
    for (Item item : std::exchange(dead, {})) {
        ++counts.redriven;
        item.dead = false;
        item.deliveries = 0;
        item.place = ++place;
        stamp(item);
        wait_for_place(item);
        queue.push_back(item);
    }
    gather();
    serve();
    if (blocks() && !paused && !sync() && at_high()) {
        paused = true;
        paused_since = now;
        ++counts.pauses;
    }
    ring();
    more();
}

bool Model::consistent() const {
    std::multiset<int> all(gone.begin(), gone.end());
    for (const Item& item : queue) all.insert(item.number);
    for (const auto& [lease, trial] : leases) all.insert(trial.item.number);
    for (const Later& later : delayed) all.insert(later.item.number);
    for (const Item& item : dead) all.insert(item.number);
    for (const auto& [number, item] : taken) all.insert(number);
    return all.size() == counts.enqueued && std::adjacent_find(all.begin(), all.end()) == all.end();
}

// ---- what becomes of what was taken

void Model::delivered(int number) {
    const Item item = taken.at(number);
    taken.erase(number);
    gone.insert(number);
    if (Waiting* writer = sync_writer(item.writer)) {
        --writer->in_flight;
        resolve(item.writer);
    }
}

void Model::give_back(int number) {
    Item item = taken.at(number);
    taken.erase(number);
    ++counts.given_back;
    item.again = true;
    Waiting* writer = sync_writer(item.writer);
    if (writer) {
        --writer->in_flight;
        if (writer->cancelled) {
            ++counts.withdrawn;
            gone.insert(number);
            writer->why = writer->ending;
            return resolve(item.writer);
        }
    }
    if (removed) return drop(item, Wake::kRemoved);
    if (item.dead) {
        dead.push_back(item);
        return serve_dead();
    }
    requeue(item);
    came_back();
}

Model::Waiting* Model::sync_writer(int id) {
    auto at = of(sync_writers, id);
    return at == sync_writers.end() ? nullptr : &*at;
}

void Model::unpark(std::deque<Waiting>& list, int id, Wake why) {
    list.erase(of(list, id));
    end(id, why);
    if (natural_parked() == 0 && deferred) {
        deferred = false;
        ++rings;
    }
}

void Model::resolve(int id) {
    Waiting& writer = *sync_writer(id);
    if (--writer.unresolved == 0) unpark(sync_writers, id, writer.why);
}

void Model::drop(const Item& item, Wake why) {
    gone.insert(item.number);
    if (Waiting* writer = sync_writer(item.writer)) {
        writer->why = why;
        resolve(item.writer);
    }
}

void Model::withdraw(int id, Wake why) {
    Waiting& writer = *sync_writer(id);
    if (!writer.cancelled) writer.ending = why;
    writer.cancelled = true;
    const auto out = std::erase_if(queue, [&](const Item& item) {
        if (item.writer != id) return false;
        gone.insert(item.number);
        return true;
    });
    if (out == 0) return;
    counts.withdrawn += out;
    writer.why = why;
    writer.unresolved = writer.in_flight;
    if (writer.unresolved == 0) unpark(sync_writers, id, why);
}

void Model::cancel_reader(int id, Wake why) {
    leasing.erase(id);
    if (std::erase(readers, id) || std::erase(dead_readers, id)) end(id, why);
}

void Model::cancel_writer(int id, Wake why) {
    if (of(writers, id) != writers.end()) return unpark(writers, id, why);
    if (sync_writer(id)) withdraw(id, why);
}

void Model::cancel_opener(int id, Wake why) {
    if (std::erase(openers, id)) end(id, why);
}

// After anything that makes room.
void Model::let_in() {
    if (held()) return;
    do {
        made_room = false;
        let_writers_in();
    } while (made_room);
    open();
}

// After something came.
void Model::more() {
    if (made_room) return let_in();
    open();
}

void Model::let_writers_in() {
    if (paused && (!blocks() ||
                   (load() <= settings.low_mark() && load_bytes() <= settings.low_mark_bytes()))) {
        paused = false;
    }
    while (!paused && !writers.empty()) {
        if (sync()) {
            Waiting writer = writers.front();
            writers.pop_front();
            writer.unresolved = static_cast<int>(writer.parcel.items.size());
            writer.deadline = now + settings.timeout;
            sync_writers.push_back(writer);
            enqueue(writer.parcel, writer.id);
            continue;
        }
        Waiting writer = writers.front();
        const Push push = admit(writer.parcel, true);
        if (push == Push::kWait) break;
        unpark(writers, writer.id, push == Push::kQueued ? Wake::kServed : Wake::kPurged);
    }
    const auto waiting = writers;
    for (const Waiting& writer : waiting) {
        if (!writer.parcel.critical()) continue;
        Parcel parcel = writer.parcel;
        if (admit(parcel, true) != Push::kQueued) break;
        unpark(writers, writer.id, Wake::kServed);
    }
}

Gate Model::try_gate(int id) {
    if (removed) return Gate::kRemoved;
    if (held() || !openers.empty()) return Gate::kWait;
    openers.push_back(id);
    open();
    if (!openers.empty()) {
        openers.clear();
        return Gate::kWait;
    }
    ends.erase(id);
    return Gate::kOpen;
}

void Model::gate(int id) {
    if (removed) return end(id, Wake::kRemoved);
    if (down) return end(id, Wake::kShutdown);
    openers.push_back(id);
    open();
}

void Model::open() {
    while (!credits.empty() && credits.front().second + kSecond <= now) credits.pop_front();
    while (!openers.empty() && !held()) {
        if (sync()) {
            if (sync_turn != -1) return;
            sync_turn = openers.front();
        } else if (blocks()) {
            if (paused) return;
            if (!credits.empty() && load() + credits.size() >= settings.high_mark()) return;
            credits.emplace_back(openers.front(), now);
        }
        end(openers.front(), Wake::kServed);
        openers.pop_front();
    }
}

void Model::release(int turn) {
    if (turn != -1 && turn == sync_turn) sync_turn = -1;
    std::erase_if(credits, [&](const auto& credit) { return credit.first == turn; });
}

void Model::leave(int id) {
    release(id);
    open();
}

void Model::poll() {
    if (!removed && readable() && drop_late() > 0) let_in();
}

void Model::purge() {
    auto all = std::exchange(queue, {});
    shrunk();
    for (const Item& item : std::exchange(dead, {})) all.push_back(item);
    for (const Later& later : std::exchange(delayed, {})) all.push_back(later.item);
    for (const auto& [lease, trial] : std::exchange(leases, {})) all.push_back(trial.item);
    counts.purged += all.size();
    for (const Item& item : all) drop(item, Wake::kPurged);
    let_in();
}

void Model::pause(Nanos time) {
    if (!hold) hold_since = now;
    hold = true;
    hold_until = time > 0 ? now + time : 0;
}

void Model::resume() {
    if (hold) {
        hold = false;
        hold_until = 0;
        if (paused) paused_since = now;
        serve();
        if (!queue.empty()) ring();
    }
    let_in();
}

void Model::set(const Settings& to) {
    if (to == settings) return;
    let_out = ready();
    settings = to;
    if (!gated() && let_out < queue.size()) {
        gathering_since = kNever;
        serve();
        ring();
    } else if (gather()) {
        ring();
    }
    if (blocks() && !sync() && !paused && at_high()) {
        paused = true;
        paused_since = now;
        ++counts.pauses;
    }
    let_in();
}

bool Model::remove() {
    if (load() > 0 || !dead.empty()) return false;
    removed = true;
    const auto all = [&](Wake why) {
        for (int id : readers) end(id, why);
        for (int id : dead_readers) end(id, why);
        for (int id : openers) end(id, why);
        readers.clear();
        dead_readers.clear();
        leasing.clear();
        openers.clear();
        while (!writers.empty()) unpark(writers, writers.front().id, why);
        const auto waiting = sync_writers;
        for (const Waiting& writer : waiting) withdraw(writer.id, why);
    };
    all(Wake::kRemoved);
    return true;
}

void Model::shut_down() {
    down = true;
    for (int id : readers) end(id, Wake::kShutdown);
    for (int id : dead_readers) end(id, Wake::kShutdown);
    for (int id : openers) end(id, Wake::kShutdown);
    readers.clear();
    dead_readers.clear();
    leasing.clear();
    openers.clear();
    while (!writers.empty()) unpark(writers, writers.front().id, Wake::kShutdown);
    const auto waiting = sync_writers;
    for (const Waiting& writer : waiting) withdraw(writer.id, Wake::kShutdown);
}

void Model::at(Nanos time) {
    now = time;
    if (removed) return;
    if (hold && hold_until > 0 && hold_until <= now) resume();
    auto waiting = writers;
    for (const Waiting& writer : waiting) {
        if (writer.deadline > now || of(writers, writer.id) == writers.end()) continue;
        ++counts.timed_out;
        unpark(writers, writer.id, Wake::kTimedOut);
    }
    waiting = sync_writers;
    for (const Waiting& writer : waiting) {
        if (writer.deadline > now || writer.cancelled || !sync_writer(writer.id)) continue;
        ++counts.timed_out;
        withdraw(writer.id, Wake::kTimedOut);
    }
    std::vector<Item> back;
    std::erase_if(leases, [&](const auto& entry) {
        if (entry.second.deadline > now) return false;
        back.push_back(entry.second.item);
        return true;
    });
    counts.lease_timeouts += back.size();
    if (!back.empty()) requeue(std::exchange(back, {}));
    std::erase_if(delayed, [&](const Later& later) {
        if (later.due > now) return false;
        back.push_back(later.item);
        return true;
    });
    for (const Item& item : back) requeue(item);
    if (!back.empty()) came_back();
    if (gather() && !queue.empty()) ring();
    if (made_room) let_in();
    // What is let in may be late itself.
    for (std::vector<Item> late;; late.clear()) {
        std::erase_if(queue, [&](const Item& item) {
            if (item.expires > now) return false;
            late.push_back(item);
            return true;
        });
        shrunk();
        if (late.empty()) break;
        counts.expired += late.size();
        for (const Item& item : late) drop(item, Wake::kTimedOut);
        let_in();
    }
    open();
}

}  // namespace ipcfs::channel
