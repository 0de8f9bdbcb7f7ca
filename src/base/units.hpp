// Sizes and durations as people write them: 100M, 4K, 30s, 5ms. Pure functions, any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <base/clock.hpp>

namespace ipcfs {

// Parses "100M", "4K", "1G" or "1044480" into bytes; units are powers of 1024. Empty for anything
// else, and above 2^63-1.
std::optional<std::uint64_t> parse_size(std::string_view text);
// The shortest exact form: 104857600 is "100M", 1044480 is "1020K", 1001 is "1001".
std::string format_size(std::uint64_t bytes);

// Parses "30s", "5ms", "2us", "10ns", "1m", "1h" or "0": a whole number with a unit, which only 0
// may omit. Empty for anything else, negative values, and above 2^63-1 ns.
std::optional<Nanos> parse_duration(std::string_view text);
// The shortest exact form: 30000000000 is "30s", 0 is "0".
std::string format_duration(Nanos nanos);

// Removes blanks, tabs and carriage returns from both ends.
std::string_view trim(std::string_view text);

// Parses an unsigned decimal number; empty for anything else.
std::optional<std::uint64_t> parse_number(std::string_view text);

}  // namespace ipcfs
