// Statistics as rows of tables: a row has the name of one statistic, its unit, its meaning and how to
// get its value. The texts of the stats files are made from these rows, and a test compares the tables
// of docs/tree.md with them. Values; any thread.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <variant>

#include <insight/table.hpp>

namespace ipcfs::insight {

enum class Unit : std::uint8_t { kCount, kBytes, kNanos, kTime, kFlag, kText };

struct Described {
    std::string_view name;
    Unit unit = Unit::kCount;
    std::string_view help;
};

using Value = std::variant<std::uint64_t, std::string>;
std::string text_of(Value value);

// A statistic of an `Of`.
template <class Of>
struct Metric : Described {
    Value (*get)(const Of& of) = nullptr;
    std::uint64_t (*limit)(const Of& of) = nullptr;  // the most that it can be; null: none
};

// A getter: the value of a member, or what a member function without arguments returns.
template <auto kMember, class Of>
Value member(const Of& of) {
    return static_cast<std::uint64_t>(std::invoke(kMember, of));
}

// Lines of a table with the columns scope, id, resource, used, limit.
template <class Of, std::size_t kRows>
void add_lines(Table& table, std::string_view scope, const Of& of,
               const std::array<Metric<Of>, kRows>& metrics) {
    for (const Metric<Of>& each : metrics) {
        table.row().cell(scope).cell(0).cell(each.name).cell(text_of(each.get(of)));
        table.cell(each.limit ? each.limit(of) : 0);
    }
}

}  // namespace ipcfs::insight
