// Sizes and durations as people write them: 100M, 4K, 30s, 5ms. Pure functions, any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <base/clock.hpp>

namespace ipcfs {

// "100M", "4K", "1G", "1044480": powers of 1024. Empty on anything else, or above 2^63-1.
std::optional<std::uint64_t> parse_size(std::string_view text);
// The shortest exact form: 104857600 is "100M", 1044480 is "1020K", 1001 is "1001".
std::string format_size(std::uint64_t bytes);

// "30s", "5ms", "2us", "10ns", "1m", "1h", "0". A plain number other than 0 has no unit and is
// refused. Whole numbers only. Empty on anything else, on negatives and above 2^63-1 ns.
std::optional<Nanos> parse_duration(std::string_view text);
// The shortest exact form: 30000000000 is "30s", 0 is "0".
std::string format_duration(Nanos nanos);

// Without the blanks, tabs and carriage returns at both ends.
std::string_view trim(std::string_view text);

// A plain decimal number without sign, or empty.
std::optional<std::uint64_t> parse_number(std::string_view text);

}  // namespace ipcfs
