// Patterns as a shell knows them. `*` any characters, `?` one, `[a-z]` and `[!a-z]` one of a set, `\` takes
// away the meaning of what follows. In paths, none of them is a slash, but `**` is any characters, and
// `**` before a slash also nothing at all. Takes time in proportion to pattern times text, whatever
// they are. Immutable; any thread.
#pragma once

#include <array>
#include <bitset>
#include <cstdint>
#include <string_view>
#include <vector>

#include <base/result.hpp>

namespace ipcfs::channel {

class Glob {
public:
    static constexpr std::size_t kLongest = 255;  // bytes of a pattern

    // EINVAL when it is empty, too long, or a set or a `\` is not complete.
    static Result<Glob> parse(std::string_view pattern, bool is_path);
    bool matches(std::string_view text) const;

private:
    using Set = std::bitset<256>;
    struct Token {
        enum class Kind : std::uint8_t { kOne, kAny, kAnywhere } kind = Kind::kOne;
        bool may_skip_slash = false;  // kAnywhere: the slash that follows may be missing with it
        Set set;                      // kOne
    };
    std::vector<Token> tokens_;
    bool is_path_ = false;
};

}  // namespace ipcfs::channel
