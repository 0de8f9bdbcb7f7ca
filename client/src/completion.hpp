// Serves shell completion: `ipcfs complete WORD...`, where the last word is being typed. Uses the
// commands' declarations and the tree. One thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <command.hpp>

namespace ipcfs::client {

// Prints, each followed by NUL, how the shell should proceed (empty, nospace, files, directories or
// commands), and the completions of the last word.
int complete(const std::vector<Command*>& commands, const std::vector<std::string>& words);

// The keys of `ctl`, and common values of a key or of `pause`.
std::vector<std::string> setting_keys();
std::string_view setting_values(std::string_view key);

}  // namespace ipcfs::client
