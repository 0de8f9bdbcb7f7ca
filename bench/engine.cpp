// Group engine: what a message, a look-up and a channel cost without any door.
#include "engine.hpp"

#include <algorithm>
#include <array>
#include <deque>
#include <functional>
#include <mutex>
#include <random>

#include "allocations.hpp"
#include "census.hpp"
#include "groups.hpp"
#include "measure.hpp"

namespace ipcfs::bench {
namespace {

constexpr std::size_t kManyChannels = 10'000;
constexpr std::size_t kFewChannels = 10;

// The plainest queue between threads there is: what a message costs at least.
class PlainQueue {
public:
    void push(std::span<const std::byte> body) {
        Message one;
        std::copy(body.begin(), body.end(), one.begin());
        std::scoped_lock hold(mutex_);
        queue_.push_back(one);
    }
    std::size_t pop() {
        Message one;
        {
            std::scoped_lock hold(mutex_);
            one = queue_.front();
            queue_.pop_front();
        }
        return static_cast<std::size_t>(one[0]) + one.size();
    }

private:
    using Message = std::array<std::byte, kMessageSize>;
    std::mutex mutex_;
    std::deque<Message> queue_;
};

// Each operation timed by itself, the two readings of the clock included: p50 and p99.
template <class F>
Round percentiles(unsigned count, F call) {
    return [count, call, took = std::vector<double>()]() mutable {
        took.clear();
        took.reserve(count);
        for (unsigned i = 0; i < count; ++i) {
            const auto from = now_ns();
            call();
            took.push_back(static_cast<double>(now_ns() - from));
        }
        return Figures{percentile(took, 0.5), percentile(took, 0.99)};
    };
}

void measure_messages(Run& run) {
    run.progress("engine: push + pop");
    World world;
    auto empty = world.make("empty"), filled = world.make("filled"), levels = world.make("levels");
    const Numbered payload;
    for (unsigned i = 0; i < 500; ++i) world.push(*filled, payload.bytes());
    for (unsigned i = 0; i < 512; ++i) {
        world.push(*levels, payload.bytes(), static_cast<std::uint8_t>(i));
    }
    OpenQueue files(world, world.make("files"), 1000);
    PlainQueue plain;
    std::uint8_t priority = 0;
    const unsigned count = run.count(7'000);
    const struct {
        const char* name;
        std::function<void()> call;
    } subjects[] = {
        {"push + pop 64 B",
         [&] {
             world.push(*empty, payload.bytes());
             world.pop(*empty);
         }},
        {"push + pop 64 B, 500 queued",
         [&] {
             world.push(*filled, payload.bytes());
             world.pop(*filled);
         }},
        {"push + pop 64 B, 512 queued in 256 levels",
         [&] {
             priority = static_cast<std::uint8_t>(priority + 37);
             world.push(*levels, payload.bytes(), priority);
             world.pop(*levels);
         }},
        {"write + read 64 B on open files of the tree",
         [&] { files.write_and_read(payload.bytes()); }},
        {"mutex + std::deque",
         [&] {
             plain.push(payload.bytes());
             plain.pop();
         }},
    };
    std::vector<Round> rounds;
    for (const auto& subject : subjects) rounds.push_back(percentiles(count, subject.call));
    const auto figures = interleave(run.rounds(), rounds);
    const std::size_t baseline = rounds.size() - 1;
    for (std::size_t i = 0; i < baseline; ++i) {
        for (std::size_t p = 0; p < 2; ++p) {
            run.add({std::string(subjects[i].name) + (p == 0 ? ", p50" : ", p99"), figures[i][p],
                     "ns", subjects[baseline].name, figures[baseline][p],
                     p == 1 ? value_below(1000) : Target{}});
        }
    }
}

void measure_allocations(Run& run) {
    run.progress("engine: allocations");
    class Reader final : public queue::ReadWaiter {
    public:
        void finish() noexcept override { message.reset(); }
    };
    const std::vector<std::byte> body(256);
    const unsigned count = run.count(4'000);
    const auto counted = [&](const std::function<void()>& call) {
        for (unsigned i = 0; i < 2'000; ++i) call();  // warm
        const auto before = allocations();
        for (unsigned i = 0; i < count; ++i) call();
        return static_cast<double>(allocations() - before) / count;
    };
    World world;
    auto channel = world.make("jobs");
    std::deque<std::vector<std::byte>> plain;
    const double baseline = counted([&] {
        plain.push_back(body);
        plain.pop_front();
    });
    const auto row = [&](const std::string& name, double value) {
        run.add({name, value, "per message", "std::deque of vectors", baseline, value_at_most(0)});
    };
    for (const std::size_t size : {std::size_t{0}, std::size_t{64}, std::size_t{256}}) {
        row("allocations, push + pop " + std::to_string(size) + " B", counted([&] {
                world.push(*channel, std::span(body).first(size));
                world.pop(*channel);
            }));
    }
    row("allocations, 100 queued of 256 B", counted([&] {
                                                for (unsigned i = 0; i < 100; ++i) {
                                                    world.push(*channel, body,
                                                               static_cast<std::uint8_t>(i * 2));
                                                }
                                                for (unsigned i = 0; i < 100; ++i)
                                                    world.pop(*channel);
                                            }) / 100);
    OpenQueue files(world, channel, 1000);
    row("allocations, write + read 256 B on open files",
        counted([&] { files.write_and_read(body); }));
    Reader reader;
    row("allocations, 256 B to a waiting reader", counted([&] {
            channel->take(reader);
            world.push(*channel, body);
        }));
}

void measure_paths(Run& run) {
    run.progress("engine: path to channel");
    World few, many, nested;
    few.fill(kFewChannels);
    many.fill(kManyChannels);
    std::vector<std::string> few_paths, many_paths, nested_paths;
    for (std::size_t i = 0; i < kFewChannels; ++i) few_paths.push_back("c" + std::to_string(i));
    for (std::size_t i = 0; i < kManyChannels; ++i) many_paths.push_back("c" + std::to_string(i));
    for (std::size_t i = 0; i < kManyChannels / 100; ++i) {
        const std::string above = "d" + std::to_string(i);
        auto parent = nested.make(above);
        for (std::size_t j = 0; j + 1 < 100; ++j) {
            nested.make("c" + std::to_string(j), parent->id());
            nested_paths.push_back(above + "/c" + std::to_string(j));
        }
    }
    std::mt19937 random(1);  // the same order each time: no figure depends on luck
    for (auto* paths : {&few_paths, &many_paths, &nested_paths}) {
        std::shuffle(paths->begin(), paths->end(), random);
    }
    const unsigned count = run.count(10'000);
    const auto look_up = [count](World& world, const std::vector<std::string>& paths) -> Round {
        return [&world, &paths, count, at = std::size_t{0}]() mutable {
            const auto find = [&] {
                if (!world.registry.find_path(paths[at])) throw std::runtime_error("no such path");
                at = at + 1 == paths.size() ? 0 : at + 1;
            };
            // Once through all: what the round before it left in the caches is not its fault.
            for (std::size_t i = 0; i < paths.size(); ++i) find();
            return Figures{time_each(count, find)};
        };
    };
    const auto figures = interleave(
        run.rounds(),
        {look_up(few, few_paths), look_up(many, many_paths), look_up(nested, nested_paths)});
    run.add({"path to channel, 10,000 channels", figures[1][0], "ns", "10 channels", figures[0][0],
             value_below(100)});
    run.add({"path to channel, a/b, 10,000 channels",
             figures[2][0],
             "ns",
             "10 channels, a",
             figures[0][0],
             {}});
}

// Ten channels are in use; the others, if any, are idle.
void measure_scale(Run& run) {
    run.progress("engine: 10,000 channels");
    World few, many;
    few.fill(kFewChannels);
    many.fill(kFewChannels);
    const auto before = heap_in_use();
    many.fill(kFewChannels + kManyChannels);
    const double each = static_cast<double>(heap_in_use() - before) / kManyChannels;
    run.add({"memory of an idle channel, of 10,000", each, "B", "sizeof(Channel)",
             static_cast<double>(sizeof(channel::Channel)), value_at_most(4096)});

    const Numbered payload;
    const unsigned count = run.count(7'000);
    const auto operation = [&](World& world) -> Round {
        std::vector<std::string> paths;
        for (std::size_t i = 0; i < kFewChannels; ++i) paths.push_back("c" + std::to_string(i));
        return [&world, &payload, count, paths, at = std::size_t{0}]() mutable {
            return Figures{time_each(count, [&] {
                auto channel = world.registry.find_path(paths[at]);
                world.push(*channel, payload.bytes());
                world.pop(*channel);
                at = (at + 1) % kFewChannels;
            })};
        };
    };
    const auto figures = interleave(run.rounds(), {operation(few), operation(many)});
    run.add({"look-up + push + pop, 10,000 idle channels", figures[1][0], "ns", "10 channels",
             figures[0][0], ratio_at_most(1.2)});
}

}  // namespace

void run_engine(Run& run) {
    for (const auto measure :
         {measure_messages, measure_allocations, measure_paths, measure_scale}) {
        run.part([&] {
            run_on(Place::kOneCpu);
            measure(run);
        });
    }
    run.part([&] { measure_traffic_of_threads(run); });
}

}  // namespace ipcfs::bench
