#include <failure.hpp>
#include <io.hpp>
#include <settings.hpp>
#include <text.hpp>

namespace ipcfs::client {
namespace {

constexpr const char* kFile = "kern/ipc/settings";

// Columns key, values and help; empty if it cannot be read.
Table read_settings(const Tree& tree) {
    return parse_table(read_file(tree.file(kFile)).value_or(""));
}

}  // namespace

std::vector<std::string> setting_keys(const Tree& tree) {
    Table table = read_settings(tree);
    std::vector<std::string> keys;
    for (const auto& row : table.rows) keys.emplace_back(table.cell(row, "key"));
    return keys;
}

std::vector<std::string> setting_words(const Tree& tree, std::string_view key) {
    Table table = read_settings(tree);
    std::vector<std::string> words;
    for (const auto& row : table.rows) {
        std::string_view values = table.cell(row, "values");
        // Others are described: "1 to 100", "off, or N DELAY".
        bool listed = values.find(" to ") == values.npos && values.find(',') == values.npos;
        if (table.cell(row, "key") != key || !listed) continue;
        for (std::string_view word : split(values, ' ')) words.emplace_back(word);
    }
    return words;
}

std::string settings_help(const std::string& mount) {
    try {
        Tree tree(mount);
        Table table = read_settings(tree);
        std::string text = "\nSettings (KEY, its values, its meaning):\n";
        for (const auto& row : table.rows) {
            std::string key(table.cell(row, "key"));
            key.resize(std::max<std::size_t>(key.size(), 16), ' ');
            text.append("  ").append(key).append(table.cell(row, "values")).append("\n      ");
            text.append(table.cell(row, "help")).append("\n");
        }
        return table.rows.empty() ? "" : text;
    } catch (const Failure&) {
        return "\nSettings: shown here while the tree is mounted; start it with: ipcfs up\n";
    }
}

}  // namespace ipcfs::client
