// The commands' JSON, one line a value. Bytes that are not UTF-8 become U+FFFD.
#pragma once

#include <nlohmann/json.hpp>
#include <text.hpp>

namespace ipcfs::client {

using Json = nlohmann::ordered_json;

// Cells that are decimal integers of 64 bits become numbers, others strings.
Json to_json(const Pairs& pairs);
// An array of objects, one for each row.
Json to_json(const Table& table);
// With a newline.
std::string to_line(const Json& value);
void print_json(const Json& value);

}  // namespace ipcfs::client
