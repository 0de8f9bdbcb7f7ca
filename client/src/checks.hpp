// The checks of `ipcfs doctor`: what this machine offers for ipcfs, with advice on what is missing.
// They change nothing. One thread.
#pragma once

#include <compare>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <text.hpp>

namespace ipcfs::client {

enum class Level { kOk, kWarn, kFail };

struct Finding {
    Level level;
    std::string found;
    std::string advice;
};
inline Finding ok(std::string found) {
    return {Level::kOk, std::move(found), {}};
}
inline Finding warn(std::string found, std::string advice) {
    return {Level::kWarn, std::move(found), std::move(advice)};
}
inline Finding bad(std::string found, std::string advice) {
    return {Level::kFail, std::move(found), std::move(advice)};
}

struct Version {
    std::uint64_t major = 0;
    std::uint64_t minor = 0;
    auto operator<=>(const Version&) const = default;
};
Version find_version(std::string_view text);

// What several checks look at.
struct Machine {
    explicit Machine(std::string mount_point);

    std::string root;  // where the tree is, or would be, mounted
    std::string release;
    Version kernel;
    Pairs daemon;  // kern/ipc/version; empty if none runs
    bool is_root;
};

// The first line of a file in /proc or /sys; empty if unreadable.
std::string line_of(const std::string& path);

struct Check {
    const char* name;
    Finding (*run)(const Machine& machine);
};
// Of the kernel and the daemon, and of memory, limits and timeouts.
std::span<const Check> system_checks();
std::span<const Check> resource_checks();

}  // namespace ipcfs::client
