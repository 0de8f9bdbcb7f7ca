// The table of keys. Built once, then read by any thread.
#include <algorithm>
#include <array>
#include <span>
#include <utility>

#include <base/units.hpp>
#include <daemon/keys.hpp>

namespace ipcfs::daemon {
namespace {

constexpr std::array<std::string_view, 3> kTransports{"auto", "uring", "classic"};
constexpr std::array<std::string_view, 2> kPassthroughs{"auto", "off"};
constexpr std::array<std::string_view, 4> kTargets{"auto", "stderr", "file", "journald"};

constexpr std::array<std::string_view, 2> kStores{"disk", "off"};
constexpr std::array<std::string_view, 3> kAllowOther{"auto", "true", "false"};

struct UserLimit {
    const char* name;
    bool bytes;
    const char* help;
};
// By access::Resource.
constexpr std::array<UserLimit, access::kResources> kUserLimits{{
    {"messages", false, "messages that one user may have queued"},
    {"bytes", true, "bytes of one user's queued messages"},
    {"channels", false, "channels that one user may own"},
    {"open-files", false, "files of the tree that one user may have open"},
    {"waiters", false, "operations of one user that may wait"},
    {"payload-bytes", true,
     "memory of one user's large messages (queued, or received and still open or mapped), pools "
     "and shared regions"},
}};

constexpr std::uint64_t kMaxInteger = INT64_MAX;  // the largest TOML integer

std::string range(std::uint64_t least, std::uint64_t most, std::string (*show)(std::uint64_t)) {
    if (most == kMaxInteger) return show(least) + " or more";
    return "from " + show(least) + " to " + show(most);
}
std::string plain(std::uint64_t value) {
    return std::to_string(value);
}

template <class T, class U>
bool in_range(U value, T least, T most) {
    return std::cmp_greater_equal(value, least) && std::cmp_less_equal(value, most);
}

// A key whose wrong values are all refused with the same text `allowed`.
template <class Target>
KeyOf<Target> key(std::string name, std::string allowed, bool reloadable, std::string_view help,
                  std::function<bool(Target&, const Value&)> set,
                  std::function<std::string(const Target&)> render) {
    return {std::move(name),
            reloadable,
            allowed,
            help,
            [allowed, set = std::move(set)](Target& target, const Value& value) {
                return set(target, value) ? std::string() : allowed;
            },
            std::move(render)};
}

// `at` returns a reference to the key's member of a Config (const or not).
template <class At>
Key number(std::string name, bool reloadable, std::uint64_t least, std::uint64_t most, At at,
           std::string_view help) {
    return key<Config>(
        std::move(name), "a whole number " + range(least, most, plain), reloadable, help,
        [=](Config& config, const Value& value) {
            if (!value.integer || !in_range(*value.integer, least, most)) return false;
            at(config) = static_cast<std::decay_t<decltype(at(config))>>(*value.integer);
            return true;
        },
        [=](const Config& config) { return std::to_string(at(config)); });
}

std::optional<std::uint64_t> size_of(const Value& value) {
    if (value.integer) {
        if (*value.integer < 0) return std::nullopt;
        return static_cast<std::uint64_t>(*value.integer);
    }
    return value.text ? parse_size(*value.text) : std::nullopt;
}

template <class At>
Key size(std::string name, bool reloadable, std::uint64_t least, std::uint64_t most, At at,
         std::string_view help) {
    return key<Config>(
        std::move(name),
        "a size such as 4096, \"64K\", \"100M\" or \"1G\", " + range(least, most, format_size),
        reloadable, help,
        [=](Config& config, const Value& value) {
            auto bytes = size_of(value);
            if (!bytes || !in_range(*bytes, least, most)) return false;
            at(config) = *bytes;
            return true;
        },
        [=](const Config& config) { return toml_string(format_size(at(config))); });
}

template <class At>
Key duration(std::string name, bool reloadable, Nanos least, Nanos most, At at,
             std::string_view help) {
    auto show = [](std::uint64_t value) { return format_duration(static_cast<Nanos>(value)); };
    return key<Config>(
        std::move(name),
        "a duration such as \"5ms\", \"30s\", \"1h\" or 0, " +
            range(static_cast<std::uint64_t>(least), static_cast<std::uint64_t>(most), show),
        reloadable, help,
        [=](Config& config, const Value& value) {
            std::optional<Nanos> nanos;
            if (value.text) nanos = parse_duration(*value.text);
            if (!nanos && value.integer == 0) nanos = 0;
            if (!nanos || !in_range(*nanos, least, most)) return false;
            at(config) = *nanos;
            return true;
        },
        [=](const Config& config) { return toml_string(format_duration(at(config))); });
}

std::string join_words(std::span<const std::string_view> words) {
    std::string joined = "one of ";
    for (std::string_view word : words) {
        if (joined.back() != ' ') joined += ", ";
        joined += '"';
        joined.append(word) += '"';
    }
    return joined;
}

template <class At>
Key word(std::string name, bool reloadable, std::span<const std::string_view> words, At at,
         std::string_view help) {
    return key<Config>(
        std::move(name), join_words(words), reloadable, help,
        [=](Config& config, const Value& value) {
            std::string_view given = value.text ? *value.text : std::string_view();
            if (value.boolean) given = *value.boolean ? "true" : "false";
            auto found = std::find(words.begin(), words.end(), given);
            if (found == words.end()) return false;
            at(config) = static_cast<std::decay_t<decltype(at(config))>>(found - words.begin());
            return true;
        },
        [=](const Config& config) {
            return toml_string(words[static_cast<std::size_t>(at(config))]);
        });
}

bool absolute(const std::string& path) {
    return path.starts_with('/') && path.find('\0') == std::string::npos;
}

template <class At>
Key path(std::string name, bool reloadable, bool may_be_empty, At at, std::string_view help) {
    return key<Config>(
        std::move(name), may_be_empty ? "an absolute path, or \"\" for none" : "an absolute path",
        reloadable, help,
        [=](Config& config, const Value& value) {
            if (!value.text) return false;
            if (!absolute(*value.text) && !(may_be_empty && value.text->empty())) return false;
            at(config) = *value.text;
            return true;
        },
        [=](const Config& config) { return toml_string(at(config)); });
}

const char* limit_allowed(bool bytes) {
    return bytes ? "a size such as 4096, \"64K\" or \"1G\", or \"unlimited\""
                 : "a whole number or \"unlimited\"";
}

std::optional<std::uint64_t> limit_of(const Value& value, bool bytes) {
    if (value.text == "unlimited") return kUnlimited;
    if (bytes) return size_of(value);
    if (!value.integer || *value.integer < 0) return std::nullopt;
    return static_cast<std::uint64_t>(*value.integer);
}

std::string render_limit(std::optional<std::uint64_t> value, bool bytes) {
    if (!value) return {};
    if (*value == kUnlimited) return toml_string("unlimited");
    return bytes ? toml_string(format_size(*value)) : std::to_string(*value);
}

// `at` returns a reference to a limit, or to an optional one.
template <class Target, class At>
KeyOf<Target> limit(std::string name, bool bytes, At at, std::string_view help) {
    return key<Target>(
        std::move(name), limit_allowed(bytes), true, help,
        [=](Target& target, const Value& value) {
            auto found = limit_of(value, bytes);
            if (found) at(target) = *found;
            return found.has_value();
        },
        [=](const Target& target) { return render_limit(at(target), bytes); });
}

template <class At>
Key flag(std::string name, At at, std::string_view help) {
    return key<Config>(
        std::move(name), "true or false", false, help,
        [=](Config& config, const Value& value) {
            if (value.boolean) at(config) = *value.boolean;
            return value.boolean.has_value();
        },
        [=](const Config& config) -> std::string { return at(config) ? "true" : "false"; });
}

// A channel setting; accepts exactly what `ctl` accepts.
Key channel_key(const channel::SettingRow& row) {
    // Settings that are integers in TOML.
    const bool number = row.key == "capacity" || row.key.ends_with("-watermark");
    return {"channel." + std::string(row.key),
            true,
            row.values,
            row.help,
            [&row, number](Config& config, const Value& value) {
                std::string text;
                if (value.integer) {
                    text = std::to_string(*value.integer);
                } else if (value.text && !number) {
                    text = *value.text;
                }
                return row.parse(config.channel, text);
            },
            [&row](const Config& config) {
                std::string text = row.print(config.channel);
                return parse_number(text) ? text : toml_string(text);
            }};
}

// Access to a member of a Config, const or not.
#define AT(member)         \
    [](auto& c) -> auto& { \
        return c.member;   \
    }

std::vector<Key> build() {
    constexpr Nanos kYear = 365 * 24 * 3600 * kSecond;
    std::vector<Key> table{
        path("mount", false, false, AT(mount),
             "where the tree is mounted; created if missing, and not removed"),
        path("state", false, false, AT(state),
             "directory for durable channels and the fallback log; created if missing, mode 0700"),

        word("fuse.transport", false, kTransports, AT(fuse.transport),
             "how requests come from the kernel; the log says at start which way, and why"),
        number("fuse.queue-depth", false, 1, 65'536, AT(fuse.queue_depth),
               "io_uring entries per CPU: as many operations can wait on one CPU before they are "
               "rotated"),
        number("fuse.threads", false, 0, 1024, AT(fuse.threads),
               "workers of the classic transport; 0: by the number of CPUs"),
        word("fuse.passthrough", false, kPassthroughs, AT(fuse.passthrough),
             "whether clients get the memory of `put`, payloads and regions directly (FUSE "
             "passthrough); auto: where kernel and privileges let it, as `kern/ipc/version` says"),
        word("fuse.allow-other", false, kAllowOther, AT(fuse.allow_other),
             "whether other users may use the tree; auto: yes for root, otherwise if "
             "`/etc/fuse.conf` lets it"),
        flag("fuse.survive", AT(fuse.survive), "whether the mount outlives a killed daemon"),
        duration("fuse.entry-timeout", false, 0, kYear, AT(fuse.entry_timeout),
                 "how long the kernel may remember names; changes are invalidated, so long times "
                 "are safe"),
        duration("fuse.attr-timeout", false, 0, kYear, AT(fuse.attr_timeout),
                 "the same of attributes"),
        flag("fuse.debug", AT(fuse.debug), "libfuse prints every request to standard error"),

        word("log.level", true, kLevelNames, AT(log.level), "what is logged: this and worse"),
        word("log.target", true, kTargets, AT(log.target), "where the log goes"),
        path("log.file", true, true, AT(log.file), "the log file; `target = \"file\"` needs it"),
        size("log.max-size", true, 4096, kMaxInteger, AT(log.max_size),
             "the file is rotated before it grows over this"),
        number("log.max-files", true, 1, 1000, AT(log.max_files),
               "how many rotated files are kept"),
    };
    for (std::size_t i = 0; i < kUserLimits.size(); ++i) {
        const auto at = [i](auto& config) -> auto& {
            return config.limits.user[i];
        };
        const UserLimit& row = kUserLimits[i];
        table.push_back(limit<Config>(std::string("limits.") + row.name, row.bytes, at, row.help));
    }
    const auto add = [&table](Key key) { table.push_back(std::move(key)); };
    add(limit<Config>("limits.total-bytes", true, AT(limits.total_bytes),
                      "bytes queued by all users together"));
    add(size("payload.reserve", true, 0, kMaxInteger, AT(payload.reserve),
             "what payloads leave of the machine's memory (MemAvailable): beyond it ENOSPC, for "
             "everybody, root too"));
    add(word("store.kind", false, kStores, AT(store.kind),
             "where durable channels are kept: on disk, or nowhere: `durable` is refused then"));
    add(size("store.max-size", false, 1ULL << 20, 1ULL << 44, AT(store.max_size),
             "of its segments together; payloads' files come on top"));
    for (const auto& row : channel::setting_rows()) table.push_back(channel_key(row));
    return table;
}
#undef AT

}  // namespace

Value value_from_text(std::string_view text) {
    Value value;
    value.text = std::string(text);
    value.shown = toml_string(text);
    if (text == "true") value.boolean = true;
    if (text == "false") value.boolean = false;
    auto digits = parse_number(text);
    if (digits && *digits <= kMaxInteger) value.integer = static_cast<std::int64_t>(*digits);
    return value;
}

const std::vector<Key>& keys() {
    static const std::vector<Key> table = build();
    return table;
}

const std::vector<UserKey>& user_keys() {
    static const std::vector<UserKey> table = [] {
        std::vector<UserKey> rows;
        for (std::size_t i = 0; i < kUserLimits.size(); ++i) {
            const auto at = [i](auto& given) -> auto& {
                return given[i];
            };
            rows.push_back(limit<UserOverride>(kUserLimits[i].name, kUserLimits[i].bytes, at, {}));
        }
        return rows;
    }();
    return table;
}

std::string toml_string(std::string_view text) {
    constexpr std::string_view kHex = "0123456789ABCDEF";
    std::string quoted = "\"";
    for (char c : text) {
        auto byte = static_cast<unsigned char>(c);
        if (c == '"' || c == '\\') {
            (quoted += '\\') += c;
        } else if (byte < 0x20 || byte == 0x7f) {
            quoted += "\\u00";
            (quoted += kHex[byte >> 4]) += kHex[byte & 15];
        } else {
            quoted += c;
        }
    }
    return quoted += '"';
}

std::string_view name_of(LogTarget value) {
    return kTargets[static_cast<std::size_t>(value)];
}

}  // namespace ipcfs::daemon
