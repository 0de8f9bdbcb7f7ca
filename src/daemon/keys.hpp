// The keys of the configuration as one table: how each is checked, set and written out. The file,
// the command line, to_toml and the reload all go by it, so a key added there is known everywhere.
// Internal to the configuration; pure values, any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <daemon/config.hpp>

namespace ipcfs::daemon {

// A value as it was found. A file gives one typed form; a command line gives text, and the forms
// that this text can stand for.
struct Value {
    std::optional<bool> boolean;
    std::optional<std::int64_t> integer;
    std::optional<std::string> text;
    std::string shown;  // for errors: as the person wrote it, or "an array"
};
Value value_from_text(std::string_view text);

template <class Target>
struct KeyOf {
    std::string name;         // "fuse.queue-depth"; of an override only "messages"
    bool reloadable = false;  // can change in a running daemon
    // Empty: done. Otherwise nothing was changed, and this is what is allowed: "a whole number
    // ...".
    std::function<std::string(Target&, const Value&)> set;
    std::function<std::string(const Target&)> render;  // as TOML; empty: leave it out
};
using Key = KeyOf<Config>;
using UserKey = KeyOf<UserOverride>;

const std::vector<Key>& keys();           // in the order of the file, section by section
const std::vector<UserKey>& user_keys();  // of [limits.user.NAME]

std::string toml_string(std::string_view text);  // quoted and escaped

}  // namespace ipcfs::daemon
