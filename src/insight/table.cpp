#include <utility>

#include <base/check.hpp>
#include <insight/metric.hpp>
#include <insight/table.hpp>

namespace ipcfs::insight {

std::string escaped(std::string_view field) {
    std::string out;
    static constexpr char kHex[] = "0123456789abcdef";
    for (const char c : field) {
        const auto byte = static_cast<unsigned char>(c);
        switch (c) {
            case '\t': out += "\\t"; break;
            case '\n': out += "\\n"; break;
            case '\r': out += "\\r"; break;
            case '\\': out += "\\\\"; break;
            default:
                if (byte < 0x20 || byte == 0x7f) {
                    out += "\\x";
                    out += kHex[byte >> 4];
                    out += kHex[byte & 0xf];
                } else {
                    out += c;
                }
        }
    }
    return out;
}

std::string text_of(Value value) {
    if (auto* text = std::get_if<std::string>(&value)) return std::move(*text);
    return std::to_string(std::get<std::uint64_t>(value));
}

Table::Table(const std::vector<std::string_view>& columns) : columns_(columns.size()), cells_(0) {
    IPCFS_CHECK(columns_ > 0);
    for (const std::string_view name : columns) cell(name);
}

Table& Table::row() {
    end_row();
    cells_ = 0;
    return *this;
}

Table& Table::cell(std::string_view value) {
    IPCFS_CHECK(cells_ < columns_);
    if (cells_ != 0) text_ += '\t';
    text_ += escaped(value);
    ++cells_;
    return *this;
}

std::string Table::text() && {
    end_row();
    return std::move(text_);
}

void Table::end_row() {
    IPCFS_CHECK(cells_ == columns_);
    text_ += '\n';
}

}  // namespace ipcfs::insight
