// Threads that send and receive, with live statistics of the channel from its file `stats`, as any
// program can read it.
//
//     live CHANNEL [MESSAGES] [lease]       default: 200000; lease: messages are acknowledged
//
// Creates the channel if needed. The exit code is 1 unless each message arrived exactly once.
// Build: g++ -std=c++20 -O2 live.cpp $(pkg-config --cflags --libs ipcfs)
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <ipcfs/ipcfs.hpp>

constexpr unsigned long kThreads = 2;  // that send, and as many that receive

int fail(const ipcfs::Error& error) {
    return std::fprintf(stderr, "live: %s\n", error.message().c_str()), 1;
}

int produce(ipcfs::Channel& channel, unsigned long first, unsigned long messages) {
    for (unsigned long number = first; number < messages; number += kThreads) {
        if (auto sent = channel.send(std::to_string(number)); !sent) return fail(sent.error());
    }
    // An end marker for one consumer, with the lowest priority.
    ipcfs::SendOptions end;
    end.type = ipcfs::FrameType::kEvent;
    end.priority = 0;
    auto sent = channel.send("", end);
    return sent ? 0 : fail(sent.error());
}

// Counts the messages by number until an end marker comes.
int consume(ipcfs::Channel& channel, bool lease, std::vector<std::atomic<int>>& counts) {
    while (true) {
        ipcfs::Message message;
        if (lease) {
            auto leased = channel.lease();
            if (!leased) return fail(leased.error());
            message = leased->message();
            // Removes the message: had this process died before, another would have got it.
            if (auto done = leased->ack(); !done) return fail(done.error());
        } else {
            auto received = channel.receive();
            if (!received) return fail(received.error());
            message = std::move(*received);
        }
        if (message.type() == ipcfs::FrameType::kEvent) return 0;
        ++counts.at(std::stoul(std::string(message.text())));
    }
}

// Reads a file of statistics: a line of names, a line of values. Look values up by name, since
// columns may be added.
std::map<std::string, double> read_stats(const std::string& path) {
    std::ifstream file(path);
    std::string names;
    std::string values;
    std::getline(file, names);
    std::getline(file, values);
    std::istringstream name(names);
    std::istringstream value(values);
    std::map<std::string, double> row;
    for (std::string key, cell; name >> key && value >> cell;) row[key] = std::atof(cell.c_str());
    return row;
}

int main(int argc, char** argv) {
    if (argc < 2) return std::fputs("usage: live CHANNEL [MESSAGES] [lease]\n", stderr), 2;
    const unsigned long messages = argc > 2 ? std::strtoul(argv[2], nullptr, 0) : 200000;
    const bool lease = argc > 3 && std::strcmp(argv[3], "lease") == 0;
    ipcfs::ChannelOptions options;
    options.create = true;
    auto channel = ipcfs::Channel::open(argv[1], options);
    if (!channel) return fail(channel.error());

    std::vector<std::atomic<int>> counts(messages);
    std::atomic<int> failed{0};
    std::atomic<unsigned long> running{2 * kThreads};
    std::vector<std::jthread> threads;
    for (unsigned long i = 0; i < kThreads; ++i) {
        threads.emplace_back([&] {
            failed += consume(*channel, lease, counts);
            --running;
        });
        threads.emplace_back([&, i] {
            failed += produce(*channel, i, messages);
            --running;
        });
    }
    const std::string path = channel->mount() + "/" + channel->name() + "/stats";
    for (auto before = read_stats(path); running > 0 && failed == 0;) {
        std::this_thread::sleep_for(std::chrono::milliseconds(200));
        auto now = read_stats(path);
        std::printf("in %8.0f/s  out %8.0f/s  depth %6.0f  latency p50 %6.0f us  p99 %6.0f us\n",
                    (now["enqueued"] - before["enqueued"]) / 0.2,
                    (now["delivered"] - before["delivered"]) / 0.2, now["depth"],
                    now["latency_p50"] / 1e3, now["latency_p99"] / 1e3);
        before = std::move(now);
    }
    if (failed > 0) std::_Exit(1);  // the others may wait for ever
    threads.clear();
    unsigned long wrong = 0;
    for (const auto& count : counts) wrong += count == 1 ? 0 : 1;
    std::printf("%lu messages, %lu of them not exactly once\n", messages, wrong);
    return wrong == 0 ? 0 : 1;
}
