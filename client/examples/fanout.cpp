// A log with three readers: one topic, three subscriptions, one thread each.
//
//     fanout TOPIC [LINES] [MICROSECONDS]      defaults: 20000 lines; the slow one takes 500 us each
//
//   archive  gets every line and must miss none: with `overflow block` the publisher waits for it
//   errors   gets only urgent lines, by a filter
//   slow     is slow, keeps the last 16 lines and loses the rest, without affecting the others
//
// Creates the topic if needed; creates and removes the subscriptions. The exit code is 1 if a
// subscription did not get what it should.
// Build: g++ -std=c++20 -O2 fanout.cpp $(pkg-config --cflags --libs ipcfs)
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include <ipcfs/ipcfs.hpp>

struct Reader {
    const char* name;
    const char* filter;    // the subscription's filter
    const char* settings;  // settings that differ from the topic's
};
constexpr Reader kReaders[] = {
    {"archive", "", "capacity 4096\noverflow block\n"},
    {"errors", "priority high-critical", "capacity 4096\noverflow block\n"},
    {"slow", "", "capacity 16\noverflow drop-oldest\n"},
};

int fail(const ipcfs::Error& error) {
    return std::fprintf(stderr, "fanout: %s\n", error.message().c_str()), 1;
}

// Settings are written to the channel's file `ctl`.
bool set(const ipcfs::Channel& channel, const char* settings) {
    std::ofstream file(channel.mount() + "/" + channel.name() + "/ctl");
    file << settings << std::flush;
    return static_cast<bool>(file);
}

// Reads up to the last line, which is urgent: urgent lines are not dropped in favor of others, so the
// slow reader gets it, too, ahead of some that it has not read.
int read_log(ipcfs::Subscription& subscription, unsigned long lines, std::chrono::microseconds time,
             bool slow) {
    const unsigned long due = subscription.name() == "errors" ? lines / 10 : lines;
    unsigned long got = 0;
    for (bool complete = false; !complete;) {
        auto line = subscription.receive();
        if (!line) return fail(line.error());
        ++got;
        if (slow) std::this_thread::sleep_for(time);
        complete = slow ? line->header().message_id == lines : got == due;
    }
    std::printf("%-8s got %7lu of %lu\n", subscription.name().c_str(), got, due);
    return slow || got == due ? 0 : 1;
}

int publish(ipcfs::Channel& topic, unsigned long lines) {
    const auto start = std::chrono::steady_clock::now();
    for (unsigned long number = 1; number <= lines; ++number) {
        const bool error = number % 10 == 0;
        ipcfs::SendOptions options;
        options.message_id = number;
        options.priority = error ? 192 : 128;
        auto sent = topic.send(error ? "error: disk is full" : "info: all is well", options);
        if (!sent) return fail(sent.error());
    }
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    std::printf("published %lu lines in %.2f s\n", lines, took.count());
    return 0;
}

int main(int argc, char** argv) {
    if (argc < 2) return std::fputs("usage: fanout TOPIC [LINES] [MICROSECONDS]\n", stderr), 2;
    const unsigned long lines = argc > 2 ? std::strtoul(argv[2], nullptr, 0) / 10 * 10 : 20000;
    const std::chrono::microseconds time(argc > 3 ? std::atol(argv[3]) : 500);
    ipcfs::ChannelOptions create;
    create.create = true;
    auto topic = ipcfs::Channel::open(argv[1], create);
    if (!topic) return fail(topic.error());
    if (topic->setting("type") != "topic" && !set(*topic, "type topic\n"))
        return std::fprintf(stderr, "fanout: %s is in use as a queue\n", argv[1]), 1;

    std::vector<ipcfs::Subscription> subscriptions;
    for (const Reader& each : kReaders) {
        ipcfs::SubscriptionOptions how;
        how.create = true;
        how.filter = each.filter;
        // Subscribe before publishing, so that nothing is missed.
        auto subscription = ipcfs::Subscription::open(argv[1], each.name, how);
        if (!subscription) return fail(subscription.error());
        if (!set(subscription->channel(), each.settings))
            return std::fprintf(stderr, "fanout: settings of %s\n", each.name), 1;
        subscriptions.push_back(std::move(*subscription));
    }
    std::atomic<int> failed{0};
    {
        std::vector<std::jthread> readers;
        for (auto& each : subscriptions)
            readers.emplace_back(
                [&] { failed += read_log(each, lines, time, each.name() == "slow"); });
        if (publish(*topic, lines) != 0) std::_Exit(1);  // the readers would wait for ever
    }
    for (auto& each : subscriptions) {
        set(each.channel(), "purge\n");  // what the slow one has not read
        if (auto removed = ipcfs::Subscription::remove(argv[1], each.name()); !removed)
            failed += fail(removed.error());
    }
    return failed > 0 ? 1 : 0;
}
