// A model worker: leases jobs, so that none is lost if it dies; extends the lease of a long job;
// gives back failed jobs for a later retry; and makes impossible ones dead letters.
//
//     worker CHANNEL [-j THREADS] [-n JOBS] [--make JOBS]
//
// A job is a text: `square N` is done at once, `sleep MS` takes time, `flaky` fails at the first
// try, anything else is invalid. --make first sends some of each; -n ends after this many are done
// or dead. Build: g++ -std=c++20 -O2 worker.cpp $(pkg-config --cflags --libs ipcfs)
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <ipcfs/ipcfs.hpp>

namespace {

using namespace std::chrono_literals;

constexpr const char* kUsage =
    "usage: worker CHANNEL [-j THREADS] [-n JOBS] [--make JOBS]\n"
    "Processes the jobs that are sent to CHANNEL: `square N`, `sleep MS`, `flaky`.\n"
    "  -j N      number of threads (2)\n"
    "  -n N      end when N jobs are done or dead letters\n"
    "  --make N  send N jobs first\n";

enum class Outcome { kDone, kAgain, kNonsense };

int fail(const ipcfs::Error& error) {
    std::fprintf(stderr, "worker: %s\n", error.message().c_str());
    return 1;
}

Outcome work(ipcfs::Lease& job) {
    const std::string text(job.message().text());
    if (text.starts_with("square ")) {
        const auto number = std::strtoull(text.c_str() + 7, nullptr, 10);
        std::printf("%s is %llu\n", text.c_str(), static_cast<unsigned long long>(number * number));
        return Outcome::kDone;
    }
    if (text.starts_with("sleep ")) {
        const std::chrono::milliseconds time(std::strtol(text.c_str() + 6, nullptr, 10));
        // The job may take longer than the channel's lease time: extend the lease with some margin.
        if (auto longer = job.extend(time + 5s); !longer) {
            // Another worker may have the job by now: stop, so that it is not done twice.
            std::fprintf(stderr, "worker: %s\n", longer.error().message().c_str());
            return Outcome::kAgain;
        }
        std::this_thread::sleep_for(time);
        std::printf("slept %lld ms\n", static_cast<long long>(time.count()));
        return Outcome::kDone;
    }
    // Redelivered: an earlier try failed.
    if (text == "flaky") return job->redelivered() ? Outcome::kDone : Outcome::kAgain;
    return Outcome::kNonsense;
}

struct Tally {
    std::atomic<std::uint64_t> done{0};
    std::atomic<std::uint64_t> again{0};
    std::atomic<std::uint64_t> buried{0};
    std::uint64_t ended() const { return done.load() + buried.load(); }
};

int run(ipcfs::Channel& channel, Tally& tally, std::uint64_t limit) {
    while (limit == 0 || tally.ended() < limit) {
        // With a timeout, since another thread may take the last job.
        auto job = channel.lease(100ms);
        if (!job && job.error().code == ETIMEDOUT) continue;
        if (!job) return fail(job.error());
        ipcfs::Expected<void> told;
        switch (work(*job)) {
            case Outcome::kDone:
                told = job->ack();
                if (told) ++tally.done;
                break;
            case Outcome::kAgain:
                told = job->nack(20ms);
                if (told) ++tally.again;
                break;
            case Outcome::kNonsense:
                told = job->dead();
                if (told) ++tally.buried;
                break;
        }
        // ESTALE: too late; the job is redelivered.
        if (!told && told.error().code != ESTALE) return fail(told.error());
    }
    return 0;
}

int make_jobs(ipcfs::Channel& channel, std::uint64_t jobs) {
    for (std::uint64_t i = 0; i < jobs; ++i) {
        const std::string texts[] = {"square " + std::to_string(i), "flaky", "sleep 2", "nonsense"};
        if (auto sent = channel.send(texts[i % 4]); !sent) return fail(sent.error());
    }
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    const char* name = nullptr;
    unsigned threads = 2;
    std::uint64_t limit = 0;
    std::uint64_t make = 0;
    for (int i = 1; i < argc; ++i) {
        const std::string_view word = argv[i];
        if (word == "--help") return std::fputs(kUsage, stdout), 0;
        const bool value = i + 1 < argc;
        if (word == "-j" && value) {
            threads = static_cast<unsigned>(std::strtoul(argv[++i], nullptr, 0));
        } else if (word == "-n" && value) {
            limit = std::strtoull(argv[++i], nullptr, 0);
        } else if (word == "--make" && value) {
            make = std::strtoull(argv[++i], nullptr, 0);
        } else if (!word.starts_with('-') && name == nullptr) {
            name = argv[i];
        } else {
            return std::fputs(kUsage, stderr), 2;
        }
    }
    if (name == nullptr || threads == 0) return std::fputs(kUsage, stderr), 2;
    ipcfs::ChannelOptions create;
    create.create = true;
    auto channel = ipcfs::Channel::open(name, create);
    if (!channel) return fail(channel.error());
    if (make_jobs(*channel, make) != 0) return 1;

    Tally tally;
    std::atomic<int> failed{0};
    std::vector<std::thread> crew;
    for (unsigned i = 0; i < threads; ++i)
        crew.emplace_back([&] { failed |= run(*channel, tally, limit); });
    for (std::thread& each : crew) each.join();
    std::printf("done %llu, tried again %llu, buried %llu\n",
                static_cast<unsigned long long>(tally.done.load()),
                static_cast<unsigned long long>(tally.again.load()),
                static_cast<unsigned long long>(tally.buried.load()));
    return failed.load();
}
