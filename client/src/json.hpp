// Writes JSON text as it goes along; output only, so that no parser is compiled in. Strings that
// are not UTF-8 get their stray bytes as U+FFFD.
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
    // A number when the text is one (a whole decimal that fits 64 bits), else a string.
    Json& cell(std::string_view text);

    Json& object(const Pairs& pairs);
    // An array of objects, one a row.
    Json& array(const Table& table);

    // The text so far, with a newline; the writer starts afresh.
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
