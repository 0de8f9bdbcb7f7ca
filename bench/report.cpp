// The table and the JSON.
#include "report.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include <nlohmann/json.hpp>

namespace ipcfs::bench {
namespace {

// Three digits that matter, and none of a large number lost.
std::string number(double value) {
    char text[64];
    const double size = std::fabs(value);
    const int digits = size == 0 || size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 4;
    std::snprintf(text, sizeof text, "%.*f", digits, value);
    return text;
}

std::string plain(double value) {
    char text[64];
    std::snprintf(text, sizeof text, "%g", value);
    return text;
}

std::string figure(const std::optional<double>& value, const std::string& unit) {
    return value ? number(*value) + (unit.empty() ? "" : " " + unit) : "-";
}

std::string target_text(const Row& row) {
    if (row.target.of == Target::Of::kNothing) return "";
    const char* sign = row.target.is == Target::Is::kBelow    ? "< "
                       : row.target.is == Target::Is::kAtMost ? "<= "
                                                              : ">= ";
    const bool ratio = row.target.of == Target::Of::kRatio;
    return sign + plain(row.target.bound) + (ratio ? "x" : row.unit.empty() ? "" : " " + row.unit);
}

}  // namespace

std::optional<double> Row::ratio() const {
    if (!value || !baseline_value || *baseline_value == 0) return std::nullopt;
    return *value / *baseline_value;
}

bool Row::ok() const {
    if (target.of == Target::Of::kNothing) return true;
    const std::optional<double> held = target.of == Target::Of::kValue ? value : ratio();
    if (!held) return false;
    switch (target.is) {
        case Target::Is::kBelow: return *held < target.bound;
        case Target::Is::kAtMost: return *held <= target.bound;
        case Target::Is::kAtLeast: return *held >= target.bound;
    }
    return false;
}

void Report::print_table(const std::string& title) {
    constexpr std::size_t kColumns = 7;
    using Line = std::array<std::string, kColumns>;
    std::vector<Line> lines{{title, "value", "baseline", "", "ratio", "target", ""}};
    for (; printed_ < rows_.size(); ++printed_) {
        const Row& row = rows_[printed_];
        const auto ratio = row.ratio();
        char ratio_text[32] = "";
        if (ratio)
            std::snprintf(ratio_text, sizeof ratio_text, *ratio < 0.1 ? "%.4fx" : "%.2fx", *ratio);
        lines.push_back({row.name, figure(row.value, row.unit), row.baseline,
                         row.baseline.empty() ? "" : figure(row.baseline_value, row.unit),
                         ratio_text, target_text(row),
                         row.target.of == Target::Of::kNothing ? ""
                         : row.ok()                            ? "ok"
                                                               : "MISS"});
    }
    std::array<std::size_t, kColumns> width{};
    for (const Line& line : lines) {
        for (std::size_t i = 0; i < kColumns; ++i) width[i] = std::max(width[i], line[i].size());
    }
    for (const Line& line : lines) {
        std::string text;
        for (std::size_t i = 0; i < kColumns; ++i) {
            const std::string pad(width[i] - line[i].size(), ' ');
            const bool right = i == 1 || i == 3 || i == 4;  // figures
            text += (i == 0 ? "" : "  ") + (right ? pad + line[i] : line[i] + pad);
        }
        text.erase(text.find_last_not_of(' ') + 1);
        std::printf("%s\n", text.c_str());
        if (&line == &lines.front()) std::printf("%s\n", std::string(text.size(), '-').c_str());
    }
    std::printf("\n");
    std::fflush(stdout);
}

std::string Report::json() const {
    auto list = nlohmann::ordered_json::array();
    auto optional = [](const std::optional<double>& value) {
        return value ? nlohmann::ordered_json(*value) : nlohmann::ordered_json();
    };
    for (const Row& row : rows_) {
        nlohmann::ordered_json one;
        one["name"] = row.name;
        one["value"] = optional(row.value);
        one["unit"] = row.unit;
        one["baseline"] = row.baseline;
        one["baseline_value"] = optional(row.baseline_value);
        one["ratio"] = optional(row.ratio());
        const std::string target = target_text(row);
        one["target"] = target.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(target);
        one["ok"] = row.ok();
        list.push_back(std::move(one));
    }
    return list.dump(2) + "\n";
}

bool Report::all_ok() const {
    return std::all_of(rows_.begin(), rows_.end(), [](const Row& row) { return row.ok(); });
}

}  // namespace ipcfs::bench
