// Examines what this machine offers for ipcfs, and advises on what is missing. Changes nothing.
#pragma once

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ipcfs::client {

enum class Level { kOk, kWarn, kFail };

struct Finding {
    Level level;
    std::string check;
    std::string found;
    std::string advice;  // empty if nothing needs to be done
};

class Findings {
public:
    void ok(std::string check, std::string found) {
        add(Level::kOk, std::move(check), std::move(found), "");
    }
    void warn(std::string check, std::string found, std::string advice) {
        add(Level::kWarn, std::move(check), std::move(found), std::move(advice));
    }
    void bad(std::string check, std::string found, std::string advice) {
        add(Level::kFail, std::move(check), std::move(found), std::move(advice));
    }
    void add(Level level, std::string check, std::string found, std::string advice);

    std::vector<Finding> all;
};

struct Version {
    std::uint64_t major = 0;
    std::uint64_t minor = 0;
    auto operator<=>(const Version&) const = default;
};

// The first "N.M" of a text.
Version find_version(std::string_view text);
// The first line of a file in /proc or /sys; empty if unreadable.
std::string line_of(const std::string& path);
bool is_root();

// Checks memory, limits and timeouts; in resources.cpp.
void examine_resources(Findings& findings, const Version& kernel);
// Runs all checks. `root` is the tree's mount point, mounted or not. One thread.
std::vector<Finding> examine(const std::string& root);

}  // namespace ipcfs::client
