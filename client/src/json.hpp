// A streaming JSON writer; there is no parser. Bytes that are not UTF-8 become U+FFFD.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <text.hpp>

namespace ipcfs::client {

class Json {
public:
    Json& begin_object() { return open('{', '}'); }
    Json& begin_array() { return open('[', ']'); }
    Json& end();
    Json& key(std::string_view name);
    Json& value(std::string_view text);
    Json& value(const char* text) { return value(std::string_view(text)); }
    Json& value(std::uint64_t number) { return raw(std::to_string(number)); }
    Json& value(bool yes) { return raw(yes ? "true" : "false"); }
    Json& null() { return raw("null"); }
    // Writes a number if the text is one (a decimal integer of 64 bits), else a string.
    Json& cell(std::string_view text);

    Json& object(const Pairs& pairs);
    // Writes an array of objects, one for each row.
    Json& array(const Table& table);

    // Returns the text so far, with a newline, and starts anew.
    std::string take();

private:
    Json& open(char begin, char end);
    Json& raw(std::string_view text);
    void separate();

    std::string text_;
    std::vector<char> closers_;
    bool first_ = true;
    bool after_key_ = false;
};

}  // namespace ipcfs::client
