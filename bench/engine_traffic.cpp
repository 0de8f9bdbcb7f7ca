// Eight writing and eight reading threads on one channel, and on eight: messages a second, and
// whether all came, once and in order. Waiting is real: writers at a full channel, readers at an
// empty.
#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "census.hpp"
#include "engine.hpp"
#include "groups.hpp"
#include "measure.hpp"

namespace ipcfs::bench {
namespace {

// A waiter whose owner sleeps until it is finished. Used again and again by its thread; it goes
// when all threads have ended, since finish() may still run when its owner goes on.
template <class Waiter>
class Sleeper final : public Waiter {
public:
    void begin() {
        this->why = queue::Wake::kServed;
        done_.store(false, std::memory_order_relaxed);
    }
    void wait() { done_.wait(false, std::memory_order_acquire); }
    void finish() noexcept override {
        done_.store(true, std::memory_order_release);
        done_.notify_one();
    }

private:
    std::atomic<bool> done_{false};
};

// A queue between threads. `who` is the calling thread's number among its kind.
class EngineLink {
public:
    virtual ~EngineLink() = default;
    virtual void send(std::uint32_t who, std::span<const std::byte> body) = 0;
    // Waits for one message.
    virtual bool receive(std::uint32_t who, Census::Reader& reader) = 0;
};

class EngineChannelLink final : public EngineLink {
public:
    EngineChannelLink(World& world, std::shared_ptr<channel::Channel> channel)
        : world_(world), channel_(std::move(channel)) {}

    void send(std::uint32_t who, std::span<const std::byte> body) override {
        queue::Batch one = world_.batch(body);
        auto push = channel_->try_push(one, queue::Via::kQueueFile, true, nullptr);
        if (push == channel::Push::kQueued) return;
        auto& waiter = writers_[who];
        waiter.begin();
        waiter.batch = std::move(one);
        waiter.via = queue::Via::kQueueFile;
        channel_->push(waiter, nullptr);
        waiter.wait();
        if (waiter.why != queue::Wake::kServed) throw std::runtime_error("a write was not served");
    }
    bool receive(std::uint32_t who, Census::Reader& reader) override {
        queue::MessageRef message;
        if (channel_->try_take(message) != channel::Take::kTaken) {
            auto& waiter = readers_[who];
            waiter.begin();
            channel_->take(waiter);
            waiter.wait();
            message = std::move(waiter.message);
        }
        channel_->delivered(*message);
        return reader.take(message->body());
    }

private:
    World& world_;
    std::shared_ptr<channel::Channel> channel_;
    std::array<Sleeper<queue::ReadWaiter>, kReaders> readers_;
    std::array<Sleeper<queue::WriteWaiter>, kWriters> writers_;
};

class PlainLink final : public EngineLink {
public:
    void send(std::uint32_t, std::span<const std::byte> body) override {
        Message one;
        std::copy(body.begin(), body.end(), one.begin());
        std::unique_lock hold(mutex_);
        room_.wait(hold, [&] { return queue_.size() < kCapacity; });
        queue_.push_back(one);
        hold.unlock();
        some_.notify_one();
    }
    bool receive(std::uint32_t, Census::Reader& reader) override {
        std::unique_lock hold(mutex_);
        some_.wait(hold, [&] { return !queue_.empty(); });
        const Message one = queue_.front();
        queue_.pop_front();
        hold.unlock();
        room_.notify_one();
        return reader.take(one);
    }

private:
    static constexpr std::size_t kCapacity = 800;  // a channel's high mark
    using Message = std::array<std::byte, kMessageSize>;
    std::mutex mutex_;
    std::condition_variable some_, room_;
    std::deque<Message> queue_;
};

using Links = std::vector<std::unique_ptr<EngineLink>>;

// Messages a second over one or eight links, and how many went wrong.
Figures run_threads(Links& links, std::uint32_t each) {
    Census census(each);
    std::vector<std::thread> writers, readers;
    std::atomic<bool> go{false};
    for (std::uint32_t i = 0; i < kReaders; ++i) {
        readers.emplace_back([&, i] {
            Census::Reader reader(census);
            while (links[i % links.size()]->receive(i, reader)) {
            }
        });
    }
    for (std::uint32_t i = 0; i < kWriters; ++i) {
        writers.emplace_back([&, i] {
            go.wait(false);
            Numbered message;
            message.writer = i;
            for (message.number = 0; message.number < each; ++message.number) {
                links[i % links.size()]->send(i, message.bytes());
            }
        });
    }
    // A message that is lost may leave a thread waiting for ever, which cannot be ended.
    std::promise<void> ended;
    std::thread watchdog([&, over = ended.get_future()] {
        if (over.wait_for(std::chrono::seconds(60)) == std::future_status::ready) return;
        std::fprintf(stderr, "ipcfs-bench: threads wait for messages that do not come\n");
        std::abort();
    });
    const auto from = now_ns();
    go = true;
    go.notify_all();
    for (auto& writer : writers) writer.join();
    Numbered end;
    end.writer = kEnd;
    for (std::uint32_t i = 0; i < kReaders; ++i) links[i % links.size()]->send(0, end.bytes());
    for (auto& reader : readers) reader.join();
    const double seconds = static_cast<double>(now_ns() - from) / 1e9;
    ended.set_value();
    watchdog.join();
    return {kWriters * static_cast<double>(each) / seconds, static_cast<double>(census.wrong())};
}

}  // namespace

void measure_traffic_of_threads(Run& run) {
    World world;
    for (const std::uint32_t channels : {1U, 8U}) {
        const std::string on = channels == 1 ? "one channel" : "eight channels";
        run.progress("engine: 8 writers and 8 readers, " + on);
        Links ours, plain;
        for (std::uint32_t i = 0; i < channels; ++i) {
            ours.push_back(std::make_unique<EngineChannelLink>(
                world, world.make("t" + std::to_string(channels) + std::to_string(i))));
            plain.push_back(std::make_unique<PlainLink>());
        }
        double wrong[2] = {0, 0};
        const auto round = [&](Links& links, double& sum) -> Round {
            return [&] {
                Figures figures = run_threads(links, run.count(10'000));
                sum += figures[1];
                return figures;
            };
        };
        const auto figures =
            interleave(std::min(run.rounds(), 7U), {round(ours, wrong[0]), round(plain, wrong[1])});
        const char* baseline = "mutex + condition + std::deque";
        run.add(
            {"8 writers, 8 readers, " + on, figures[0][0], "msg/s", baseline, figures[1][0], {}});
        run.add({"lost, doubled or out of order, " + on, wrong[0], "messages", baseline, wrong[1],
                 value_at_most(0)});
    }
}

}  // namespace ipcfs::bench
