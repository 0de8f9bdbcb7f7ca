// Group delivery: publishing without a door. A subscriber is a reader that waits; what is timed is the
// publication, which hands the message to all of them and tells them, and their settling it and
// waiting again.
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "census.hpp"
#include "contest.hpp"
#include "delivery.hpp"
#include "engine.hpp"
#include "measure.hpp"
#include <channel/subscription.hpp>

namespace ipcfs::bench {
namespace {

class Reader final : public queue::ReadWaiter {
public:
    explicit Reader(std::shared_ptr<channel::Subscription> subscription)
        : subscription_(std::move(subscription)) {
        subscription_->channel().take(*this);
    }
    void finish() noexcept override { done_ = true; }
    void again() {
        if (!done_ || !message) throw std::runtime_error("a subscriber was given nothing");
        subscription_->channel().delivered(*message);
        message.reset();
        done_ = false;
        subscription_->channel().take(*this);
    }
    void leave() { subscription_->end(); }

private:
    const std::shared_ptr<channel::Subscription> subscription_;
    bool done_ = false;
};

// A topic with that many subscribers.
struct Audience {
    Audience(World& world, unsigned count)
        : topic(world.make("n" + std::to_string(count))), world_(world) {
        if (auto set = topic->control("type topic\n"); !set) {
            throw std::runtime_error(set.error().message());
        }
        for (unsigned i = 0; i < count; ++i) {
            auto made = topic->subscribe(access::Subject{1000, 0, 1, 1}, world.account);
            readers.push_back(std::make_unique<Reader>(std::move(made)));
        }
    }
    ~Audience() {
        for (auto& reader : readers) reader->leave();
    }
    // ns a delivery: of the publication; of that and of the readers' waiting again.
    Round round(unsigned count) {
        return [this, count] {
            const Numbered message;
            double published = 0, all = 0;
            for (unsigned i = 0; i < count; ++i) {
                const auto from = now_ns();
                world_.push(*topic, message.bytes());
                const auto then = now_ns();
                for (auto& reader : readers) reader->again();
                published += static_cast<double>(then - from);
                all += static_cast<double>(now_ns() - from);
            }
            const double each = 1.0 / count / static_cast<double>(readers.size());
            return Figures{published * each, all * each};
        };
    }
    std::shared_ptr<channel::Channel> topic;
    std::vector<std::unique_ptr<Reader>> readers;

private:
    World& world_;
};

}  // namespace

void measure_publishing(Run& run) {
    run.progress("delivery: publishing in the engine");
    run_on(Place::kOneCpu);
    World world;
    std::vector<std::unique_ptr<Audience>> audiences;
    Contest contest;
    const auto name = [](unsigned count) { return std::to_string(count) + " subscribers"; };
    for (const unsigned count : {1U, 10U, 100U, 1000U}) {
        audiences.push_back(std::make_unique<Audience>(world, count));
        contest.add(name(count), audiences.back()->round(run.count(20'000) / count));
    }
    contest.run(std::min(run.rounds(), 31U));
    for (const unsigned count : {1U, 100U, 1000U}) {
        const Target target = count == 1 ? Target{} : ratio_at_most(1.5);
        const std::string what = "publish in the engine, " + name(count);
        run.add(contest.row(what, name(count), name(10), target));
        run.add(contest.row(what + ", delivered and waiting again", name(count), name(10), target,
                            "ns", 1));
    }
    run_on(Place::kFree);
}

}  // namespace ipcfs::bench
