// Tables of the tree as people read them. One thread.
#pragma once

#include <text.hpp>

namespace ipcfs::client {

// To standard output: as it is in JSON, else with times and durations for people.
void show_table(const Table& table, bool json);

}  // namespace ipcfs::client
