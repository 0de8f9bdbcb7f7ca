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

constexpr unsigned kSmallRing = 8;  // chunks

// A channel of ipcfs, through the client header. Its setting `payloads` says whether loans are chunks of
// a pool or memory that is sealed.
class BulkChannelLink final : public BulkLink {
public:
    BulkChannelLink(std::string path, std::size_t size, unsigned chunks, unsigned batch)
        : path_(std::move(path)), size_(size), batch_(batch) {
        options_.pools.chunks = chunks;
    }
    std::unique_ptr<BulkEnd> open_sender() override {
        return std::make_unique<Sender>(path_, options_, size_, batch_);
    }
    std::unique_ptr<BulkEnd> open_receiver() override { return std::make_unique<Receiver>(path_); }

private:
    // Fills loans, and sends them `batch` at a time (1: each by itself).
    struct Sender final : BulkEnd {
        Sender(const std::string& path, const ChannelOptions& options, std::size_t size,
               unsigned batch)
            : channel(need(Channel::open(path, options))), size_of_each(size), batch_of(batch) {}
        void run(unsigned count, std::byte value) override {
            for (unsigned i = 0; i < count; ++i) {
                Loan loan = need(channel.loan(size_of_each));
                fill(loan.bytes(), nth(value, i));
                if (batch_of == 1) {
                    need(channel.send(std::move(loan)));
                    continue;
                }
                need(together.add(std::move(loan)));
                if (together.size() == batch_of || i + 1 == count) {
                    need(channel.send_batch(together));
                }
            }
        }
        Channel channel;
        const std::size_t size_of_each;
        const unsigned batch_of;
        Batch together;
    };
    struct Receiver final : BulkEnd {
        explicit Receiver(const std::string& path) : channel(need(Channel::open(path))) {}
        void run(unsigned count, std::byte value) override {
            for (unsigned done = 0; done < count;) {
                // Takes what there is, and gives back one by one.
                for (Message& message : need(channel.receive_batch(kSmallRing))) {
                    check(message.body(), nth(value, done++));
                    message = Message();
                }
            }
        }
        Channel channel;
    };
    const std::string path_;
    const std::size_t size_;
    const unsigned batch_;
    ChannelOptions options_;
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

// The ring and the pool have the same number of chunks. At 1 MiB as many as do not fit into a core's own
// cache: a smaller ring is one of the rows.
unsigned chunks_of(std::size_t size) {
    return size > kMiB ? 8 : 32;
}

void measure_size(Run& run, std::size_t size, const Server* (&servers)[2]) {
    const std::string what = "written and read, " + size_name(size);
    run.progress("payload: " + what);
    const unsigned chunks = chunks_of(size);
    if (!has_memory(run, what, 12 * chunks * size)) return;
    // More than there are chunks: none is touched for the first time in a round that counts.
    const unsigned count =
        std::max(run.count(static_cast<unsigned>(512 * kMiB / size)), 2 * chunks);
    std::vector<std::unique_ptr<Pair>> pairs;
    std::vector<Round> rounds;
    const auto add = [&](const std::string& name, std::unique_ptr<BulkLink> link) {
        pairs.push_back(std::make_unique<Pair>(name, size, std::move(link)));
        // What is in flight of those that take fresh memory, in whole huge pages.
        rounds.push_back(warmed(12 * std::max(size, 4 * kMiB),
                                [pair = pairs.back().get(), count] { return pair->round(count); }));
    };
    add("ring", open_ring(size, chunks));
    add("small ring", open_ring(size, kSmallRing));
    add("socket", open_stream_socket(size));
    add("fresh memfd", open_fresh_memfd(size, false));
    add("fresh memfd on huge pages", open_fresh_memfd(size, true));
    const auto add_channel = [&](const Server& server, const std::string& payloads,
                                 unsigned batch) {
        const std::string name = payloads + std::to_string(batch) + "-" + std::to_string(size);
        // Sealed: no more memory in flight than that of a small ring; half of it free lets go on.
        server.make_channel(name, payloads == "pooled" ? "payloads pooled\n"
                                                       : "capacity 8\nhigh-watermark 100\n"
                                                         "low-watermark 50\npayloads sealed\n");
        add("ipcfs, " + name,
            std::make_unique<BulkChannelLink>(server.at(name), size, chunks, batch));
    };
    const unsigned batch = chunks / 4;
    const std::size_t first = rounds.size();
    for (const Server* server : servers) {
        add_channel(*server, "pooled", 1);
        add_channel(*server, "pooled", batch);
        add_channel(*server, "sealed", 1);
    }
    const auto figures = interleave(large_rounds(run, 21), rounds);
    pairs.clear();  // before the servers
    const std::string ring = "ring of " + std::to_string(chunks) + " chunks";
    const std::string small_ring = "ring of " + std::to_string(kSmallRing) + " chunks";
    const std::string socket = "Unix stream socket";
    const auto row = [&](const std::string& name, double value, const std::string& baseline,
                         double baseline_value, Target target = {}) {
        run.add({what + ": " + name, value, "GB/s", baseline, baseline_value, target});
    };
    const std::string together = "pooled, " + std::to_string(batch) + " at a time";
    const double with_ring = figures[0][0], with_small_ring = figures[1][0];
    const double with_socket = figures[2][0];
    row(socket, with_socket, ring, with_ring);
    row("fresh memfd", figures[3][0], socket, with_socket);
    row("fresh memfd, huge pages", figures[4][0], socket, with_socket);
    for (std::size_t i = 0; i < 2; ++i) {
        const std::string by = std::string(", ") + name_of(kTransports[i]);
        const auto* figure = &figures[first + 3 * i];
        row("pooled" + by, figure[0][0], ring, with_ring, ratio_at_least(0.9));
        row(together + by, figure[1][0], ring, with_ring, ratio_at_least(0.9));
        if (chunks != kSmallRing) {
            row(together + by, figure[1][0], small_ring, with_small_ring);
        }
        row("sealed" + by, figure[2][0], socket, with_socket,
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
