// How a figure is taken: contestants (what is measured, and its baselines) run in short rounds, one
// after the other, again and again; the median over the rounds counts. What disturbs the machine
// for a while so disturbs all of them alike. One thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
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

// Nanoseconds each of `count` calls took, on average.
template <class F>
double time_each(unsigned count, F&& call) {
    const std::int64_t from = now_ns();
    for (unsigned i = 0; i < count; ++i) call();
    return static_cast<double>(now_ns() - from) / count;
}

// Where a process may run: on one CPU (the last it is allowed), or everywhere it was at the start.
// Children made afterwards inherit it.
enum class Place { kOneCpu, kFree };
constexpr Place kPlaces[] = {Place::kOneCpu, Place::kFree};
void run_on(Place place);
const char* name_of(Place place);

// What disturbs the figures, for a person: a clock that takes a system call, a busy machine.
std::string machine_warning();

}  // namespace ipcfs::bench
