// A streaming JSON writer.
#include <array>
#include <cstdio>
#include <utility>

#include <json.hpp>

namespace ipcfs::client {

void Json::separate() {
    if (!after_key_ && !first_) text_ += ',';
    after_key_ = false;
    first_ = false;
}

Json& Json::open(char begin, char end) {
    separate();
    text_ += begin;
    closers_.push_back(end);
    first_ = true;
    return *this;
}

Json& Json::end() {
    text_ += closers_.back();
    closers_.pop_back();
    first_ = false;
    return *this;
}

Json& Json::raw(std::string_view text) {
    separate();
    text_ += text;
    return *this;
}

Json& Json::key(std::string_view name) {
    value(name);
    text_ += ':';
    after_key_ = true;
    return *this;
}

Json& Json::value(std::string_view text) {
    separate();
    text_ += '"';
    for (std::size_t at = 0; at < text.size(); ++at) {
        char c = text[at];
        auto byte = static_cast<unsigned char>(c);
        if (c == '"' || c == '\\') {
            text_ += {'\\', c};
        } else if (byte < 0x20) {
            std::array<char, 8> code{};
            std::snprintf(code.data(), code.size(), "\\u%04x", byte);
            text_ += code.data();
        } else if (byte < 0x80) {
            text_ += c;
        } else {
            std::size_t length = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2;
            std::string_view rest = text.substr(at, length);
            bool whole = rest.size() == length && is_utf8(rest);
            text_ += whole ? rest : std::string_view("\xef\xbf\xbd");
            if (whole) at += length - 1;
        }
    }
    text_ += '"';
    return *this;
}

Json& Json::cell(std::string_view text) {
    bool plain = parse_number(text) && (text == "0" || text.front() != '0');
    return plain ? raw(text) : value(text);
}

Json& Json::object(const Pairs& pairs) {
    begin_object();
    for (const auto& [name, text] : pairs) key(name).cell(text);
    return end();
}

Json& Json::array(const Table& table) {
    begin_array();
    for (const auto& row : table.rows) {
        begin_object();
        for (std::size_t c = 0; c < table.columns.size(); ++c) {
            key(table.columns[c]).cell(c < row.size() ? std::string_view(row[c]) : "");
        }
        end();
    }
    return end();
}

std::string Json::take() {
    first_ = true;
    return std::exchange(text_, {}) + "\n";
}

}  // namespace ipcfs::client
