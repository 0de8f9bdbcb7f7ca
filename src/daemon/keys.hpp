// The table of configuration keys: how each is checked, set and written. The file, the command
// line, to_toml() and the reload all use it, so a key is added in one place. Internal to the
// configuration; plain values, any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <daemon/config.hpp>

namespace ipcfs::daemon {

// A value from a source. A file gives one typed form; a command line gives text and every form that
// the text can stand for.
struct Value {
    std::optional<bool> boolean;
    std::optional<std::int64_t> integer;
    std::optional<std::string> text;
    std::string shown;  // for errors: as it was written, or "an array"
};
Value value_from_text(std::string_view text);

template <class Target>
struct KeyOf {
    std::string name;         // "fuse.queue-depth"; in an override just "messages"
    bool reloadable = false;  // can change in a running daemon
    // Sets the key. Returns empty on success; otherwise changes nothing and returns what is
    // allowed: "a whole number ...".
    std::function<std::string(Target&, const Value&)> set;
    std::function<std::string(const Target&)> render;  // as TOML; empty: omit the key
};
using Key = KeyOf<Config>;
using UserKey = KeyOf<UserOverride>;

const std::vector<Key>& keys();           // in the order of the file, section by section
const std::vector<UserKey>& user_keys();  // of [limits.user.NAME]

std::string toml_string(std::string_view text);  // quoted and escaped

}  // namespace ipcfs::daemon
