// Parsing and formatting of sizes and durations. Any thread.
#include <array>
#include <charconv>

#include <base/units.hpp>

namespace ipcfs {
namespace {

struct Unit {
    std::string_view suffix;
    std::uint64_t factor;
};
constexpr std::array<Unit, 4> kSizes{
    {{"G", 1ULL << 30}, {"M", 1ULL << 20}, {"K", 1ULL << 10}, {"", 1}}};
constexpr std::array<Unit, 6> kTimes{{{"h", 3'600'000'000'000},
                                      {"m", 60'000'000'000},
                                      {"s", 1'000'000'000},
                                      {"ms", 1'000'000},
                                      {"us", 1'000},
                                      {"ns", 1}}};

std::optional<std::uint64_t> parse_scaled(std::string_view text, const auto& units) {
    std::uint64_t value = 0;
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end == text.data()) return std::nullopt;
    std::string_view suffix(end, static_cast<std::size_t>(text.data() + text.size() - end));
    for (const Unit& unit : units) {
        if (unit.suffix != suffix) continue;
        std::uint64_t scaled = 0;
        if (__builtin_mul_overflow(value, unit.factor, &scaled)) return std::nullopt;
        if (scaled > INT64_MAX) return std::nullopt;
        return scaled;
    }
    return std::nullopt;
}

std::string format_scaled(std::uint64_t value, const auto& units) {
    for (const Unit& unit : units) {
        if (value % unit.factor == 0) {
            return std::to_string(value / unit.factor).append(unit.suffix);
        }
    }
    return std::to_string(value);
}

}  // namespace

std::optional<std::uint64_t> parse_size(std::string_view text) {
    return parse_scaled(text, kSizes);
}

std::string format_size(std::uint64_t bytes) {
    return bytes == 0 ? "0" : format_scaled(bytes, kSizes);
}

std::optional<Nanos> parse_duration(std::string_view text) {
    if (text == "0") return 0;
    auto value = parse_scaled(text, kTimes);
    if (!value) return std::nullopt;
    return static_cast<Nanos>(*value);
}

std::string format_duration(Nanos nanos) {
    return nanos <= 0 ? "0" : format_scaled(static_cast<std::uint64_t>(nanos), kTimes);
}

std::optional<std::uint64_t> parse_number(std::string_view text) {
    std::uint64_t value = 0;
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size() || text.empty()) {
        return std::nullopt;
    }
    return value;
}

std::string_view trim(std::string_view text) {
    constexpr std::string_view kBlanks = " \t\r";
    const auto first = text.find_first_not_of(kBlanks);
    if (first == std::string_view::npos) return {};
    return text.substr(first, text.find_last_not_of(kBlanks) - first + 1);
}

}  // namespace ipcfs
