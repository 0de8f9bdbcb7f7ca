// Group payload: large messages of which the sender writes every byte and the receiver reads every
// byte, two processes on two CPUs.
#include <algorithm>
#include <memory>
#include <stdexcept>
#include <string>
#include <sys/types.h>
#include <unistd.h>
#include <vector>

#include "actor.hpp"
#include "bulk.hpp"
#include "payload.hpp"
#include "payload_client.hpp"
#include "servers.hpp"

namespace ipcfs::bench {
namespace {

constexpr unsigned kChunks = 8;  // of the ring, and what a Channel gives a pool by itself

// A channel of ipcfs, through the client header. Its setting `payloads` says whether loans are chunks of
// a pool or memory that is sealed.
class ChannelLink final : public BulkLink {
public:
    ChannelLink(std::string path, std::size_t size) : path_(std::move(path)), size_(size) {}
    std::unique_ptr<BulkEnd> open_sender() override {
        return std::make_unique<Sender>(path_, size_);
    }
    std::unique_ptr<BulkEnd> open_receiver() override { return std::make_unique<Receiver>(path_); }

private:
    struct Sender final : BulkEnd {
        Sender(const std::string& path, std::size_t size)
            : channel(need(Channel::open(path))), size_of_each(size) {}
        void run(unsigned count, std::byte value) override {
            for (unsigned i = 0; i < count; ++i) {
                Loan loan = need(channel.loan(size_of_each));
                fill(loan.bytes(), nth(value, i));
                need(channel.send(std::move(loan)));
            }
        }
        Channel channel;
        std::size_t size_of_each;
    };
    struct Receiver final : BulkEnd {
        explicit Receiver(const std::string& path) : channel(need(Channel::open(path))) {}
        void run(unsigned count, std::byte value) override {
            for (unsigned done = 0; done < count;) {
                // Takes what there is, and gives back one by one.
                for (Message& message : need(channel.receive_batch(kChunks))) {
                    check(message.body(), nth(value, done++));
                    message = Message();
                }
            }
        }
        Channel channel;
    };
    const std::string path_;
    const std::size_t size_;
};

// Sender and receiver, each a process that stays, the one on the last CPU and the other on another.
class Pair {
public:
    Pair(const std::string& name, std::size_t size, std::unique_ptr<BulkLink> link)
        : size_(size),
          link_(std::move(link)),
          receiver_(name + ", receiver", [this] { return end(false); }),
          sender_(name + ", sender", [this] { return end(true); }) {}

    // GB/s of `count` messages, from the first touch of the first to the last of the last.
    Figures round(unsigned count) {
        const std::uint64_t command = std::uint64_t{count} << 8 | (value_ & 0xff);
        value_ += count;
        receiver_.start(command);
        sender_.start(command);
        const double from = sender_.finish().at(0);
        const double to = receiver_.finish().at(1);
        return {static_cast<double>(size_) * count / (to - from)};
    }

private:
    Actor::Act end(bool sender) {
        if (sender) {
            run_on(Place::kOneCpu);
        } else {
            put_server(getpid(), Place::kOneCpu);
        }
        std::shared_ptr<BulkEnd> end = sender ? link_->open_sender() : link_->open_receiver();
        return [end](std::uint64_t command) {
            const std::int64_t from = now_ns();
            end->run(static_cast<unsigned>(command >> 8), static_cast<std::byte>(command & 0xff));
            return Figures{static_cast<double>(from), static_cast<double>(now_ns())};
        };
    }

    const std::size_t size_;
    const std::unique_ptr<BulkLink> link_;
    unsigned value_ = 1;
    Actor receiver_, sender_;
};

}  // namespace

namespace {

void measure_size(Run& run, std::size_t size, const Server* (&servers)[2]) {
    const std::string what = "written and read, " + size_name(size);
    run.progress("payload: " + what);
    if (!has_memory(run, what, 12 * kChunks * size)) return;
    // More than there are chunks: none is touched for the first time in a round that counts.
    const unsigned count =
        std::max(run.count(static_cast<unsigned>(256 * kMiB / size)), 2 * kChunks);
    std::vector<std::unique_ptr<Pair>> pairs;
    std::vector<Round> rounds;
    const auto add = [&](const std::string& name, std::unique_ptr<BulkLink> link) {
        pairs.push_back(std::make_unique<Pair>(name, size, std::move(link)));
        rounds.push_back(warmed(kChunks * size,
                                [pair = pairs.back().get(), count] { return pair->round(count); }));
    };
    add("ring", open_ring(size, kChunks));
    add("socket", open_stream_socket(size));
    add("fresh memfd", open_fresh_memfd(size, false));
    add("fresh memfd on huge pages", open_fresh_memfd(size, true));
    // No more queued than the ring has chunks; a sender that waits goes on at half of it.
    const std::string bounds =
        "capacity " + std::to_string(kChunks) + "\nhigh-watermark 100\nlow-watermark 50\n";
    for (const Server* server : servers) {
        for (const std::string payloads : {"pooled", "sealed"}) {
            const std::string name = payloads + std::to_string(size);
            server->make_channel(name, bounds + "payloads " + payloads + "\n");
            add("ipcfs, " + payloads, std::make_unique<ChannelLink>(server->at(name), size));
        }
    }
    const auto figures = interleave(large_rounds(run, 31), rounds);
    pairs.clear();  // before the servers
    const double ring = figures[0][0], socket = figures[1][0];
    const auto row = [&](const std::string& name, double value, const std::string& baseline,
                         double baseline_value, Target target = {}) {
        run.add({what + ": " + name, value, "GB/s", baseline, baseline_value, target});
    };
    row("Unix stream socket", socket, "shared-memory ring", ring);
    row("fresh memfd", figures[2][0], "Unix stream socket", socket);
    row("fresh memfd, huge pages", figures[3][0], "Unix stream socket", socket);
    for (std::size_t i = 0; i < 2; ++i) {
        const std::string by = std::string(", ") + name_of(kTransports[i]);
        row("pooled" + by, figures[4 + 2 * i][0], "shared-memory ring", ring, ratio_at_least(0.9));
        row("sealed" + by, figures[5 + 2 * i][0], "Unix stream socket", socket,
            ratio_at_least(size > kMiB ? 1 : 0.7));
    }
}

}  // namespace

void measure_bulk_traffic(Run& run) {
    const Server uring(run, Server::Program::kIpcfs, Transport::kUring);
    const Server classic(run, Server::Program::kIpcfs, Transport::kClassic);
    const Server* servers[] = {&uring, &classic};
    for (const std::size_t size : {kMiB, 64 * kMiB}) {
        run.part([&] { measure_size(run, size, servers); });
    }
}

}  // namespace ipcfs::bench
