// Prints the tree's data to standard output, for people or as JSON. One thread.
#pragma once

#include <command.hpp>
#include <text.hpp>

namespace ipcfs::client {

void show(const Globals& globals, const Pairs& pairs);
// For people, with formatted times and durations.
void show(const Globals& globals, const Table& table);

}  // namespace ipcfs::client
