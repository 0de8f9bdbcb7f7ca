// A log with three readers: one topic, three subscriptions, one process each.
//
//     fanout TOPIC [-n LINES] [--delay MICROSECONDS]
//
//   archive  gets every line and must miss none: with `overflow block` the publisher waits for it
//   errors   gets only urgent lines, by a filter
//   slow     is slow, keeps the last 16 lines and loses the rest, without affecting the others
//
// Creates the topic if needed; creates and removes the subscriptions. The exit code is 1 if a
// subscription did not get what it should. Build: g++ -std=c++20 -O2 fanout.cpp $(pkg-config
// --cflags --libs ipcfs)
#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <string_view>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include <ipcfs/ipcfs.hpp>

namespace {

constexpr const char* kUsage =
    "usage: fanout TOPIC [-n LINES] [--delay MICROSECONDS]\n"
    "Publishes LINES (20000) log lines to three subscriptions, of which one takes MICROSECONDS "
    "(500)\n"
    "for each, and reports what each of them got.\n";

constexpr std::uint64_t kErrorEvery = 10;

int fail(const ipcfs::Error& error) {
    std::fprintf(stderr, "fanout: %s\n", error.message().c_str());
    return 1;
}

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

std::string path_of(const ipcfs::Channel& channel, const char* file) {
    return channel.mount() + "/" + channel.name() + "/" + file;
}

bool set(const ipcfs::Channel& channel, const char* settings) {
    std::ofstream file(path_of(channel, "ctl"));
    file << settings << std::flush;
    return static_cast<bool>(file);
}

// "17 error: ..." -> 17
std::uint64_t number_of(const ipcfs::Message& line) {
    return std::strtoull(std::string(line.text().substr(0, 20)).c_str(), nullptr, 10);
}

// Reads a subscription's `stats`: a line of names and a line of values.
std::map<std::string, std::uint64_t> read_stats(const ipcfs::Channel& channel) {
    std::ifstream file(path_of(channel, "stats"));
    std::string names;
    std::string values;
    std::getline(file, names);
    std::getline(file, values);
    std::istringstream keys(names);
    std::istringstream cells(values);
    std::map<std::string, std::uint64_t> row;
    for (std::string key, cell; keys >> key && cells >> cell;)
        row[key] = std::strtoull(cell.c_str(), nullptr, 10);
    return row;
}

// Counts until everything has arrived; lines of one priority arrive in order. The last line of the
// log is urgent, and urgent lines are not dropped in favor of others, so the slow reader gets it,
// too.
int read_log(ipcfs::Subscription& subscription, const std::string& name, std::uint64_t lines,
             unsigned delay) {
    const bool slow = name == "slow";
    const std::uint64_t due = name == "errors" ? lines / kErrorEvery : lines;
    std::map<std::uint8_t, std::uint64_t> latest;  // by priority
    std::uint64_t got = 0;
    std::uint64_t disordered = 0;
    for (bool complete = false; !complete;) {
        auto line = subscription.receive();
        if (!line) return fail(line.error());
        const std::uint64_t number = number_of(*line);
        ++got;
        if (number <= std::exchange(latest[line->priority()], number)) ++disordered;
        if (slow) ::usleep(delay);
        complete = slow ? number == lines : got == due;
    }
    // Lines that did not arrive were dropped, and counted, or are still queued.
    auto stats = read_stats(subscription.channel());
    const std::uint64_t dropped = stats["dropped_oldest"] + stats["dropped_newest"];
    std::printf("%-8s got %7llu of %llu, dropped %llu, out of order %llu\n", name.c_str(),
                static_cast<unsigned long long>(got), static_cast<unsigned long long>(due),
                static_cast<unsigned long long>(dropped),
                static_cast<unsigned long long>(disordered));
    std::fflush(stdout);
    return got + dropped + stats["depth"] == due && (slow || dropped == 0) && disordered == 0 ? 0
                                                                                              : 1;
}

int publish(ipcfs::Channel& topic, std::uint64_t lines) {
    std::vector<double> took;
    took.reserve(lines);
    const auto start = std::chrono::steady_clock::now();
    for (std::uint64_t number = 1; number <= lines; ++number) {
        const bool error = number % kErrorEvery == 0;
        ipcfs::SendOptions options;
        options.priority = error ? 192 : 128;
        options.method = number % 2 == 0 ? "web" : "db";
        const std::string line =
            std::to_string(number) + (error ? " error: disk is full" : " info: all is well");
        const auto before = std::chrono::steady_clock::now();
        if (auto sent = topic.send(line, options); !sent) return fail(sent.error());
        const std::chrono::duration<double> each = std::chrono::steady_clock::now() - before;
        took.push_back(each.count());
    }
    const std::chrono::duration<double> all = std::chrono::steady_clock::now() - start;
    std::sort(took.begin(), took.end());
    std::printf(
        "published %llu lines in %.2f s: %.0f/s, half of them within %.0f us, 99%% within %.0f "
        "us\n",
        static_cast<unsigned long long>(lines), all.count(),
        static_cast<double>(lines) / all.count(), took[took.size() / 2] * 1e6,
        took[took.size() * 99 / 100] * 1e6);
    std::fflush(stdout);
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    const char* name = nullptr;
    std::uint64_t lines = 20000;
    unsigned delay = 500;
    for (int i = 1; i < argc; ++i) {
        const std::string_view word = argv[i];
        if (word == "--help") return std::fputs(kUsage, stdout), 0;
        if (word == "-n" && i + 1 < argc) {
            lines = std::strtoull(argv[++i], nullptr, 0);
        } else if (word == "--delay" && i + 1 < argc) {
            delay = static_cast<unsigned>(std::strtoul(argv[++i], nullptr, 0));
        } else if (!word.starts_with('-') && name == nullptr) {
            name = argv[i];
        } else {
            return std::fputs(kUsage, stderr), 2;
        }
    }
    lines -= lines % kErrorEvery;
    if (name == nullptr || lines == 0) return std::fputs(kUsage, stderr), 2;

    ipcfs::ChannelOptions create;
    create.create = true;
    auto topic = ipcfs::Channel::open(name, create);
    if (!topic) return fail(topic.error());
    if (topic->setting("type") == "queue" && !set(*topic, "type topic\n"))
        return std::fprintf(stderr, "fanout: %s is in use as a queue\n", name), 1;

    std::vector<pid_t> readers;
    for (const Reader& each : kReaders) {
        ipcfs::SubscriptionOptions how;
        how.create = true;
        how.filter = each.filter;
        // Subscribe before publishing, so that nothing is missed.
        auto subscription = ipcfs::Subscription::open(name, each.name, how);
        if (!subscription) return fail(subscription.error());
        if (!set(subscription->channel(), each.settings))
            return std::fprintf(stderr, "fanout: settings of %s\n", each.name), 1;
        const pid_t pid = ::fork();
        if (pid == 0) ::_exit(read_log(*subscription, each.name, lines, delay));
        readers.push_back(pid);
    }

    int failed = publish(*topic, lines);
    for (const pid_t reader : readers) {
        int status = 0;
        if (failed != 0) ::kill(reader, SIGTERM);
        ::waitpid(reader, &status, 0);
        failed |= status != 0 ? 1 : 0;
    }
    for (const Reader& each : kReaders) {
        // The slow subscription may still hold lines that the urgent last line has overtaken.
        const std::string path = path_of(*topic, "subs/") + each.name;
        std::ofstream(path + "/ctl") << "purge\n" << std::flush;
        if (auto removed = ipcfs::Subscription::remove(name, each.name); !removed)
            failed |= fail(removed.error());
    }
    return failed;
}
