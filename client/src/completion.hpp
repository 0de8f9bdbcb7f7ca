// Serves shell completion: `ipcfs complete WORD...`, where the last word is being typed. Uses the
// commands' declarations and the tree. One thread.
#pragma once

#include <string>
#include <vector>

#include <command.hpp>

namespace ipcfs::client {

// Prints, each followed by NUL, how the shell should proceed (empty, nospace, files, directories or
// commands), and the completions of the last word.
int complete(const std::vector<Command*>& commands, const std::vector<std::string>& words);

inline constexpr const char* kDurations = "0 100ms 1s 5s 30s 1m 1h";

}  // namespace ipcfs::client
