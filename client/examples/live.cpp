// Producer and consumer processes, with live statistics of the channel from its files `stats` and
// `status`, as any program can read them.
//
//     live CHANNEL [-p PRODUCERS] [-c CONSUMERS] [-n MESSAGES] [-s BYTES] [-i MILLISECONDS]
// [--lease]
//
// Creates the channel if needed. Ends when all messages have been received; the exit code is 1
// unless each arrived exactly once. Build: g++ -std=c++20 -O2 live.cpp $(pkg-config --cflags --libs
// ipcfs)
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include <ipcfs/ipcfs.hpp>

namespace {

constexpr const char* kUsage =
    "usage: live CHANNEL [OPTIONS]\n"
    "Sends messages between processes and shows the channel's statistics meanwhile.\n"
    "  -p N      producers (2)\n"
    "  -c N      consumers (2)\n"
    "  -n N      total number of messages (200000)\n"
    "  -s BYTES  size of a message (64)\n"
    "  -i MS     time between two lines of statistics (500)\n"
    "  --lease   consumers take messages on lease, and acknowledge them\n";

struct Options {
    const char* channel = nullptr;
    unsigned producers = 2;
    unsigned consumers = 2;
    std::uint64_t messages = 200000;
    std::size_t bytes = 64;
    unsigned interval = 500;
    bool lease = false;
};

// Memory shared by the processes to verify the channel's work.
struct Tally {
    std::atomic<std::uint64_t> sent;
    std::atomic<std::uint64_t> received;
    std::atomic<std::uint64_t> twice;
    std::atomic<std::uint8_t>* seen() {
        return reinterpret_cast<std::atomic<std::uint8_t>*>(this + 1);
    }
};

int fail(const ipcfs::Error& error) {
    std::fprintf(stderr, "live: %s\n", error.message().c_str());
    return 1;
}

int produce(const Options& options, Tally& tally, unsigned which) {
    auto channel = ipcfs::Channel::open(options.channel);
    if (!channel) return fail(channel.error());
    std::vector<std::byte> body(options.bytes);
    for (std::uint64_t number = which; number < options.messages; number += options.producers) {
        std::memcpy(body.data(), &number, sizeof number);
        if (auto sent = channel->send(body); !sent) return fail(sent.error());
        tally.sent.fetch_add(1, std::memory_order_relaxed);
    }
    return 0;
}

// Returns false for the message that marks the end.
bool count(const Options& options, Tally& tally, const ipcfs::Message& message) {
    if (message.type() == ipcfs::FrameType::kEvent) return false;
    std::uint64_t number = 0;
    if (message.size() >= sizeof number) std::memcpy(&number, message.body().data(), sizeof number);
    if (number >= options.messages || tally.seen()[number].exchange(1) != 0)
        tally.twice.fetch_add(1);
    tally.received.fetch_add(1, std::memory_order_relaxed);
    return true;
}

int consume(const Options& options, Tally& tally) {
    auto channel = ipcfs::Channel::open(options.channel);
    if (!channel) return fail(channel.error());
    while (true) {
        if (options.lease) {
            auto lease = channel->lease();
            if (!lease) return fail(lease.error());
            const bool more = count(options, tally, lease->message());
            // Removes the message: had this process died before, another consumer would have got
            // it.
            if (auto done = lease->ack(); !done) return fail(done.error());
            if (!more) return 0;
        } else {
            auto message = channel->receive();
            if (!message) return fail(message.error());
            if (!count(options, tally, *message)) return 0;
        }
    }
}

// Reads a statistics file: a line of names, a line of values. Look values up by name, since columns
// may be added.
std::map<std::string, std::uint64_t> read_stats(const std::string& path) {
    std::ifstream file(path);
    std::string names;
    std::string values;
    std::getline(file, names);
    std::getline(file, values);
    std::istringstream name(names);
    std::istringstream value(values);
    std::map<std::string, std::uint64_t> row;
    for (std::string key, cell; name >> key && value >> cell;)
        row[key] = std::strtoull(cell.c_str(), nullptr, 10);
    return row;
}

void show(std::map<std::string, std::uint64_t>& before, const std::string& path, double seconds,
          double interval) {
    auto now = read_stats(path);
    auto rate = [&](const char* key) {
        return static_cast<double>(now[key] - before[key]) / interval;
    };
    std::printf(
        "%6.1f s  in %8.0f/s  out %8.0f/s  depth %6llu  latency p50 %6.0f us  p99 %6.0f us\n",
        seconds, rate("enqueued"), rate("delivered"), static_cast<unsigned long long>(now["depth"]),
        static_cast<double>(now["latency_p50"]) / 1e3,
        static_cast<double>(now["latency_p99"]) / 1e3);
    std::fflush(stdout);
    before = std::move(now);
}

bool parse(int argc, char** argv, Options& options) {
    for (int i = 1; i < argc; ++i) {
        const std::string word = argv[i];
        auto number = [&] { return i + 1 < argc ? std::strtoull(argv[++i], nullptr, 0) : 0; };
        if (word == "-p") {
            options.producers = static_cast<unsigned>(number());
        } else if (word == "-c") {
            options.consumers = static_cast<unsigned>(number());
        } else if (word == "-n") {
            options.messages = number();
        } else if (word == "-s") {
            options.bytes = std::max<std::size_t>(number(), sizeof(std::uint64_t));
        } else if (word == "-i") {
            options.interval = static_cast<unsigned>(number());
        } else if (word == "--lease") {
            options.lease = true;
        } else if (word[0] != '-' && options.channel == nullptr) {
            options.channel = argv[i];
        } else {
            return false;
        }
    }
    return options.channel != nullptr && options.producers > 0 && options.consumers > 0 &&
           options.interval > 0;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc == 2 && std::strcmp(argv[1], "--help") == 0) return std::fputs(kUsage, stdout), 0;
    Options options;
    if (!parse(argc, argv, options)) return std::fputs(kUsage, stderr), 2;
    ipcfs::ChannelOptions create;
    create.create = true;
    auto channel = ipcfs::Channel::open(options.channel, create);
    if (!channel) return fail(channel.error());
    const std::string stats = channel->mount() + "/" + channel->name() + "/stats";

    void* shared = ::mmap(nullptr, sizeof(Tally) + options.messages, PROT_READ | PROT_WRITE,
                          MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) return std::perror("live: mmap"), 1;
    auto* tally = new (shared) Tally{};
    std::vector<pid_t> producers;
    std::vector<pid_t> consumers;
    for (unsigned i = 0; i < options.consumers; ++i) {
        const pid_t pid = ::fork();
        if (pid == 0) ::_exit(consume(options, *tally));
        consumers.push_back(pid);
    }
    for (unsigned i = 0; i < options.producers; ++i) {
        const pid_t pid = ::fork();
        if (pid == 0) ::_exit(produce(options, *tally, i));
        producers.push_back(pid);
    }

    int failed = 0;
    auto reap = [&](std::vector<pid_t>& of, int flags) {
        for (std::size_t i = 0; i < of.size();) {
            int status = 0;
            if (::waitpid(of[i], &status, flags) == 0) {
                ++i;
                continue;
            }
            failed += status != 0 ? 1 : 0;
            of.erase(of.begin() + static_cast<std::ptrdiff_t>(i));
        }
    };
    const auto start = std::chrono::steady_clock::now();
    auto before = read_stats(stats);
    bool told = false;
    while (!consumers.empty() && failed == 0) {
        ::usleep(options.interval * 1000);
        const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start;
        show(before, stats, passed.count(), options.interval / 1e3);
        reap(producers, WNOHANG);
        if (producers.empty() && !std::exchange(told, true)) {
            // An end marker for each consumer, with the lowest priority.
            ipcfs::SendOptions end;
            end.type = ipcfs::FrameType::kEvent;
            end.priority = 0;
            for (unsigned i = 0; i < options.consumers; ++i)
                if (auto sent = channel->send("", end); !sent) return fail(sent.error());
        }
        reap(consumers, WNOHANG);
    }
    const std::uint64_t received = tally->received.load();
    std::printf("sent %llu, received %llu, twice %llu\n",
                static_cast<unsigned long long>(tally->sent.load()),
                static_cast<unsigned long long>(received),
                static_cast<unsigned long long>(tally->twice.load()));
    return failed == 0 && received == options.messages && tally->twice.load() == 0 ? 0 : 1;
}
