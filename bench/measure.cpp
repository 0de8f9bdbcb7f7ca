// Rounds, medians, CPUs.
#include "measure.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sched.h>

namespace ipcfs::bench {
namespace {

using Cpus = cpu_set_t;

const Cpus& cpus_at_start() {
    static const Cpus all = [] {
        Cpus now;
        CPU_ZERO(&now);
        sched_getaffinity(0, sizeof now, &now);
        return now;
    }();
    return all;
}

Cpus last_cpu() {
    int last = 0;
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
        if (CPU_ISSET(cpu, &cpus_at_start())) last = cpu;
    }
    Cpus one;
    CPU_ZERO(&one);
    CPU_SET(last, &one);
    return one;
}

}  // namespace

std::vector<Figures> interleave(unsigned rounds, const std::vector<Round>& contestants) {
    std::vector<std::vector<std::vector<double>>> all(contestants.size());
    for (unsigned round = 0; round <= rounds; ++round) {
        for (std::size_t i = 0; i < contestants.size(); ++i) {
            const std::size_t who = round % 2 == 0 ? i : contestants.size() - 1 - i;
            Figures figures = contestants[who]();
            if (round == 0) continue;
            all[who].resize(figures.size());
            for (std::size_t f = 0; f < figures.size(); ++f) all[who][f].push_back(figures[f]);
        }
    }
    std::vector<Figures> medians(contestants.size());
    for (std::size_t who = 0; who < contestants.size(); ++who) {
        for (auto& figures : all[who]) medians[who].push_back(median(std::move(figures)));
    }
    return medians;
}

double median(std::vector<double> values) {
    if (values.empty()) return 0;
    std::sort(values.begin(), values.end());
    const std::size_t half = values.size() / 2;
    return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

double percentile(std::vector<double>& values, double q) {
    if (values.empty()) return 0;
    auto rank = static_cast<std::size_t>(std::ceil(q * static_cast<double>(values.size())));
    rank = std::clamp<std::size_t>(rank, 1, values.size());
    auto at = values.begin() + static_cast<std::ptrdiff_t>(rank - 1);
    std::nth_element(values.begin(), at, values.end());
    return *at;
}

void run_on(Place place) {
    const Cpus cpus = place == Place::kFree ? cpus_at_start() : last_cpu();
    sched_setaffinity(0, sizeof cpus, &cpus);
}

void put_server(pid_t server, Place place) {
    Cpus cpus = place == Place::kSameCpu ? last_cpu() : cpus_at_start();
    if (place == Place::kOneCpu && CPU_COUNT(&cpus) > 1) {
        const Cpus last = last_cpu();
        CPU_XOR(&cpus, &cpus, &last);
    }
    const auto tasks = "/proc/" + std::to_string(server) + "/task";
    for (const auto& task : std::filesystem::directory_iterator(tasks)) {
        sched_setaffinity(std::stoi(task.path().filename()), sizeof cpus, &cpus);
    }
}

const char* name_of(Place place) {
    switch (place) {
        case Place::kOneCpu: return "one CPU";
        case Place::kSameCpu: return "same CPU";
        case Place::kFree: return "free";
    }
    return "";
}

std::string machine_warning() {
    std::string warning, clock;
    std::ifstream("/sys/devices/system/clocksource/clocksource0/current_clocksource") >> clock;
    if (clock != "tsc" && clock != "kvm-clock" && clock != "arch_sys_counter") {
        warning += "the clock source is " + (clock.empty() ? "unknown" : clock) +
                   ": reading the time may cost a system call; ";
    }
    double load[1] = {0};
    const int cpus = CPU_COUNT(&cpus_at_start());
    if (getloadavg(load, 1) == 1 && load[0] > 0.5 * cpus) {
        char text[96];
        std::snprintf(text, sizeof text, "the machine is busy (load %.1f on %d CPUs); ", load[0],
                      cpus);
        warning += text;
    }
    if (!warning.empty()) warning.resize(warning.size() - 2);
    return warning;
}

}  // namespace ipcfs::bench
