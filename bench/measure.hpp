// How a figure is taken: contestants (what is measured, and its baselines) run in short rounds, one
// after the other, again and again; the median over the rounds counts. What disturbs the machine
// for a while so disturbs all of them alike. One thread.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <sys/types.h>
#include <vector>

namespace ipcfs::bench {

using Figures = std::vector<double>;
// Runs one short round and gives its figures, always as many.
using Round = std::function<Figures()>;

// The medians of each contestant's figures over `rounds` rounds. One round before them warms up and
// does not count. Odd rounds run in reverse order, so that none always runs behind the same other.
std::vector<Figures> interleave(unsigned rounds, const std::vector<Round>& contestants);

double median(std::vector<double> values);
// The value that a share `q` of `values` is at or below.
double percentile(std::vector<double>& values, double q);

inline std::int64_t now_ns() {
    return std::chrono::steady_clock::now().time_since_epoch().count();
}

// Nanoseconds a call took: `count` calls in 40 pieces, the median of their averages, so that a time
// slice of another program spoils a piece and not the figure.
template <class F>
double time_each(unsigned count, F&& call) {
    constexpr unsigned kPieces = 40;
    const unsigned piece = std::max(count / kPieces, 1U);
    std::vector<double> averages;
    for (unsigned done = 0; done < count; done += piece) {
        const std::int64_t from = now_ns();
        for (unsigned i = 0; i < piece; ++i) call();
        averages.push_back(static_cast<double>(now_ns() - from) / piece);
    }
    return median(std::move(averages));
}

// Where a measured process and the classic server it talks to run. Left alone, the kernel puts the
// server's threads now here, now there, which decides more than anything measured; a ring's thread
// is always on its client's CPU.
enum class Place {
    kOneCpu,   // the process on one CPU, the last it is allowed; the server on the others
    kSameCpu,  // both on that one CPU
    kFree,     // nothing is pinned
};
constexpr Place kPlaces[] = {Place::kOneCpu, Place::kSameCpu, Place::kFree};
const char* name_of(Place place);
// Puts this thread there; children made afterwards inherit it.
void run_on(Place place);
// Puts all threads of a classic server there.
void put_server(pid_t server, Place place);

// What disturbs the figures, for a person: a clock that takes a system call, a busy machine.
std::string machine_warning();

}  // namespace ipcfs::bench
