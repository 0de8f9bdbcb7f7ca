// Group durable, in three files.
#pragma once

#include "groups.hpp"

namespace ipcfs::bench {

void measure_durable_rates(Run& run);          // durable_rates.cpp
void measure_recovery_of_the_store(Run& run);  // durable_recovery.cpp
void measure_cleaning(Run& run);
void measure_recovery(Run& run);

}  // namespace ipcfs::bench
