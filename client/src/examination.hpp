// What a machine offers to ipcfs, and what to do about what is missing. Looks only, changes nothing.
#pragma once

#include <string>
#include <vector>

namespace ipcfs::client {

enum class Level { kOk, kWarn, kFail };

struct Finding {
    Level level;
    std::string check;
    std::string found;
    std::string advice;  // empty when nothing is to be done
};

// `root`: of the tree, mounted or not. One thread.
std::vector<Finding> examine(const std::string& root);

}  // namespace ipcfs::client
