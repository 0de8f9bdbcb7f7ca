// Group payload: large messages of which the sender writes every byte and the receiver reads every
// byte, two processes on two CPUs.
#include <memory>
#include <stdexcept>
#include <string>
#include <sys/types.h>
#include <unistd.h>
#include <vector>

#include "actor.hpp"
#include "bulk.hpp"
#include "payload.hpp"

namespace ipcfs::bench {
namespace {

constexpr unsigned kChunks = 4;  // of the ring and of the pool

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

void measure_bulk_traffic(Run& run) {
    for (const std::size_t size : {kMiB, 64 * kMiB}) {
        const std::string what = "written and read, " + size_name(size);
        run.progress("payload: " + what);
        if (!has_memory(run, what, 16 * kChunks * size)) continue;
        const unsigned count = run.count(static_cast<unsigned>(256 * kMiB / size));
        std::vector<std::string> names;
        std::vector<std::unique_ptr<Pair>> pairs;
        std::vector<Round> rounds;
        const auto add = [&](const std::string& name, std::unique_ptr<BulkLink> link) {
            names.push_back(name);
            pairs.push_back(std::make_unique<Pair>(name, size, std::move(link)));
            rounds.push_back([pair = pairs.back().get(), count] { return pair->round(count); });
        };
        add("shared-memory ring", open_ring(size, kChunks));
        add("Unix stream socket", open_stream_socket(size));
        add("fresh memfd", open_fresh_memfd(size, false));
        add("fresh memfd, huge pages", open_fresh_memfd(size, true));
        const auto figures = interleave(large_rounds(run, 31), rounds);
        for (std::size_t i = 1; i < names.size(); ++i) {
            run.add({what + ": " + names[i], figures[i][0], "GB/s", names[0], figures[0][0], {}});
        }
    }
}

}  // namespace ipcfs::bench
