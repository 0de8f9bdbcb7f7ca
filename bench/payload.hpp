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

void measure_bulk_traffic(Run& run);  // payload_traffic.cpp
void measure_files(Run& run);         // payload_files.cpp

}  // namespace ipcfs::bench
