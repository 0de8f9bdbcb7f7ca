// Group durable, in two files.
#pragma once

#include "groups.hpp"

namespace ipcfs::bench {

void measure_durable_rates(Run& run);  // durable_rates.cpp
void measure_recovery(Run& run);       // durable_recovery.cpp

}  // namespace ipcfs::bench
