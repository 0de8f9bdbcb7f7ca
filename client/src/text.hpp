// Parses the tree's text (key-value lines, tab-separated tables) and formats sizes, durations and
// names for a terminal. Pure functions.
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

// Parses `key value` lines; the value is everything after the first blank.
Pairs parse_pairs(std::string_view text);
// The first value of `key`; empty if there is none.
std::string_view find(const Pairs& pairs, std::string_view key);

// A parsed table: a header line and data lines, tab-separated; cells are unescaped (\n \t \ and
// \xHH).
struct Table {
    std::vector<std::string> columns;
    std::vector<std::vector<std::string>> rows;

    std::optional<std::size_t> column(std::string_view name) const;
    // The cell; empty if the column or the cell is missing.
    std::string_view cell(const std::vector<std::string>& row, std::string_view name) const;
};
Table parse_table(std::string_view text);
// Formats a table with aligned columns, numbers to the right. `escape` makes every cell safe for a
// terminal.
std::string render(const Table& table, bool escape);
std::string render(const Pairs& pairs, bool escape);

std::vector<std::string_view> split(std::string_view text, char separator);

// Parses an unsigned decimal number; empty for anything else.
std::optional<std::uint64_t> parse_number(std::string_view text);
// Parses "30s", "5ms" or "1h" into ns, below 2^62; a plain number, also with a fraction, means
// seconds.
std::optional<std::int64_t> parse_duration(std::string_view text);
// Formats a size such as "1.5K" or "20M"; exact below 1024.
std::string human_size(std::uint64_t bytes);
// Formats a duration such as "3.2s" or "2m05s".
std::string human_duration(std::int64_t nanos);

bool is_utf8(std::string_view bytes);
std::string base64(std::string_view bytes);
// Escapes control characters, bytes that are not UTF-8 and bidirectional overrides as \n and \xHH,
// so that text cannot move the cursor, change the terminal's title or hide itself.
std::string escape_controls(std::string_view text);

}  // namespace ipcfs::client
