// What the parts of the group payload share: messages whose content is memory that changes hands.
#pragma once

#include <cstdint>
#include <string>

#include "groups.hpp"
#include "measure.hpp"

namespace ipcfs::bench {

constexpr std::size_t kKiB = 1024, kMiB = 1024 * kKiB, kGiB = 1024 * kMiB;

// "64 B", "1 MiB".
std::string size_name(std::size_t bytes);
// Whether `bytes` of memory are free. If not, adds a row `what` without a figure that says so.
bool has_memory(Run& run, const std::string& what, std::uint64_t bytes);

// Rounds of something large: as many as are asked for, at most `most`.
unsigned large_rounds(const Run& run, unsigned most);

// The round, after `bytes` of memory were touched and freed. What a virtual machine's host gets back of
// free memory costs many times more at its next first touch (2 ms a MiB was seen): a round is to get
// memory that the machine has, whoever ran before it.
Round warmed(std::size_t bytes, Round round);

void measure_handover(Run& run);      // payload_handover.cpp
void measure_bulk_traffic(Run& run);  // payload_traffic.cpp
void measure_files(Run& run);         // payload_files.cpp
void measure_lazy(Run& run);          // payload_lazy.cpp

}  // namespace ipcfs::bench
