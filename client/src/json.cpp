#include <io.hpp>
#include <json.hpp>

namespace ipcfs::client {
namespace {

Json cell(std::string_view text) {
    auto number = parse_number(text);
    return number && (text == "0" || text.front() != '0') ? Json(*number) : Json(text);
}

}  // namespace

Json to_json(const Pairs& pairs) {
    Json object = Json::object();
    for (const auto& [name, text] : pairs) object[name] = cell(text);
    return object;
}

Json to_json(const Table& table) {
    Json array = Json::array();
    for (const auto& row : table.rows) {
        Json object = Json::object();
        for (const std::string& column : table.columns) {
            object[column] = cell(table.cell(row, column));
        }
        array.push_back(std::move(object));
    }
    return array;
}

std::string to_line(const Json& value) {
    return value.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

void print_json(const Json& value) {
    print(to_line(value));
}

}  // namespace ipcfs::client
