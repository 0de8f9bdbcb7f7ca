// What the tree says, as people read it and as JSON, to standard output. One thread.
#pragma once

#include <command.hpp>
#include <text.hpp>

namespace ipcfs::client {

void show(const Globals& globals, const Pairs& pairs);
// For people with times and durations as they read them.
void show(const Globals& globals, const Table& table);

}  // namespace ipcfs::client
