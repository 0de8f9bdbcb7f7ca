// Group delivery, in three files.
#pragma once

#include "groups.hpp"

namespace ipcfs::bench {

void measure_broadcasts(Run& run);  // delivery_broadcast.cpp
void measure_publishing(Run& run);  // delivery_engine.cpp
void measure_leases(Run& run);      // delivery_leases.cpp

}  // namespace ipcfs::bench
