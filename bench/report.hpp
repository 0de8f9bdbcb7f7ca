// What the benchmarks found: rows, each a figure beside its baseline, as a table and as JSON.
// Owned by main; one thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace ipcfs::bench {

// What a row is held to.
struct Target {
    enum class Of : std::uint8_t { kNothing, kValue, kRatio };
    enum class Is : std::uint8_t { kBelow, kAtMost, kAtLeast };
    Of of = Of::kNothing;
    Is is = Is::kAtMost;
    double bound = 0;
};
inline Target value_below(double bound) {
    return {Target::Of::kValue, Target::Is::kBelow, bound};
}
inline Target value_at_most(double bound) {
    return {Target::Of::kValue, Target::Is::kAtMost, bound};
}
inline Target ratio_at_most(double bound) {
    return {Target::Of::kRatio, Target::Is::kAtMost, bound};
}
inline Target ratio_at_least(double bound) {
    return {Target::Of::kRatio, Target::Is::kAtLeast, bound};
}

// No value: it could not be measured here; the name or the baseline says why.
struct Row {
    std::string name;
    std::optional<double> value;
    std::string unit;
    std::string baseline;
    std::optional<double> baseline_value;
    Target target;

    std::optional<double> ratio() const;  // value / baseline_value
    // Without a target, and where this machine cannot measure the baseline, nothing is missed.
    bool ok() const;
};

class Report {
public:
    void add(Row row) { rows_.push_back(std::move(row)); }
    // Prints the rows added since the last call, under `title`.
    void print_table(const std::string& title);
    // A list of {name, value, unit, baseline, baseline_value, ratio, target, ok}.
    std::string json() const;
    bool all_ok() const;

private:
    std::vector<Row> rows_;
    std::size_t printed_ = 0;
};

}  // namespace ipcfs::bench
