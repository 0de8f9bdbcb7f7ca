// What the parts of the group fuse share.
#pragma once

#include "groups.hpp"
#include "links.hpp"
#include "measure.hpp"
#include "servers.hpp"

namespace ipcfs::bench {

// One round of `count` messages of 64 B that the same thread writes and then reads.
Round write_and_read(Link& link, unsigned count);

void measure_waiting_readers(Run& run, Transport transport);       // fuse_scale.cpp
void measure_idle_channels(Run& run);                              // fuse_scale.cpp
void measure_traffic_of_processes(Run& run, Transport transport);  // fuse_traffic.cpp

}  // namespace ipcfs::bench
