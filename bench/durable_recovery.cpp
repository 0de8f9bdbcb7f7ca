// Group durable: how long a daemon takes from its start until it serves, with a million messages in
// its store: after an orderly end and after kill -9. Redis loading as many from its file beside it. And
// what it takes to empty segments of which some is alive.
#include <array>
#include <chrono>
#include <cstdio>
#include <fcntl.h>
#include <filesystem>
#include <signal.h>
#include <stdexcept>
#include <string>
#include <thread>
#include <unistd.h>

#include "census.hpp"
#include "durable.hpp"
#include "durable_store.hpp"
#include "payload_client.hpp"
#include "processes.hpp"
#include "senders.hpp"
#include "servers.hpp"
namespace ipcfs::bench {
namespace {

constexpr unsigned kMillion = 1'000'000;
constexpr unsigned kBatch = 1'000;  // messages a write

void fill_channel(const Server& server, unsigned count) {
    server.make_channel("kept", "capacity 2000000\nbytes 8G\nhigh-watermark 100\ndurable async\n");
    auto channel = need(Channel::open(server.at("kept")));
    for (Numbered message; message.number < count;) {
        Batch batch;
        for (unsigned i = 0; i < kBatch && message.number < count; ++i, ++message.number) {
            need(batch.add(message.bytes()));
        }
        need(channel.send_batch(batch));
    }
}

}  // namespace

void measure_recovery_of_the_store(Run& run) {
    const unsigned count = run.count(kMillion);
    run.progress("durable: recovery of the store");
    const std::string directory = make_directory(run, "store");
    const auto recover = [&](const std::string& after) {
        const auto from = now_ns();
        StoreUnderTest store(directory + "/store");
        const double took = static_cast<double>(now_ns() - from) / 1e9;
        if (store.recovered() != count) throw std::runtime_error("messages are missing " + after);
        run.add({"store alone, recovery of all messages, " + after, took, "s", "", std::nullopt,
                 Target{}});
    };
    const pid_t filler = fork_child([&] {
        StoreUnderTest store(directory + "/store");
        store.fill(count, Numbered().bytes());
        kill(getpid(), SIGKILL);
    });
    if (!wait_for(filler, 60'000'000'000)) throw std::runtime_error("the store does not fill");
    recover("after kill -9");
    recover("after an orderly end");
    std::filesystem::remove_all(directory);
}

void measure_cleaning(Run& run) {
    const unsigned count = run.count(800'000);
    run.progress("durable: emptying segments");
    const std::array<std::byte, 1024> body{};
    for (const unsigned percent : {10U, 50U, 90U}) {
        const std::string directory = make_directory(run, "cleaned");
        const auto took =
            StoreUnderTest(directory + "/store").clean(count, percent, count / 20, body);
        const std::string name =
            "store alone, " + std::to_string(percent) + " % of 1 KiB messages are long-lived, ";
        run.add({name + "written", took.written, "x", "", std::nullopt, value_at_most(2.1)});
        run.add({name + "disk", took.disk, "x", "", std::nullopt, Target{}});
        std::filesystem::remove_all(directory);
    }
}

void measure_recovery(Run& run) {
    constexpr auto kFillPatience = 60'000'000'000;  // ns
    const unsigned count = run.count(kMillion);
    run.progress("durable: recovery of " + std::to_string(count) + " messages");
    const std::string directory = make_directory(run, "kept");
    const Server::Start start{Transport::kUring, directory, {}};
    {
        Server server(run, start);
        fill_channel(server, count);
    }
    std::optional<double> redis_took;
    if (Redis::there()) {
        Redis redis(run, "everysec");
        redis.fill(count, Numbered().bytes());
        redis_took = redis.restart(count) / 1e9;
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
        run.add({"from start to ready, all messages, " + std::string(after), median(took), "s",
                 Redis::there() ? "Redis, from its append-only file" : "", redis_took,
                 value_below(5)});
    };
    // The holder starts another daemon; who asks meanwhile waits for it.
    run.part([&] {
        Server server(run, start);
        if (server.value("kern/ipc/version", "survives") != "yes") return;
        const auto from = now_ns();
        kill(server.pid(), SIGKILL);
        std::string depth;
        // What the kernel was just handing to the daemon ends undone (ECANCELED): asked again.
        while ((depth = server.value("kept/status", "depth")).empty() &&
               now_ns() - from < kFillPatience)
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        run.add({"from kill -9 to an answer through the same mount, all messages",
                 static_cast<double>(now_ns() - from) / 1e9, "s", "", std::nullopt, Target{}});
        if (depth != std::to_string(count))
            throw std::runtime_error("of the messages there are " + depth + " after kill -9");
    });
    measure("after SIGTERM", SIGTERM);
    measure("after kill -9", SIGKILL);
    std::filesystem::remove_all(directory);
}

}  // namespace ipcfs::bench
