// Reading, writing and comparing configurations. Only this file uses toml++.
#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <pwd.h>
#include <set>
#include <sstream>
#include <unistd.h>

#define TOML_EXCEPTIONS 1
#include <toml++/toml.h>

#include <base/units.hpp>
#include <daemon/config.hpp>
#include <daemon/keys.hpp>

namespace ipcfs::daemon {
namespace {

constexpr std::string_view kUserSection = "limits.user.";
constexpr std::array<std::string_view, 7> kSections{"fuse",  "log",     "limits",     "payload",
                                                    "store", "channel", "limits.user"};

bool is_section(std::string_view name) {
    return std::find(kSections.begin(), kSections.end(), name) != kSections.end();
}

Value value_from_node(const toml::node& node) {
    Value value;
    if (auto* text = node.as_string()) {
        value.text = text->get();
        value.shown = toml_string(**text);
    } else if (auto* integer = node.as_integer()) {
        value.integer = integer->get();
        value.shown = std::to_string(**integer);
    } else if (auto* boolean = node.as_boolean()) {
        value.boolean = boolean->get();
        value.shown = **boolean ? "true" : "false";
    } else if (node.is_table()) {
        value.shown = "a table";
    } else if (node.is_array()) {
        value.shown = "an array";
    } else {
        std::ostringstream shown;
        node.visit([&](const auto& concrete) {
            if constexpr (toml::is_value<decltype(concrete)>) shown << concrete.get();
        });
        value.shown = shown.str();
    }
    return value;
}

// Returns "fuse" for "fuse.threads"; empty for a top-level key.
std::string_view section_of(std::string_view key) {
    auto dot = key.rfind('.');
    return dot == std::string_view::npos ? std::string_view() : key.substr(0, dot);
}

std::string known_keys_in(std::string_view section) {
    std::string known;
    for (const Key& key : keys()) {
        if (section_of(key.name) != section) continue;
        if (!known.empty()) known += ", ";
        known += section.empty() ? key.name : key.name.substr(section.size() + 1);
    }
    if (section.empty()) known += ", and the sections fuse, log, limits, payload, store, channel";
    if (section == "limits") known += ", and limits.user.NAME";
    return known;
}

class Reader {
public:
    explicit Reader(const ConfigSource& source) : source_(source) {}

    Parsed read() {
        defaults();
        if (source_.text) file(*source_.text);
        for (const Setting& setting : source_.settings) apply(setting);
        check_whole();
        return std::move(parsed_);
    }

private:
    void defaults() {
        const ProcessEnvironment& process = source_.process;
        Config& config = parsed_.config;
        if (process.uid == 0) {
            config.mount = "/ipc";
            config.state = "/var/lib/ipcfs";
            return;
        }
        const std::string home = process.home.starts_with('/')
                                     ? process.home
                                     : "/tmp/ipcfs-" + std::to_string(process.uid);
        config.mount = (process.runtime_dir.starts_with('/') ? process.runtime_dir : home) + "/ipc";
        config.state =
            (process.state_home.starts_with('/') ? process.state_home : home + "/.local/state") +
            "/ipcfs";
    }

    void error(const std::string& where, const std::string& what) {
        parsed_.errors.push_back(where + ": " + what);
    }

    std::string place(const toml::source_region& region) const {
        return source_.file + ':' + std::to_string(region.begin.line) + ':' +
               std::to_string(region.begin.column);
    }

    void file(const std::string& text) {
        try {
            table(toml::parse(text, source_.file), "");
        } catch (const toml::parse_error& failed) {
            error(place(failed.source()), std::string(failed.description()));
        }
        // toml++ sorts tables by name; report errors in the order of the file.
        std::stable_sort(found_.begin(), found_.end(), [](const Found& a, const Found& b) {
            return std::pair(a.region.begin.line, a.region.begin.column) <
                   std::pair(b.region.begin.line, b.region.begin.column);
        });
        for (const Found& found : found_) set(found.key, found.value, place(found.region));
    }

    // Collects the keys. An unknown section is one error, not one for each key in it.
    void table(const toml::table& content, const std::string& prefix) {
        for (auto&& [name, node] : content) {
            std::string key = prefix + std::string(name.str());
            const bool section = is_section(key);
            const bool of_user = prefix == kUserSection;
            if (node.is_table() && (section || of_user)) {
                table(*node.as_table(), key + '.');
            } else {
                // For a wrong value, report the place of the value; for an unknown key, that of the
                // key.
                const bool value = section || known(key);
                found_.push_back(
                    {key, value_from_node(node), value ? node.source() : name.source()});
            }
        }
    }

    static bool known(std::string_view name) {
        if (name.starts_with(kUserSection)) return true;
        return std::any_of(keys().begin(), keys().end(),
                           [&](const Key& key) { return key.name == name; });
    }

    void apply(const Setting& setting) {
        Value value = value_from_text(setting.value);
        if (setting.key == "mount" || setting.key == "state" || setting.key == "log.file") {
            if (!setting.value.empty() && !setting.value.starts_with('/')) {
                value.text = source_.process.cwd + '/' + setting.value;
            }
        }
        set(setting.key, value, setting.origin);
    }

    void set(const std::string& name, const Value& value, const std::string& where) {
        if (name.starts_with(kUserSection)) return set_user(name, value, where);
        for (const Key& key : keys()) {
            if (key.name != name) continue;
            where_[name] = where;
            const std::string allowed = key.set(parsed_.config, value);
            if (!allowed.empty()) refuse(where, name, value, allowed);
            return;
        }
        if (is_section(name)) return refuse(where, name, value, "a section, [" + name + "]");
        std::string_view section = section_of(name);
        std::string allowed = known_keys_in(section);
        if (allowed.empty()) allowed = known_keys_in(section = "");
        error(where, "unknown key " + toml_string(name) + "; known " +
                         (section.empty() ? "at the top" : "in [" + std::string(section) + "]") +
                         " are: " + allowed);
    }

    void set_user(const std::string& name, const Value& value, const std::string& where) {
        auto dot = name.rfind('.');
        if (dot < kUserSection.size()) {
            return refuse(where, name, value, "a section with limits, [" + name + "]");
        }
        const std::string user = name.substr(kUserSection.size(), dot - kUserSection.size());
        const std::string leaf = name.substr(dot + 1);
        auto uid = uid_of(user);
        if (!uid) {
            if (unknown_users_.insert(user).second) {
                error(where, "limits.user." + user + ": no such user; " +
                                 "a name from the user database or a uid is allowed");
            }
            return;
        }
        auto [known_as, first] = users_.try_emplace(*uid, user);
        if (!first && known_as->second != user) {
            return error(where, "limits.user." + user + ": uid " + std::to_string(*uid) +
                                    " already has limits in limits.user." + known_as->second +
                                    "; give them in one section");
        }
        for (const UserKey& key : user_keys()) {
            if (key.name != leaf) continue;
            const std::string allowed = key.set(parsed_.config.limits.by_user[*uid], value);
            if (!allowed.empty()) refuse(where, name, value, allowed);
            return;
        }
        error(where, "unknown key " + toml_string(name) + "; known in [limits.user." + user +
                         "] are: messages, bytes, channels, open-files, waiters, payload-bytes");
    }

    void refuse(const std::string& where, const std::string& name, const Value& value,
                const std::string& allowed) {
        error(where, name + " = " + value.shown + ": must be " + allowed);
    }

    void check_whole() {
        channel::simplify(parsed_.config.channel);
        const Config& config = parsed_.config;
        if (auto checked = channel::check(config.channel); !checked) {
            error(where("channel.low-watermark", "channel.high-watermark"),
                  "[channel]: " + checked.error().operation);
        }
        if (config.log.target == LogTarget::kFile && config.log.file.empty()) {
            error(where("log.target", "log.file"),
                  "log.target = \"file\": needs log.file, an absolute path");
        }
    }

    // The place of the first of two keys that the source gives.
    std::string where(const std::string& first, const std::string& second) const {
        for (const std::string& name : {first, second}) {
            auto found = where_.find(name);
            if (found != where_.end()) return found->second;
        }
        return source_.file;
    }

    struct Found {
        std::string key;
        Value value;
        toml::source_region region;
    };

    const ConfigSource& source_;
    Parsed parsed_;
    std::vector<Found> found_;
    std::map<std::string, std::string> where_;
    std::map<std::uint32_t, std::string> users_;  // by uid: the name used in the source
    std::set<std::string> unknown_users_;
};

std::string environment(const char* name) {
    const char* value = std::getenv(name);
    return value ? value : "";
}

}  // namespace

std::optional<std::uint32_t> uid_of(const std::string& user) {
    if (auto number = parse_number(user)) {
        // The kernel reserves 2^32-1 for "no user".
        if (*number >= UINT32_MAX) return std::nullopt;
        return static_cast<std::uint32_t>(*number);
    }
    std::vector<char> buffer(16'384);
    passwd entry{};
    passwd* found = nullptr;
    if (getpwnam_r(user.c_str(), &entry, buffer.data(), buffer.size(), &found) != 0 || !found) {
        return std::nullopt;
    }
    return found->pw_uid;
}

ProcessEnvironment process_environment() {
    ProcessEnvironment process;
    process.uid = geteuid();
    process.home = environment("HOME");
    if (process.home.empty()) {
        std::vector<char> buffer(16'384);
        passwd entry{};
        passwd* found = nullptr;
        if (getpwuid_r(process.uid, &entry, buffer.data(), buffer.size(), &found) == 0 && found) {
            process.home = found->pw_dir;
        }
    }
    process.runtime_dir = environment("XDG_RUNTIME_DIR");
    process.state_home = environment("XDG_STATE_HOME");
    std::error_code failed;
    auto cwd = std::filesystem::current_path(failed);
    if (!failed) process.cwd = cwd.string();
    return process;
}

Parsed read_config(const ConfigSource& source) {
    return Reader(source).read();
}

std::string to_toml(const Config& config) {
    std::string text;
    std::string_view section;
    for (const Key& key : keys()) {
        std::string_view here = section_of(key.name);
        if (here != section) {
            section = here;
            ((text += "\n[") += section) += "]\n";
        }
        text += section.empty() ? key.name : key.name.substr(section.size() + 1);
        (text += " = ").append(key.render(config)) += '\n';
    }
    for (const auto& [uid, limits] : config.limits.by_user) {
        text += "\n[limits.user." + std::to_string(uid) + "]\n";
        for (const UserKey& key : user_keys()) {
            std::string value = key.render(limits);
            if (!value.empty()) text += key.name + " = " + value + '\n';
        }
    }
    return text;
}

std::string reference(const Config& defaults) {
    std::string text;
    for (const Key& key : keys()) {
        ((text += key.name) += " = ").append(key.render(defaults)) += '\n';
        ((text += "    ").append(key.help) += "\n    allowed: ").append(key.allowed);
        text += key.reloadable ? "\n" : "; takes effect at a restart\n";
    }
    return text;
}

access::Limits limits_for(const Config& config, std::uint32_t uid, std::uint32_t own_uid) {
    access::Limits limits = uid == 0 || uid == own_uid ? access::kNoLimits : config.limits.user;
    auto found = config.limits.by_user.find(uid);
    if (found == config.limits.by_user.end()) return limits;
    for (std::size_t i = 0; i < limits.size(); ++i) {
        limits[i] = found->second[i].value_or(limits[i]);
    }
    return limits;
}

Reload plan_reload(const Config& running, const Config& wanted) {
    Reload plan;
    plan.config = running;
    plan.config.log = wanted.log;
    plan.config.limits = wanted.limits;
    plan.config.payload = wanted.payload;
    plan.config.channel = wanted.channel;
    for (const Key& key : keys()) {
        if (key.render(running) == key.render(wanted)) continue;
        (key.reloadable ? plan.changed : plan.restart).push_back(key.name);
    }
    if (running.limits.by_user != wanted.limits.by_user) plan.changed.push_back("limits.user");
    return plan;
}

}  // namespace ipcfs::daemon
