// A pattern becomes a regular expression over bytes. Any thread.
#include <bitset>
#include <string>

#include <re2/re2.h>

#include <channel/glob.hpp>

namespace ipcfs::channel {
namespace {

// A class of one byte of `set`.
std::string class_of(const std::bitset<256>& set) {
    std::string text;
    for (unsigned from = 0; from < 256; ++from) {
        if (!set.test(from)) continue;
        unsigned to = from;
        while (to + 1 < 256 && set.test(to + 1)) ++to;
        for (const unsigned end : {from, to}) {
            constexpr const char* kHex = "0123456789abcdef";
            text.append(text.empty() ? "[" : end == to && to != from ? "-" : "");
            text.append("\\x").append({kHex[end / 16], kHex[end % 16]});
            if (from == to) break;
        }
        from = to;
    }
    return text.empty() ? "[^\\x00-\\xff]" : text.append("]");
}

}  // namespace

Result<Glob> Glob::parse(std::string_view pattern, bool is_path) {
    if (pattern.empty() || pattern.size() > kLongest) {
        return Fault{EINVAL, "a pattern has 1 to 255 bytes"};
    }
    std::string regex;
    auto byte = [&](std::size_t at) { return static_cast<unsigned char>(pattern[at]); };
    for (std::size_t at = 0; at < pattern.size(); ++at) {
        std::bitset<256> set;
        const char c = pattern[at];
        if (c == '*') {
            const std::size_t first = at;
            while (at + 1 < pattern.size() && pattern[at + 1] == '*') ++at;
            if (!is_path || at == first) {
                regex.append(is_path ? "[^/]*" : ".*");
            } else if ((first == 0 || pattern[first - 1] == '/') && at + 1 < pattern.size() &&
                       pattern[at + 1] == '/') {
                regex.append("(?:.*/)?");
                ++at;
            } else {
                regex.append(".*");
            }
            continue;
        }
        if (c == '?') {
            set.set();
        } else if (c == '[') {
            std::size_t from = at + 1;
            const bool negated = from < pattern.size() && pattern[from] == '!';
            from += negated;
            const std::size_t end = pattern.find(']', from + 1);  // a ] that comes first is meant
            if (end == std::string_view::npos) return Fault{EINVAL, "a pattern's [ has no ]"};
            for (std::size_t i = from; i < end; ++i) {
                const unsigned first = byte(i);
                if (i + 2 < end && pattern[i + 1] == '-') i += 2;
                for (unsigned each = first; each <= byte(i); ++each) set.set(each);
            }
            if (negated) set.flip();
            at = end;
        } else {
            if (c == '\\' && ++at == pattern.size()) {
                return Fault{EINVAL, "a pattern ends with a lone \\"};
            }
            set.set(byte(at));
        }
        if (is_path && (c == '?' || c == '[')) set.reset('/');
        regex.append(class_of(set));
    }
    RE2::Options options(RE2::Quiet);
    options.set_encoding(RE2::Options::EncodingLatin1);
    options.set_dot_nl(true);
    options.set_never_capture(true);
    options.set_max_mem(kMemory);
    auto made = std::make_shared<const RE2>(regex, options);
    if (!made->ok()) return Fault{EINVAL, "a pattern is too long: " + made->error()};
    return Glob(std::move(made));
}

bool Glob::matches(std::string_view text) const {
    return RE2::FullMatch(re2::StringPiece(text.data(), text.size()), *regex_);
}

}  // namespace ipcfs::channel
