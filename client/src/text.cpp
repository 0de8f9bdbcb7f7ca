// Parsing and formatting of text. Pure functions.
#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>

#include <text.hpp>

namespace ipcfs::client {
namespace {

constexpr std::string_view kHex = "0123456789abcdef";

// Decodes the UTF-8 sequence at `at`: its length and code point; {0, 0} if it is malformed,
// overlong, a surrogate or beyond U+10FFFF.
std::pair<std::size_t, char32_t> decode_utf8(std::string_view bytes, std::size_t at) {
    auto byte = [&](std::size_t i) { return static_cast<unsigned char>(bytes[i]); };
    unsigned char lead = byte(at);
    if (lead < 0x80) return {1, lead};
    std::size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    if (lead < 0xc2 || lead > 0xf4 || at + length > bytes.size()) return {0, 0};
    char32_t point = lead & (0x7fU >> length);
    for (std::size_t i = 1; i < length; ++i) {
        if ((byte(at + i) & 0xc0) != 0x80) return {0, 0};
        point = (point << 6) | (byte(at + i) & 0x3fU);
    }
    constexpr std::array<char32_t, 5> kLeast{0, 0, 0x80, 0x800, 0x10000};
    bool surrogate = point >= 0xd800 && point <= 0xdfff;
    if (point < kLeast[length] || point > 0x10ffff || surrogate) return {0, 0};
    return {length, point};
}

bool unsafe(char32_t point) {
    bool control = point < 0x20 || (point >= 0x7f && point < 0xa0);
    bool direction = point == 0x200e || point == 0x200f || (point >= 0x202a && point <= 0x202e) ||
                     (point >= 0x2066 && point <= 0x2069);
    return control || direction || point == 0x2028 || point == 0x2029;
}

std::size_t width(std::string_view text) {
    auto starts = [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; };
    return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), starts));
}

int nibble(char c) {
    auto at = kHex.find(c);
    return at == std::string_view::npos ? -1 : static_cast<int>(at);
}

std::string unescape(std::string_view text) {
    std::string out;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] != '\\' || i + 1 == text.size()) {
            out += text[i];
            continue;
        }
        char c = text[++i];
        if (c == 'x' && i + 2 < text.size() && nibble(text[i + 1]) >= 0 &&
            nibble(text[i + 2]) >= 0) {
            out += static_cast<char>(nibble(text[i + 1]) * 16 + nibble(text[i + 2]));
            i += 2;
        } else {
            out += c == 'n' ? '\n' : c == 't' ? '\t' : c == 'r' ? '\r' : c;
        }
    }
    return out;
}

bool numeric(std::string_view cell) {
    return !cell.empty() && cell.find_first_not_of("0123456789.") == std::string_view::npos;
}

}  // namespace

std::vector<std::string_view> split(std::string_view text, char separator) {
    std::vector<std::string_view> parts;
    for (;;) {
        auto end = text.find(separator);
        parts.push_back(text.substr(0, end));
        if (end == std::string_view::npos) return parts;
        text.remove_prefix(end + 1);
    }
}

Pairs parse_pairs(std::string_view text) {
    Pairs pairs;
    for (std::string_view line : split(text, '\n')) {
        if (line.empty()) continue;
        auto blank = line.find(' ');
        auto value = blank == std::string_view::npos ? std::string_view{} : line.substr(blank + 1);
        pairs.emplace_back(line.substr(0, blank), value);
    }
    return pairs;
}

std::string_view find(const Pairs& pairs, std::string_view key) {
    for (const auto& [name, value] : pairs) {
        if (name == key) return value;
    }
    return {};
}

std::optional<std::size_t> Table::column(std::string_view name) const {
    auto at = std::find(columns.begin(), columns.end(), name);
    if (at == columns.end()) return std::nullopt;
    return static_cast<std::size_t>(at - columns.begin());
}

std::string_view Table::cell(const std::vector<std::string>& row, std::string_view name) const {
    auto at = column(name);
    return at && *at < row.size() ? std::string_view(row[*at]) : std::string_view{};
}

Table parse_table(std::string_view text) {
    Table table;
    for (std::string_view line : split(text, '\n')) {
        if (line.empty()) continue;
        std::vector<std::string> cells;
        for (std::string_view cell : split(line, '\t')) cells.push_back(unescape(cell));
        if (table.columns.empty()) {
            table.columns = std::move(cells);
        } else {
            table.rows.push_back(std::move(cells));
        }
    }
    return table;
}

std::string render(const Table& table, bool escape) {
    std::size_t count = table.columns.size();
    std::vector<std::vector<std::string>> lines{table.columns};
    lines.insert(lines.end(), table.rows.begin(), table.rows.end());
    std::vector<std::size_t> widths(count, 0);
    std::vector<bool> right(count, !table.rows.empty());
    for (std::size_t l = 0; l < lines.size(); ++l) {
        lines[l].resize(count);
        for (std::size_t c = 0; c < count; ++c) {
            // A newline in a cell would break the table, so it is always escaped.
            std::string& cell = lines[l][c];
            if (escape || cell.find_first_of("\n\t\r") != std::string::npos) {
                cell = escape_controls(cell);
            }
            if (l > 0 && !cell.empty() && cell != "-" && !numeric(cell)) right[c] = false;
            widths[c] = std::max(widths[c], width(cell));
        }
    }
    std::string out;
    for (const auto& line : lines) {
        std::string row;
        for (std::size_t c = 0; c < count; ++c) {
            std::string pad(widths[c] - width(line[c]), ' ');
            if (c > 0) row += "  ";
            row += right[c] ? pad + line[c] : line[c] + pad;
        }
        row.erase(row.find_last_not_of(' ') + 1);
        out += row + "\n";
    }
    return out;
}

std::string render(const Pairs& pairs, bool escape) {
    std::size_t widest = 0;
    for (const auto& [key, value] : pairs) widest = std::max(widest, width(key));
    std::string out;
    for (const auto& [key, value] : pairs) {
        out += escape ? escape_controls(key) : key;
        if (!value.empty()) {
            out.append(widest - width(key) + 2, ' ');
            out += escape ? escape_controls(value) : value;
        }
        out += '\n';
    }
    return out;
}

std::optional<std::uint64_t> parse_number(std::string_view text) {
    std::uint64_t value = 0;
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
    return value;
}

std::optional<std::int64_t> parse_duration(std::string_view text) {
    double value = 0;
    auto format = std::chars_format::fixed;
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, format);
    if (error != std::errc{} || value < 0) return std::nullopt;
    std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
    double factor = unit.empty() || unit == "s" ? 1e9
                    : unit == "ns"              ? 1
                    : unit == "us"              ? 1e3
                    : unit == "ms"              ? 1e6
                    : unit == "m"               ? 60e9
                    : unit == "h"               ? 3600e9
                                                : 0;
    double nanos = value * factor;
    if (factor == 0 || !(nanos < 4e18)) return std::nullopt;
    return static_cast<std::int64_t>(nanos);
}

std::string human_size(std::uint64_t bytes) {
    constexpr std::string_view kUnits = "BKMGTPE";
    auto value = static_cast<double>(bytes);
    std::size_t unit = 0;
    for (; value >= 1024; ++unit) value /= 1024;
    if (unit == 0) return std::to_string(bytes);
    std::array<char, 32> text{};
    std::snprintf(text.data(), text.size(), value < 10 ? "%.1f%c" : "%.0f%c", value, kUnits[unit]);
    return text.data();
}

std::string human_duration(std::int64_t nanos) {
    std::array<char, 48> text{};
    auto seconds = static_cast<double>(nanos) / 1e9;
    if (nanos < 1000) {
        std::snprintf(text.data(), text.size(), "%lldns", static_cast<long long>(nanos));
    } else if (nanos < 1'000'000) {
        std::snprintf(text.data(), text.size(), "%.0fus", seconds * 1e6);
    } else if (nanos < 1'000'000'000) {
        std::snprintf(text.data(), text.size(), "%.0fms", seconds * 1e3);
    } else if (seconds < 60) {
        std::snprintf(text.data(), text.size(), "%.1fs", seconds);
    } else {
        long long whole = nanos / 1'000'000'000;
        std::snprintf(text.data(), text.size(), "%lldm%02llds", whole / 60, whole % 60);
    }
    return text.data();
}

bool is_utf8(std::string_view bytes) {
    for (std::size_t at = 0; at < bytes.size();) {
        auto [length, point] = decode_utf8(bytes, at);
        if (length == 0) return false;
        at += length;
    }
    return true;
}

std::string base64(std::string_view bytes) {
    constexpr std::string_view kDigits =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    std::string out;
    out.reserve((bytes.size() + 2) / 3 * 4);
    for (std::size_t at = 0; at < bytes.size(); at += 3) {
        std::size_t have = std::min<std::size_t>(3, bytes.size() - at);
        std::uint32_t group = 0;
        for (std::size_t i = 0; i < 3; ++i) {
            group = (group << 8) | (i < have ? static_cast<unsigned char>(bytes[at + i]) : 0U);
        }
        for (std::size_t i = 0; i < 4; ++i) {
            out += i <= have ? kDigits[(group >> (18 - 6 * i)) & 63] : '=';
        }
    }
    return out;
}

std::string escape_controls(std::string_view text) {
    std::string out;
    for (std::size_t at = 0; at < text.size();) {
        auto [length, point] = decode_utf8(text, at);
        std::size_t step = std::max<std::size_t>(length, 1);
        if (length > 0 && !unsafe(point)) {
            out += text.substr(at, step);
        } else if (text[at] == '\n' || text[at] == '\t' || text[at] == '\r') {
            out += text[at] == '\n' ? "\\n" : text[at] == '\t' ? "\\t" : "\\r";
        } else {
            for (char c : text.substr(at, step)) {
                auto byte = static_cast<unsigned char>(c);
                out += {'\\', 'x', kHex[byte >> 4], kHex[byte & 15]};
            }
        }
        at += step;
    }
    return out;
}

}  // namespace ipcfs::client
