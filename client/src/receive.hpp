// What `recv`, `follow` and `sub` have in common. One thread.
#pragma once

#include <commands.hpp>
#include <tree.hpp>

namespace ipcfs::client {

// Prints messages of framed/stream as the options say, but for their `channel`. The exit code.
int receive_from(const Globals& globals, const Channel& channel, const ReceiveOptions& options);

}  // namespace ipcfs::client
