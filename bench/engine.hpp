// What the engine's benchmarks share: an engine of their own, and a message's way through it as the
// tree takes it.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include <payload/budget.hpp>
#include <payload/memory.hpp>
#include <payload/payload.hpp>

#include <access/account.hpp>
#include <base/clock.hpp>
#include <base/timer_queue.hpp>
#include <channel/channel.hpp>
#include <channel/registry.hpp>
#include <queue/message.hpp>
#include <tree/message_file.hpp>

namespace ipcfs::bench {

struct World {
    SystemClock clock;
    TimerQueue timers;
    queue::MessagePool messages;
    access::Ledger ledger;
    payload::Budget budget{clock, payload::available_memory};
    payload::Store payloads{ledger, budget};
    channel::Environment environment{clock, timers, messages, ledger};
    channel::Registry registry{environment, channel::Settings{}, 4};
    access::Account& account = ledger.account(1000);

    std::shared_ptr<channel::Channel> make(const std::string& name,
                                           std::uint64_t parent = channel::Registry::kRootId) {
        channel::Attributes attributes;
        attributes.mode = 0777;
        auto made = registry.create(parent, name, std::move(attributes), account);
        if (!made) throw std::runtime_error(made.error().message());
        return *made;
    }
    // Channels c0, c1, ... below the root, until there are `count`.
    void fill(std::size_t count) {
        while (registry.size() < count) make("c" + std::to_string(registry.size()));
    }

    // A batch of one message, charged as a client's is.
    queue::Batch batch(std::span<const std::byte> body, std::uint8_t priority = queue::kNormal) {
        queue::MessageRef message = messages.make({}, body);
        message->charged_message = *access::Charge::take(account, access::Resource::kMessages, 1);
        message->charged_bytes =
            *access::Charge::take(account, access::Resource::kBytes, message->size());
        message->envelope.priority = priority;
        queue::Batch one;
        one.add(std::move(message));
        return one;
    }
    void push(channel::Channel& to, std::span<const std::byte> body,
              std::uint8_t priority = queue::kNormal) {
        queue::Batch one = batch(body, priority);
        if (to.try_push(one, queue::Via::kQueueFile, true, nullptr) != channel::Push::kQueued) {
            throw std::runtime_error("a push did not queue");
        }
    }
    std::size_t pop(channel::Channel& from) {
        queue::MessageRef message;
        if (from.try_take(message) != channel::Take::kTaken) {
            throw std::runtime_error("a pop found nothing");
        }
        from.delivered(*message);
        return message->body().size();
    }
};

// A channel's `queue`, opened for writing and for reading, as a door uses it.
class OpenQueue {
public:
    OpenQueue(World& world, const std::shared_ptr<channel::Channel>& channel, uid_t uid)
        : subject_{uid, 0, 1, 1},
          writing_(open(world, channel, {false, true, false})),
          reading_(open(world, channel, {true, false, false})) {}

    void write_and_read(std::span<const std::byte> body) {
        queue::Batch pending;
        int error = 0;
        if (writing_->try_write({body, subject_, false}, pending, error) != tree::Outcome::kDone ||
            error != 0) {
            throw std::runtime_error("a write was not done");
        }
        tree::Delivery delivery;
        if (reading_->try_read({4096, offset_, false}, delivery) != tree::Outcome::kDone ||
            delivery.size() != body.size()) {
            throw std::runtime_error("a read did not bring what was written");
        }
        offset_ += delivery.size();
        reading_->settle(delivery, true);
    }

private:
    std::shared_ptr<tree::MessageFile> open(World& world,
                                            const std::shared_ptr<channel::Channel>& channel,
                                            tree::OpenMode mode) const {
        auto file = tree::MessageFile::open(channel, tree::file_kind(tree::Kind::kQueue)->messages,
                                            mode, subject_, world.payloads);
        if (!file) throw std::runtime_error(file.error().message());
        return *file;
    }
    access::Subject subject_;
    std::shared_ptr<tree::MessageFile> writing_, reading_;
    std::uint64_t offset_ = 0;
};

class Run;
void measure_traffic_of_threads(Run& run);  // engine_traffic.cpp

}  // namespace ipcfs::bench
