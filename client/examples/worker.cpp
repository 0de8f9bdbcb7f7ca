// A model worker: leases jobs, so that none is lost if it dies; extends the lease of a long job;
// gives back failed jobs for a later retry; and makes impossible ones dead letters.
//
//     worker CHANNEL [JOBS]       sends JOBS jobs first and ends when they are done; else runs for ever
//
// A job is a text: `square N` is done at once, `sleep MS` takes time, `flaky` fails at the first
// try, anything else is invalid. Build: g++ -std=c++20 -O2 worker.cpp $(pkg-config --cflags --libs ipcfs)
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include <ipcfs/ipcfs.hpp>

using namespace std::chrono_literals;

struct Tally {
    std::atomic<unsigned long> done{0}, again{0}, buried{0};
};

int fail(const ipcfs::Error& error) {
    return std::fprintf(stderr, "worker: %s\n", error.message().c_str()), 1;
}

// Does a job and says so to the channel.
ipcfs::Expected<void> work(ipcfs::Lease& job, Tally& tally) {
    const auto count = [](ipcfs::Expected<void> told, std::atomic<unsigned long>& counter) {
        if (told) ++counter;
        return told;
    };
    const std::string text(job.message().text());
    if (text.starts_with("square ")) {
        const auto number = std::strtoul(text.c_str() + 7, nullptr, 10);
        std::printf("%s is %lu\n", text.c_str(), number * number);
    } else if (text.starts_with("sleep ")) {
        const std::chrono::milliseconds time(std::strtol(text.c_str() + 6, nullptr, 10));
        // The job may take longer than the channel's lease time: extend the lease with some margin.
        // After an error another worker may have the job: stop, so that it is not done twice.
        if (auto longer = job.extend(time + 5s); !longer) return longer;
        std::this_thread::sleep_for(time);
    } else if (text != "flaky") {
        return count(job.dead(), tally.buried);
    } else if (!job->redelivered()) {  // the first try failed
        return count(job.nack(20ms), tally.again);
    }
    return count(job.ack(), tally.done);
}

int run(ipcfs::Channel& channel, Tally& tally, unsigned long jobs) {
    while (jobs == 0 || tally.done + tally.buried < jobs) {
        // With a timeout, since another thread may take the last job.
        auto job = channel.lease(100ms);
        if (!job && job.error().code == ETIMEDOUT) continue;
        if (!job) return fail(job.error());
        auto ended = work(*job, tally);
        // ESTALE: too late; the job is redelivered.
        if (!ended && ended.error().code != ESTALE) return fail(ended.error());
    }
    return 0;
}

int main(int argc, char** argv) {
    if (argc < 2) return std::fputs("usage: worker CHANNEL [JOBS]\n", stderr), 2;
    const unsigned long jobs = argc > 2 ? std::strtoul(argv[2], nullptr, 0) : 0;
    ipcfs::ChannelOptions create;
    create.create = true;
    auto channel = ipcfs::Channel::open(argv[1], create);
    if (!channel) return fail(channel.error());
    for (unsigned long i = 0; i < jobs; ++i) {
        const std::string texts[] = {"square " + std::to_string(i), "flaky", "sleep 2", "nonsense"};
        if (auto sent = channel->send(texts[i % 4]); !sent) return fail(sent.error());
    }
    Tally tally;
    std::atomic<int> failed{0};
    {
        std::vector<std::jthread> crew;
        for (int i = 0; i < 2; ++i)
            crew.emplace_back([&] { failed += run(*channel, tally, jobs); });
    }
    std::printf("done %lu, tried again %lu, buried %lu\n", tally.done.load(), tally.again.load(),
                tally.buried.load());
    return failed > 0 ? 1 : 0;
}
