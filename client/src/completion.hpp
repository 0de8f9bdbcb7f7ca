// What the shell's completion asks: `ipcfs complete WORD...`, of which the last is being typed. Made
// from what the commands declare and what is in the tree. One thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <command.hpp>

namespace ipcfs::client {

// Prints, each followed by a NUL, how the shell is to go on (nothing special, nospace, files, directories
// or commands), and what may stand in place of the last word.
int complete(const std::vector<Command*>& commands, const std::vector<std::string>& words);

// The keys of `ctl`, and common values of one; also the times that `pause` takes.
std::vector<std::string> setting_keys();
std::string_view setting_values(std::string_view key);

}  // namespace ipcfs::client
