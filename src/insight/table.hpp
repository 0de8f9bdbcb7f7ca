// Tab-separated text for `stats`, `peek` and kern/ipc/stats/*: a line of column names, then one
// line a row. A plain value of one thread; build it outside locks.
//
//     Table t({"channel", "depth"});
//     t.row().cell(path).cell(depth);
//     return std::move(t).text();
#pragma once

#include <charconv>
#include <concepts>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace ipcfs::insight {

// `field` with backslashes and control bytes escaped: \t, \n, \r, \\, and \xNN (two lower-case hex
// digits) for others. Bytes from 0x80 stay, so that UTF-8 names remain readable.
std::string escaped(std::string_view field);

class Table {
public:
    explicit Table(const std::vector<std::string_view>& columns);

    // Begins the next row. Every row needs exactly as many cells as there are columns; anything
    // else is a bug and aborts.
    Table& row();
    Table& cell(std::string_view value);
    template <std::integral T>
    requires(!std::same_as<T, bool> && !std::same_as<T, char>) Table& cell(T value) {
        char digits[24];
        const auto end = std::to_chars(digits, digits + sizeof digits, value).ptr;
        return cell(std::string_view(digits, static_cast<std::size_t>(end - digits)));
    }

    // The whole text, ending with a newline. Consumes the table.
    std::string text() &&;

private:
    void end_row();

    std::string text_;
    std::size_t columns_;
    std::size_t cells_;  // of the row being written
};

}  // namespace ipcfs::insight
