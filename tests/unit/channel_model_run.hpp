// Random operations on a channel and on its model (channel_model.hpp), compared after each one.
// Operations happen at multiples of 100 ms and messages expire between two of them, so that the
// order of sweeps does not matter. IPCFS_TEST_SEED repeats a run.
#pragma once

#include <csignal>
#include <set>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "channel_model.hpp"
#include "engine_fixture.hpp"

namespace ipcfs::channel {

// The kind of run: the channel's type, and whether messages are leased.
enum class Play : std::uint8_t { kQueue, kSync, kLeases, kBatch };

class ModelRun {
public:
    ModelRun(std::uint64_t seed, Play play) : random_(seed), play_(play) {
        model_.settings = Settings{};
        if (play == Play::kSync) model_.settings.type = Type::kSync;
        if (play == Play::kBatch) {
            model_.settings.type = Type::kBatch;
            model_.settings.batch = BatchGate{4, 3 * kStep};  // the default time is not on the grid
        }
        jobs_ = std::make_shared<Channel>(world_.env, 1, model_.settings);
        model_.now = world_.clock.monotonic();
        settings();
        for (int i = 0; leases() && i < 3; ++i) holders_.push_back(new_process());
    }

    void play(int steps) {
        for (step_ = 0; step_ < steps && !testing::Test::HasFailure(); ++step_) {
            operation();
            compare();
        }
        finish();
    }

private:
    using Via = queue::Via;
    using Wake = queue::Wake;
    static constexpr Nanos kStep = 100 * kMillisecond;

    struct Watch {
        PollSlot slot;
        int notified = 0;
        unsigned wanted = 0;
        Lane lane = Lane::kMain;
        bool registered = false, held = false;  // held: its condition held at the last check
    };

    std::uint64_t below(std::uint64_t bound) { return random_() % bound; }
    template <class T>
    T one_of(std::initializer_list<T> values) {
        return values.begin()[below(values.size())];
    }
    template <class Map>
    auto any(Map& map) {
        return std::next(map.begin(), static_cast<std::ptrdiff_t>(below(map.size())));
    }
    unsigned state() const {
        return (model_.readable() ? POLLIN : 0U) | (model_.writable() ? POLLOUT : 0U);
    }

    bool leases() const { return play_ == Play::kLeases || play_ == Play::kBatch; }

    void operation() {
        if (leases() && below(3)) return lease_operation();
        switch (below(22)) {
            case 0:
            case 1:
            case 2:
            case 3:
            case 4:
            case 5: return write();
            case 6:
            case 7:
            case 8: return try_take();
            case 9:
            case 10: return take();
            case 11:
            case 12: return settle();
            case 13: return cancel();
            case 14:
            case 15: return open();
            case 16: return leave();
            case 17:
            case 18: return advance();
            case 19: return watch();
            case 20: return below(3) ? advance() : command();
            default: return below(4) ? watch() : settings();
        }
    }

    void write() {
        said_ = "write";
        Model::Parcel parcel;
        queue::Batch batch;
        const auto count = below(4) ? 1 : 1 + below(4);
        const bool critical = below(6) == 0;
        for (std::uint64_t i = 0; i < count; ++i) {
            Model::Item item;
            item.number = ++numbers_;
            std::string body = std::to_string(item.number);
            if (below(3) == 0) body.resize(body.size() + below(120), '.');
            item.size = body.size();
            item.priority =
                critical ? std::uint8_t{255} : one_of<std::uint8_t>({0, 7, 128, 128, 192, 255});
            auto message = world_.message(body, item.priority);
            if (below(8) == 0) {
                item.late = model_.now + static_cast<Nanos>(below(8)) * kStep - kStep / 2;
                message->envelope.drop_when_late = true;
                message->envelope.deadline = ManualClock::kEpoch + item.late;
            }
            auto& account = world_.ledger.account(static_cast<uid_t>(below(3)));
            message->charged_message =
                *access::Charge::take(account, access::Resource::kMessages, 1);
            message->charged_bytes =
                *access::Charge::take(account, access::Resource::kBytes, item.size);
            batch.add(std::move(message));
            parcel.items.push_back(item);
        }
        // Two natural writes cannot wait at the same time: the first holds the inode lock.
        parcel.natural = below(2) && model_.natural_parked() == 0;
        const Via via = parcel.natural ? Via::kQueueFile : Via::kOther;
        int turn = -1;
        if (!turns_.empty() && below(2)) turn = any(turns_)->first;
        WriteTicket* held = turn == -1 ? nullptr : turns_.at(turn).get();
        const bool may_wait = below(2);
        const Push expected = model_.try_push(parcel, may_wait, turn);
        const Push push = jobs_->try_push(batch, via, may_wait, held);
        ASSERT_EQ(push, expected) << where();
        ASSERT_EQ(batch.count, push == Push::kQueued ? 0 : parcel.items.size());
        if (push != Push::kWait || !may_wait) return;
        const int id = ++ids_;
        auto writer = std::make_unique<Writer>();
        writer->batch = std::move(batch);
        writer->via = via;
        if (below(12) == 0) {
            jobs_->cancel(*writer, Wake::kInterrupted);
            model_.ends.insert_or_assign(id, Model::End{Wake::kInterrupted, 0});
        } else {
            model_.push(id, parcel, turn);
        }
        jobs_->push(*writer, held);
        writers_.emplace(id, std::move(writer));
    }

    static int number(const queue::MessageRef& message) { return std::atoi(text(message).c_str()); }

    void try_take() {
        said_ = "try_take";
        queue::MessageRef message;
        const int expected = model_.try_take();
        const Take take = jobs_->try_take(message);
        ASSERT_EQ(take, expected ? Take::kTaken : Take::kEmpty) << where();
        if (!expected) return;
        ASSERT_EQ(number(message), expected) << where();
        taken_.emplace(expected, std::move(message));
    }

    void take() {
        said_ = "take";
        const int id = ++ids_;
        auto reader = std::make_unique<Reader>();
        if (below(12) == 0) {
            jobs_->cancel(*reader, Wake::kInterrupted);
            model_.ends.insert_or_assign(id, Model::End{Wake::kInterrupted, 0});
        } else {
            model_.take(id);
        }
        jobs_->take(*reader);
        readers_.emplace(id, std::move(reader));
    }

    void settle() {
        if (taken_.empty()) return;
        auto at = any(taken_);
        auto [number, message] = *at;
        taken_.erase(at);
        if (below(3) == 0) {
            said_ = "give_back";
            model_.give_back(number);
            jobs_->give_back(std::move(message));
        } else {
            said_ = "delivered";
            model_.delivered(number);
            jobs_->delivered(*message);
        }
    }

    void lease_operation() {
        switch (below(13)) {
            case 0:
            case 1:
            case 2: return try_lease();
            case 3:
            case 4: return lease();
            case 5: return dead_letter();
            case 6: return take_dead();
            case 7: return die();
            case 8:
                said_ = "redrive";
                model_.redrive();
                ASSERT_TRUE(jobs_->control("redrive\n"));
                return;
            case 9: return advance();
            default: return end_lease();
        }
    }

    void check_lease(const queue::MessageRef& message, const Leased& lease) {
        const Model::Trial& trial = model_.leases.at(lease.id);
        ASSERT_EQ(number(message), trial.item.number) << where();
        ASSERT_EQ(lease.envelope.deliveries, trial.item.deliveries) << where();
        ASSERT_EQ(lease.envelope.redelivered, trial.item.again) << where();
        ASSERT_EQ(lease.envelope.sequence, trial.item.sequence) << where();
        leased_.emplace(lease.id, message);
    }

    void try_lease() {
        said_ = "try_lease";
        queue::MessageRef message;
        Leased lease;
        const pid_t holder = holders_[below(holders_.size())];
        const int expected = model_.try_lease(holder);
        const Take take = jobs_->try_lease(message, lease, holder);
        ASSERT_EQ(take, expected ? Take::kTaken : Take::kEmpty) << where();
        if (!expected) return;
        ASSERT_EQ(lease.id, model_.last_lease) << where();
        check_lease(message, lease);
    }

    void lease() {
        said_ = "lease";
        const int id = ++ids_;
        auto reader = std::make_unique<Reader>();
        reader->leases = true;
        reader->holder = holders_[below(holders_.size())];
        if (below(8) == 0) {
            jobs_->cancel(*reader, Wake::kInterrupted);
            model_.ends.insert_or_assign(id, Model::End{Wake::kInterrupted, 0});
        } else {
            model_.lease(id, reader->holder);
        }
        jobs_->take(*reader);
        readers_.emplace(id, std::move(reader));
    }

    // Ends any lease that ever existed; most have ended already.
    void end_lease() {
        if (model_.last_lease == 0) return;
        const bool current = below(4) && !model_.leases.empty();
        const std::uint64_t id = current ? any(model_.leases)->first : below(model_.last_lease + 3);
        ASSERT_EQ(has_lease(*jobs_, id), model_.leases.contains(id)) << where();
        const Nanos time = static_cast<Nanos>(1 + below(15)) * kStep;
        bool was = false, should = false;
        switch (below(8)) {
            case 0:
            case 1:
                said_ = "ack";
                should = model_.ack(id), was = jobs_->ack(id);
                break;
            case 2:
                said_ = "nack";
                should = model_.nack(id, 0), was = jobs_->nack(id, 0);
                break;
            case 3:
                said_ = "nack with a delay";
                should = model_.nack(id, time), was = jobs_->nack(id, time);
                break;
            case 4:
                said_ = "extend";
                should = model_.extend(id, time), was = jobs_->extend(id, time);
                break;
            case 5:
                said_ = "bury";
                should = model_.bury(id), was = jobs_->bury(id);
                break;
            case 6:
                said_ = "undo_lease";
                should = model_.undo_lease(id), was = jobs_->undo_lease(id);
                break;
            default: said_ = "end_lease"; should = model_.end_lease(id), was = jobs_->end_lease(id);
        }
        ASSERT_EQ(was, should) << where();
    }

    void dead_letter() {
        said_ = "try_take of a dead letter";
        queue::MessageRef message;
        const int expected = model_.try_take_dead();
        const Take take = jobs_->try_take(message, UINT64_MAX, Lane::kDead);
        ASSERT_EQ(take, expected ? Take::kTaken : Take::kEmpty) << where();
        if (!expected) return;
        ASSERT_EQ(number(message), expected) << where();
        ASSERT_TRUE(message->envelope.dead);
        taken_.emplace(expected, std::move(message));
    }

    void take_dead() {
        said_ = "take of a dead letter";
        const int id = ++ids_;
        auto reader = std::make_unique<Reader>();
        reader->lane = Lane::kDead;
        model_.take_dead(id);
        jobs_->take(*reader);
        readers_.emplace(id, std::move(reader));
    }

    // A process that holds leases ends.
    void die() {
        if (below(4)) return;
        said_ = "die";
        pid_t& holder = holders_[below(holders_.size())];
        for (const auto& [id, whose] : model_.leasing) {
            if (whose == holder) return;  // a waiting process is alive
        }
        end_process(holder);
        const std::size_t expected = model_.die(holder);
        ASSERT_EQ(world_.env.leases.sweep(), expected) << where();
        holder = new_process();
    }

    void cancel() {
        said_ = "cancel";
        const Wake why = one_of({Wake::kInterrupted, Wake::kTimedOut});
        if (below(2) && !readers_.empty()) {
            auto at = any(readers_);
            model_.cancel_reader(at->first, why);
            return jobs_->cancel(*at->second, why);
        }
        if (below(3) && !writers_.empty()) {
            auto at = any(writers_);
            model_.cancel_writer(at->first, why);
            return jobs_->cancel(*at->second, why);
        }
        if (openers_.empty()) return;
        auto at = any(openers_);
        model_.cancel_opener(at->first, why);
        jobs_->cancel(*at->second, why);
    }

    void open() {
        said_ = "open";
        const int id = ++ids_;
        auto turn = std::make_unique<WriteTicket>();
        const Gate expected = model_.try_gate(id);
        const Gate gate = jobs_->try_gate(*turn);
        ASSERT_EQ(gate, expected) << where();
        if (gate == Gate::kWait) {
            auto opener = std::make_unique<Opener>();
            model_.gate(id);
            jobs_->gate(*opener, *turn);
            openers_.emplace(id, std::move(opener));
        }
        turns_.emplace(id, std::move(turn));
    }

    // Closes an open file, unless its open still waits.
    void leave() {
        if (turns_.empty()) return;
        said_ = "leave";
        auto at = any(turns_);
        auto opener = openers_.find(at->first);
        if (opener != openers_.end() && opener->second->waits()) return;
        model_.leave(at->first);
        jobs_->leave(*at->second);
        turns_.erase(at);
    }

    void advance() {
        said_ = "advance";
        for (auto steps = below(3) ? 1 : 1 + below(12); steps > 0; --steps) {
            const Nanos now = model_.now;
            model_.at(now);
            world_.advance(0);
            model_.at(now + kStep / 2);
            world_.advance(kStep / 2);
            model_.at(now + kStep);
            world_.advance(kStep / 2);
        }
    }

    void command() {
        said_ = "command";
        std::string text;
        switch (below(leases() ? 12 : 4)) {
            case 0:
                text = "purge\n";
                model_.purge();
                break;
            case 1:
                text = "pause 500ms\n";
                model_.pause(5 * kStep);
                break;
            case 2:
                text = "pause\n";
                model_.pause(0);
                break;
            default: text = "resume\n"; model_.resume();
        }
        ASSERT_TRUE(jobs_->control(text));
        if (text == "pause\n" && below(2)) resume_later_ = true;
        if (resume_later_ && below(2)) {
            resume_later_ = false;
            model_.resume();
            ASSERT_TRUE(jobs_->control("resume\n"));
        }
    }

    void settings() {
        said_ = "settings";
        std::string text;
        auto line = [&](std::string_view key, const std::string& value) {
            if (below(2)) text.append(key).append(" ").append(value).append("\n");
        };
        line("capacity", std::to_string(1 + below(12)));
        line("bytes", std::to_string(1 + below(600)));
        line("max-message", std::to_string(1 + below(200)));
        line("high-watermark", std::to_string(50 + below(51)));
        line("low-watermark", std::to_string(below(51)));
        if (below(3) == 0) {
            line("overflow", one_of({"block", "block", "reject", "drop-oldest", "drop-newest"}));
        }
        line("schedule", one_of({"strict", "fair"}));
        line("ttl", one_of({"0", "50ms", "350ms", "1250ms"}));
        line("timeout", one_of({"100ms", "300ms", "1s", "5s"}));
        line("lease", one_of({"100ms", "300ms", "1s", "5s"}));
        line("max-deliveries", std::to_string(1 + below(4)));
        if (play_ == Play::kBatch) {
            line("batch", one_of({"off", "1 100ms", "2 1s", "3 100ms", "4 300ms", "9 500ms"}));
        }
        auto parsed = parse_control(text, model_.settings);
        ASSERT_TRUE(parsed) << text;
        model_.set(parsed->settings);
        ASSERT_TRUE(jobs_->control(text));
    }

    void watch() {
        said_ = "poll";
        Watch& one = watches_[below(4)];
        model_.poll();
        if (leases() && below(4) == 0) return watch_dead(one);
        one.lane = Lane::kMain;
        one.wanted = one_of<unsigned>({POLLIN, POLLOUT, POLLIN | POLLOUT});
        one.notified = 0;
        const unsigned now =
            jobs_->poll(one.slot, std::make_unique<CountingTicket>(one.notified, one.wanted));
        ASSERT_EQ(now, state()) << where();
        one.registered = true;
        one.held = state() & one.wanted;
    }

    void watch_dead(Watch& one) {
        one.lane = Lane::kDead;
        one.wanted = POLLIN;
        one.notified = 0;
        const unsigned now =
            jobs_->poll(one.slot, std::make_unique<CountingTicket>(one.notified, one.wanted), false,
                        Lane::kDead);
        ASSERT_EQ(now, holds(one) ? POLLIN : 0U) << where();
        one.registered = true;
        one.held = holds(one);
    }
    bool holds(const Watch& one) const {
        if (one.lane == Lane::kDead) return model_.dead_readable();
        return state() & one.wanted;
    }

    void compare_waiters() {
        auto same = [&](const auto& waiters) {
            for (const auto& [id, waiter] : waiters) {
                auto end = model_.ends.find(id);
                ASSERT_EQ(waiter->finished.load(), end == model_.ends.end() ? 0 : 1)
                    << "waiter " << id << where();
                if (end != model_.ends.end()) {
                    ASSERT_EQ(waiter->why, end->second.why) << "waiter " << id << where();
                }
            }
        };
        same(readers_);
        same(writers_);
        same(openers_);
        for (auto at = readers_.begin(); at != readers_.end();) {
            Reader& reader = *at->second;
            if (reader.waits()) {
                ++at;
                continue;
            }
            const auto& [why, expected, lease] = model_.ends.at(at->first);
            ASSERT_EQ(reader.message ? number(reader.message) : 0, expected) << where();
            ASSERT_EQ(reader.lease.id, lease) << where();
            // The lease may have ended within the same operation.
            if (lease && model_.leases.contains(lease)) check_lease(reader.message, reader.lease);
            if (expected && !lease) taken_.emplace(expected, std::move(reader.message));
            at = readers_.erase(at);
        }
        std::erase_if(writers_, [](const auto& entry) { return !entry.second->waits(); });
        std::erase_if(openers_, [](const auto& entry) { return !entry.second->waits(); });
    }

    void same_list(const std::vector<Listed>& listed, std::vector<Model::Item> expected) {
        std::sort(expected.begin(), expected.end(), [](const auto& a, const auto& b) {
            return std::pair(255 - a.priority, a.place) < std::pair(255 - b.priority, b.place);
        });
        ASSERT_EQ(listed.size(), expected.size()) << where();
        for (std::size_t i = 0; i < listed.size(); ++i) {
            const queue::Envelope& envelope = listed[i].envelope;
            ASSERT_EQ(envelope.sequence, expected[i].sequence) << where();
            ASSERT_EQ(envelope.deliveries, expected[i].deliveries) << where();
            ASSERT_EQ(envelope.redelivered, expected[i].again) << where();
            ASSERT_EQ(envelope.dead, expected[i].dead) << where();
            ASSERT_EQ(listed[i].size, expected[i].size) << where();
        }
    }

    void compare() {
        if (testing::Test::HasFailure()) return;
        compare_waiters();
        if (testing::Test::HasFailure()) return;
        ASSERT_TRUE(model_.consistent()) << where();
        same_list(jobs_->list(), model_.queue);
        same_list(jobs_->list(Lane::kDead), model_.dead);
        for (const auto& [id, trial] : model_.leases) ASSERT_TRUE(has_lease(*jobs_, id)) << where();
        if (testing::Test::HasFailure()) return;
        const Snapshot now = jobs_->snapshot();
        const Counters &is = now.counters, &should = model_.counts;
        ASSERT_EQ(now.depth, model_.queue.size()) << where();
        ASSERT_EQ(now.ready, model_.ready()) << where();
        ASSERT_EQ(now.leased, model_.leases.size()) << where();
        ASSERT_EQ(now.delayed, model_.delayed.size()) << where();
        ASSERT_EQ(now.dead, model_.dead.size()) << where();
        ASSERT_EQ(now.bytes + now.leased_bytes + now.delayed_bytes, model_.load_bytes()) << where();
        ASSERT_EQ(now.bytes, model_.bytes()) << where();
        ASSERT_EQ(now.state == State::kPaused, model_.hold || model_.paused) << where();
        ASSERT_EQ(now.waiting_readers, model_.readers.size() + model_.dead_readers.size())
            << where();
        ASSERT_EQ(now.waiting_writers,
                  model_.writers.size() + model_.sync_writers.size() + model_.openers.size())
            << where();
        ASSERT_EQ(is.enqueued, should.enqueued) << where();
        ASSERT_EQ(is.delivered, should.delivered) << where();
        ASSERT_EQ(is.rejected, should.rejected) << where();
        ASSERT_EQ(is.timed_out, should.timed_out) << where();
        ASSERT_EQ(is.dropped_oldest, should.dropped_oldest) << where();
        ASSERT_EQ(is.dropped_newest, should.dropped_newest) << where();
        ASSERT_EQ(is.expired, should.expired) << where();
        ASSERT_EQ(is.purged, should.purged) << where();
        ASSERT_EQ(is.withdrawn, should.withdrawn) << where();
        ASSERT_EQ(is.given_back, should.given_back) << where();
        ASSERT_EQ(is.leased, should.leased) << where();
        ASSERT_EQ(is.acked, should.acked) << where();
        ASSERT_EQ(is.nacked, should.nacked) << where();
        ASSERT_EQ(is.lease_timeouts, should.lease_timeouts) << where();
        ASSERT_EQ(is.lease_returns, should.lease_returns) << where();
        ASSERT_EQ(is.lease_undone, should.lease_undone) << where();
        ASSERT_EQ(is.lease_buried, should.lease_buried) << where();
        ASSERT_EQ(is.dead, should.dead) << where();
        ASSERT_EQ(is.dead_taken, should.dead_taken) << where();
        ASSERT_EQ(is.redriven, should.redriven) << where();
        ASSERT_EQ(is.redelivered, should.redelivered) << where();
        ASSERT_EQ(is.pauses, should.pauses) << where();
        ASSERT_EQ(is.rings, model_.rings) << where();
        // Several rings during one operation may be coalesced.
        ASSERT_EQ(world_.bell.rings() > belled_, model_.rings > rung_) << where();
        belled_ = world_.bell.rings();
        rung_ = model_.rings;
        // Every message that was enqueued is queued, held by a reader, delivered, or accounted for.
        ASSERT_EQ(is.enqueued + is.given_back + is.leased,
                  now.depth + now.leased + now.delayed + now.dead + is.delivered + is.dead_taken +
                      is.acked + is.dropped_oldest + is.expired + is.purged + is.withdrawn)
            << where();
        for (Watch& one : watches_) {
            const bool holds = this->holds(one);
            if (one.registered && holds && !one.held) {
                ASSERT_EQ(one.notified, 1) << "a lost wake-up" << where();
            }
            ASSERT_LE(one.notified, 1) << where();
            if (one.notified) one.registered = false;
            one.held = holds;
        }
        PollSlot plain;
        model_.poll();
        ASSERT_EQ(jobs_->poll(plain, nullptr), state()) << where();
        compare_waiters();
        std::erase_if(leased_,
                      [&](const auto& held) { return !model_.leases.contains(held.first); });
    }

    // Ends the run by removal or shutdown while operations wait.
    void finish() {
        if (!testing::Test::HasFailure()) {
            said_ = "end";
            if (below(2)) {
                model_.purge();
                ASSERT_TRUE(jobs_->control("purge\n"));
                const bool gone = model_.remove();
                ASSERT_EQ(jobs_->remove().has_value(), gone) << where();
            } else {
                model_.shut_down();
                jobs_->shut_down();
            }
            compare_waiters();
        }
        jobs_->shut_down();
        for (auto& [number, message] : taken_) {
            if (below(2)) {
                jobs_->delivered(*message);
            } else {
                jobs_->give_back(std::move(message));
            }
        }
        taken_.clear();
        leased_.clear();
        for (auto& [id, turn] : turns_) jobs_->leave(*turn);
        for (auto& one : watches_) jobs_->forget(one.slot);
        auto ended = [&](const auto& waiters) {
            for (const auto& [id, waiter] : waiters) EXPECT_EQ(waiter->finished, 1) << where();
        };
        ended(readers_);
        ended(writers_);
        ended(openers_);
        readers_.clear();
        writers_.clear();
        jobs_.reset();
        for (pid_t holder : holders_) end_process(holder);
        world_.ledger.for_each([&](const access::Account& account) {
            EXPECT_EQ(account.used(access::Resource::kMessages), 0U) << where();
            EXPECT_EQ(account.used(access::Resource::kBytes), 0U) << where();
        });
    }

    std::string where() const {
        return " at step " + std::to_string(step_) + ", after " + said_ + ", with\n" +
               print(model_.settings);
    }

    // Processes that only exist to hold leases.
    static pid_t new_process() {
        const pid_t pid = fork();
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            for (;;) pause();
        }
        return pid;
    }
    static void end_process(pid_t pid) {
        kill(pid, SIGKILL);
        waitpid(pid, nullptr, 0);
    }

    std::mt19937_64 random_;
    const Play play_;
    World world_;
    Model model_;
    std::shared_ptr<Channel> jobs_;
    std::map<int, std::unique_ptr<Reader>> readers_;  // not yet checked, by id
    std::map<int, std::unique_ptr<Writer>> writers_;
    std::map<int, std::unique_ptr<Opener>> openers_;
    std::map<int, std::unique_ptr<WriteTicket>> turns_;
    std::map<int, queue::MessageRef> taken_;
    std::map<std::uint64_t, queue::MessageRef> leased_;  // kept like an open file keeps its message
    std::vector<pid_t> holders_;
    Watch watches_[4];
    int ids_ = 0, numbers_ = 0, step_ = 0;
    bool resume_later_ = false;
    std::uint64_t belled_ = 0, rung_ = 0;
    const char* said_ = "nothing";
};

inline void play(Play what) {
    const std::uint64_t seed = test_seed();
    for (std::uint64_t round = 0; round < 150 && !testing::Test::HasFailure(); ++round) {
        SCOPED_TRACE("IPCFS_TEST_SEED=" + std::to_string(seed) + ", round " +
                     std::to_string(round));
        ModelRun(seed * 1000 + round, what).play(300);
    }
    if (testing::Test::HasFailure()) std::printf("repeat with IPCFS_TEST_SEED=%lu\n", seed);
}

}  // namespace ipcfs::channel
