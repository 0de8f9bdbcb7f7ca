// Text as the tree writes it and as people read it: key-value lines, tab-separated tables, sizes,
// durations, names made safe for a terminal. Pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ipcfs::client {

constexpr std::int64_t kMillisecond = 1'000'000;  // times are in ns
constexpr std::int64_t kSecond = 1'000'000'000;

using Pairs = std::vector<std::pair<std::string, std::string>>;

// `key value` lines; the value is all that follows the first blank.
Pairs parse_pairs(std::string_view text);
// The first value of `key`, or empty.
std::string_view find(const Pairs& pairs, std::string_view key);

// A header line and data lines, tab-separated; cells come unescaped (\n \t \\ \xHH).
struct Table {
    std::vector<std::string> columns;
    std::vector<std::vector<std::string>> rows;

    std::optional<std::size_t> column(std::string_view name) const;
    // The cell, or empty when the column or the cell is not there.
    std::string_view cell(const std::vector<std::string>& row, std::string_view name) const;
};
Table parse_table(std::string_view text);
// Columns aligned, numbers to the right. `escape` makes every cell safe for a terminal.
std::string render(const Table& table, bool escape);
std::string render(const Pairs& pairs, bool escape);

std::vector<std::string_view> split(std::string_view text, char separator);

// A plain decimal number without sign, or empty.
std::optional<std::uint64_t> parse_number(std::string_view text);
// "30s", "5ms", "1h"; a plain number, whole or with a fraction, counts seconds. In ns, below 2^62.
std::optional<std::int64_t> parse_duration(std::string_view text);
// "1.5K", "20M"; exact below 1024.
std::string human_size(std::uint64_t bytes);
// "3.2s", "2m05s", for progress lines.
std::string human_duration(std::int64_t nanos);

bool is_utf8(std::string_view bytes);
std::string base64(std::string_view bytes);
// Control characters, bytes that are not UTF-8 and bidirectional overrides become \n, \xHH: what is
// printed cannot move the cursor, retitle a terminal or hide itself.
std::string escape_controls(std::string_view text);

}  // namespace ipcfs::client
