// The settings of channels, as kern/ipc/settings of the mounted tree describes them: the daemon may be
// newer than this command. One thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <tree.hpp>

namespace ipcfs::client {

std::vector<std::string> setting_keys(const Tree& tree);
// The words that a setting can have; empty if it is a number or another text.
std::vector<std::string> setting_words(const Tree& tree, std::string_view key);
// All settings with their values and their meaning, for --help. `mount` as for Tree.
std::string settings_help(const std::string& mount);

}  // namespace ipcfs::client
