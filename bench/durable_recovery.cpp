// Group durable: how long a daemon takes from its start until it serves, with a million messages in
// its store: after an orderly end and after kill -9. Redis loading as many from its file beside it.
#include <array>
#include <cstdio>
#include <fcntl.h>
#include <filesystem>
#include <signal.h>
#include <stdexcept>
#include <string>

#include "census.hpp"
#include "durable.hpp"
#include "processes.hpp"
#include "senders.hpp"
#include "servers.hpp"
#include <ipcfs/channel.hpp>

namespace ipcfs::bench {
namespace {

constexpr unsigned kMillion = 1'000'000;
constexpr unsigned kTogether = 1'000;  // messages a write

void fill(const Server& server, unsigned count) {
    server.make_channel("kept", "capacity 2000000\nbytes 8G\nhigh-watermark 100\ndurable async\n");
    auto channel = Channel::open(server.at("kept"));
    if (!channel) throw std::runtime_error(channel.error().message());
    for (Numbered message; message.number < count;) {
        Batch batch;
        for (unsigned i = 0; i < kTogether && message.number < count; ++i, ++message.number) {
            if (auto added = batch.add(message.bytes()); !added) {
                throw std::runtime_error(added.error().message());
            }
        }
        if (auto sent = channel->send_batch(batch); !sent) {
            throw std::runtime_error(sent.error().message());
        }
    }
}

}  // namespace

void measure_recovery(Run& run) {
    const unsigned count = run.count(kMillion);
    run.progress("durable: recovery of " + std::to_string(count) + " messages");
    const std::string state = make_directory(run, "kept");
    const Server::Start start{Transport::kUring, state, {}};
    {
        Server server(run, start);
        fill(server, count);
    }
    const auto measure = [&](const char* after, int signal) {
        std::vector<double> took;
        for (int round = 0; round < 3; ++round) {
            const auto from = now_ns();
            Server server(run, start);
            const std::string depth = server.value("kept/status", "depth");
            took.push_back(static_cast<double>(now_ns() - from) / 1e9);
            if (depth != std::to_string(count)) {
                throw std::runtime_error("of the messages there are " + depth + " after " + after);
            }
            server.end(signal);
        }
        run.add({"from start to ready, 1,000,000 messages, " + std::string(after), median(took),
                 "s", "", std::nullopt, value_below(5)});
    };
    measure("after SIGTERM", SIGTERM);
    measure("after kill -9", SIGKILL);
    std::filesystem::remove_all(state);
}

}  // namespace ipcfs::bench
