// Patterns as a shell knows them. `*` any characters, `?` one, `[a-z]` and `[!a-z]` one of a set, `\` takes
// away the meaning of what follows. In paths, none of them is a slash, but `**` is any characters, and
// `**` before a slash also nothing at all. Takes time in proportion to pattern times text, whatever
// they are. Immutable; any thread.
#pragma once

#include <cstddef>
#include <memory>
#include <string_view>

#include <base/result.hpp>

namespace re2 {
class RE2;
}

namespace ipcfs::channel {

class Glob {
public:
    static constexpr std::size_t kLongest = 255;        // bytes of a pattern
    static constexpr std::size_t kMemory = 128U << 10;  // bytes, at most

    // EINVAL when it is empty, too long, or a set or a `\` is not complete.
    static Result<Glob> parse(std::string_view pattern, bool is_path);
    bool matches(std::string_view text) const;

private:
    explicit Glob(std::shared_ptr<const re2::RE2> regex) : regex_(std::move(regex)) {}
    std::shared_ptr<const re2::RE2> regex_;
};

}  // namespace ipcfs::channel
