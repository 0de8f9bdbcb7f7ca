// The oracle's rules, each as the contract states it.
#include "channel_model.hpp"

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
    open();
    return push;
}

Push Model::admit(Parcel& parcel, bool waited) {
    if (never(parcel)) return Push::kTooLong;
    if (held()) return Push::kWait;
    const bool straight = queue.empty() && readers.size() >= parcel.items.size();
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
                    return std::pair(a.priority, a.sequence) < std::pair(b.priority, b.sequence);
                });
            if (victim == queue.end() || victim->priority > parcel.items.front().priority) break;
            queue.erase(victim);
            ++counts.dropped_oldest;
        }
        if (!fits(parcel)) {
            counts.dropped_newest += parcel.items.size();
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
        item.expires = settings.ttl > 0 ? now + settings.ttl : kForever;
        if (item.late != kForever) item.expires = std::min(item.expires, std::max(now, item.late));
        const bool idle = std::none_of(queue.begin(), queue.end(), [&](const Item& other) {
            return other.priority == item.priority;
        });
        if (idle) passes[item.priority] = std::max(passes[item.priority], pass);
        queue.push_back(item);
        ++counts.enqueued;
    }
    const bool natural = parcel.natural && writer == -1;
    serve();
    if (blocks() && !paused && !sync() && at_high()) {
        paused = true;
        paused_since = now;
        ++counts.pauses;
    }
    if (!natural) ring();
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
        return open();
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
        if (a.priority == b.priority) return a.sequence < b.sequence;
        if (settings.schedule == queue::Schedule::kFair) {
            const auto pa = passes[a.priority], pb = passes[b.priority];
            if (pa != pb) return pa < pb;
        }
        return a.priority > b.priority;
    });
}

int Model::pop() {
    auto at = front();
    if (at == queue.end()) return 0;
    if (settings.schedule == queue::Schedule::kFair) {
        pass = passes[at->priority];
        passes[at->priority] += 720720U / (1U + at->priority / 16U);
    }
    const Item item = *at;
    queue.erase(at);
    taken[item.number] = item;
    ++counts.delivered;
    if (Waiting* writer = sync_writer(item.writer)) ++writer->in_flight;
    return item.number;
}

int Model::drop_late() {
    int lost = 0;
    for (auto at = front(); at != queue.end() && at->expires <= now; at = front()) {
        const Item item = *at;
        queue.erase(at);
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
        end(readers.front(), Wake::kServed, number);
        readers.pop_front();
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
    if (readable()) {
        serve();
        let_in();
    }
}

void Model::delivered(int number) {
    const Item item = taken.at(number);
    taken.erase(number);
    if (Waiting* writer = sync_writer(item.writer)) {
        --writer->in_flight;
        resolve(item.writer);
    }
}

void Model::give_back(int number) {
    const Item item = taken.at(number);
    taken.erase(number);
    ++counts.given_back;
    Waiting* writer = sync_writer(item.writer);
    if (writer) {
        --writer->in_flight;
        if (writer->cancelled) {
            ++counts.withdrawn;
            writer->why = writer->ending;
            return resolve(item.writer);
        }
    }
    if (removed) return drop(item, Wake::kRemoved);
    const bool idle = std::none_of(queue.begin(), queue.end(), [&](const Item& other) {
        return other.priority == item.priority;
    });
    if (idle) passes[item.priority] = std::max(passes[item.priority], pass);
    queue.push_back(item);
    serve();
    if (!queue.empty()) ring();
    let_in();
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
    if (Waiting* writer = sync_writer(item.writer)) {
        writer->why = why;
        resolve(item.writer);
    }
}

void Model::withdraw(int id, Wake why) {
    Waiting& writer = *sync_writer(id);
    if (!writer.cancelled) writer.ending = why;
    writer.cancelled = true;
    const auto gone = std::erase_if(queue, [&](const Item& item) { return item.writer == id; });
    if (gone == 0) return;
    counts.withdrawn += gone;
    writer.why = why;
    writer.unresolved = writer.in_flight;
    if (writer.unresolved == 0) unpark(sync_writers, id, why);
}

void Model::cancel_reader(int id, Wake why) {
    if (std::erase(readers, id)) end(id, why);
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
    if (paused && (!blocks() ||
                   (queue.size() <= settings.low_mark() && bytes() <= settings.low_mark_bytes()))) {
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
    open();
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
            if (!credits.empty() && queue.size() + credits.size() >= settings.high_mark()) return;
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
    const auto all = std::exchange(queue, {});
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
    settings = to;
    if (blocks() && !sync() && !paused && at_high()) {
        paused = true;
        paused_since = now;
        ++counts.pauses;
    }
    let_in();
}

bool Model::remove() {
    if (!queue.empty()) return false;
    removed = true;
    const auto all = [&](Wake why) {
        for (int id : readers) end(id, why);
        for (int id : openers) end(id, why);
        readers.clear();
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
    for (int id : openers) end(id, Wake::kShutdown);
    readers.clear();
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
    // What is let in may be late itself.
    for (std::vector<Item> late;; late.clear()) {
        std::erase_if(queue, [&](const Item& item) {
            if (item.expires > now) return false;
            late.push_back(item);
            return true;
        });
        if (late.empty()) break;
        counts.expired += late.size();
        for (const Item& item : late) drop(item, Wake::kTimedOut);
        let_in();
    }
    open();
}

}  // namespace ipcfs::channel
