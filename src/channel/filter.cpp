// Parsing, printing and applying filters. Any thread.
#include <algorithm>
#include <pwd.h>
#include <unistd.h>

#include <re2/re2.h>

#include <base/units.hpp>
#include <channel/events.hpp>
#include <channel/filter.hpp>
#include <ipcfs/frame.hpp>

namespace ipcfs::channel {
namespace {

constexpr int kRegexMemory = 256 << 10;  // bytes, program and cache
constexpr std::size_t kMaxGroups = 64;
constexpr std::size_t kLongestGroup = 255;

std::string_view text_of(std::span<const std::byte> bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Calls use(part) for the parts between commas, until it returns false.
template <class F>
bool for_each_part(std::string_view list, F&& use) {
    for (;;) {
        const auto comma = list.find(',');
        if (!use(trim(list.substr(0, comma)))) return false;
        if (comma == std::string_view::npos) return true;
        list.remove_prefix(comma + 1);
    }
}

Fault wrong(std::string text) {
    return Fault{EINVAL, std::move(text)};
}

}  // namespace

// ---- what is looked at --------------------------------------------------------------------------

void Examined::read_extensions() noexcept {
    if (has_read_) return;
    has_read_ = true;
    std::span<const std::byte> rest = message_.extensions();
    Extension each;
    while (!rest.empty() && take_extension(rest, each)) {
        if (each.type == ExtensionType::kGroup) groups_.push_back(text_of(each.value));
        if (each.type == ExtensionType::kMethod && !method_.data()) method_ = text_of(each.value);
    }
}

std::string_view Examined::method() noexcept {
    read_extensions();
    return method_;
}

const std::vector<std::string_view>& Examined::groups() noexcept {
    read_extensions();
    return groups_;
}

std::string_view Examined::content() {
    if (!message_.payload) return text_of(message_.body()).substr(0, kFilteredContent);
    if (!copied_) {
        // Sealed memory of ours: reading it does not wait for anybody.
        const payload::Payload& payload = *message_.payload;
        copied_.emplace();
        if (payload.file() < 0) return {};
        copied_->resize(std::min<std::uint64_t>(payload.size, kFilteredContent));
        ssize_t got = ::pread(payload.file(), copied_->data(), copied_->size(),
                              static_cast<off_t>(payload.offset()));
        copied_->resize(got > 0 ? static_cast<std::size_t>(got) : 0);
    }
    return *copied_;
}

// ---- parsing ------------------------------------------------------------------------------------

Filter::Filter() = default;
Filter::~Filter() = default;

Filter::Users Filter::system_users() {
    return [](const std::string& name) -> std::optional<uid_t> {
        std::vector<char> buffer(16384);
        passwd entry{};
        passwd* found = nullptr;
        if (::getpwnam_r(name.c_str(), &entry, buffer.data(), buffer.size(), &found) != 0 ||
            !found) {
            return std::nullopt;
        }
        return found->pw_uid;
    };
}

Result<std::shared_ptr<const Filter>> Filter::parse(std::string_view text, const Users& users) {
    if (text.size() > kMaxFilter) return wrong("filter: more than 65536 bytes");
    auto filter = std::make_shared<Filter>();
    for (int number = 1; !text.empty(); ++number) {
        const auto end = text.find('\n');
        std::string_view line = text.substr(0, end);
        text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
        const auto start = line.find_first_not_of(" \t\r");
        if (start == std::string_view::npos || line[start] == '#') continue;
        line.remove_prefix(start);
        const auto space = line.find_first_of(" \t");
        // A prefix and a regular expression are all that follows the first space.
        std::string_view value =
            space == std::string_view::npos ? std::string_view{} : line.substr(space + 1);
        if (auto done = filter->set(line.substr(0, space), value, users); !done) {
            return wrong("line " + std::to_string(number) + ": " + done.error().operation);
        }
    }
    filter->print();
    return std::shared_ptr<const Filter>(std::move(filter));
}

Result<void> Filter::set(std::string_view key, std::string_view value, const Users& users) {
    auto pattern = [&](const char* name, std::string& kept, std::optional<Glob>& glob,
                       bool is_path) -> Result<void> {
        if (glob) return wrong(std::string(name) + ": given twice");
        auto parsed = Glob::parse(trim(value), is_path);
        if (!parsed) return wrong(std::string(name) + ": " + parsed.error().operation);
        kept = trim(value);
        glob = std::move(*parsed);
        return {};
    };
    if (value.find('\0') != std::string_view::npos) return wrong("it has a zero byte");
    if (key == "priority") return set_priority(trim(value));
    if (key == "type") return set_types(trim(value));
    if (key == "method") return pattern("method", method_text_, method_, false);
    if (key == "sender") return set_sender(trim(value), users);
    if (key == "prefix") {
        if (prefix_) return wrong("prefix: given twice");
        if (value.empty()) return wrong("prefix: the text is missing");
        prefix_ = value;
        return {};
    }
    if (key == "regex") return set_regex(value);
    if (key == "channel") return pattern("channel", channel_text_, channel_, true);
    if (key == "group") return set_groups(trim(value));
    if (key == "recursive") {
        value = trim(value);
        if (std::exchange(has_recursive_, true)) return wrong("recursive: given twice");
        if (value != "on" && value != "off") return wrong("recursive is on or off");
        is_recursive_ = value == "on";
        return {};
    }
    return wrong("no such condition: '" + std::string(key.substr(0, 64)) +
                 "'; there are priority type method sender prefix regex channel recursive group");
}

Result<void> Filter::set_priority(std::string_view value) {
    if (std::exchange(has_priority_, true)) return wrong("priority: given twice");
    const auto dash = value.find('-');
    auto lowest = parse_priority(value.substr(0, dash));
    auto highest = dash == std::string_view::npos ? std::optional<std::uint8_t>(255)
                                                  : parse_priority(value.substr(dash + 1));
    if (!lowest || !highest || *lowest > *highest) {
        return wrong("priority is MIN or MIN-MAX, each critical, high, normal, low or 0 to 255");
    }
    lowest_ = *lowest;
    highest_ = *highest;
    return {};
}

Result<void> Filter::set_types(std::string_view value) {
    if (types_) return wrong("type: given twice");
    bool known = for_each_part(value, [&](std::string_view name) {
        auto type = parse_frame_type(name);
        if (type) types_ |= 1U << *type;
        return type.has_value();
    });
    if (known) return {};
    return wrong(
        "type is of control, data, event, capability, handoff, request, response, error, with "
        "commas between");
}

Result<void> Filter::set_sender(std::string_view value, const Users& users) {
    const auto space = value.find_first_of(" \t");
    const std::string_view kind = value.substr(0, space);
    const std::string_view who =
        space == std::string_view::npos ? std::string_view{} : trim(value.substr(space));
    if (kind == "uid" || kind == "user") {
        if (uid_) return wrong("sender: a user is given twice");
        if (kind == "user") {
            uid_ = users(std::string(who));
            if (!uid_) return wrong("sender: no user '" + std::string(who.substr(0, 64)) + "'");
            return {};
        }
        auto number = parse_number(who);
        if (number && *number < UINT32_MAX) {
            uid_ = static_cast<uid_t>(*number);
            return {};
        }
    }
    if (kind == "pid") {
        if (pid_) return wrong("sender: a pid is given twice");
        auto number = parse_number(who);
        if (number && *number > 0 && *number <= INT32_MAX) {
            pid_ = static_cast<pid_t>(*number);
            return {};
        }
    }
    return wrong("sender is uid N, user NAME or pid N");
}

Result<void> Filter::set_regex(std::string_view value) {
    if (regex_) return wrong("regex: given twice");
    if (value.empty() || value.size() > kMaxRegex) return wrong("regex: 1 to 4096 bytes");
    RE2::Options options(RE2::Quiet);
    options.set_max_mem(kRegexMemory);
    options.set_never_capture(true);
    // As grep: ^ and $ are at lines, too.
    auto regex = std::make_unique<const RE2>("(?m)" + std::string(value), options);
    if (!regex->ok()) return wrong("regex: " + regex->error());
    regex_text_ = value;
    regex_ = std::move(regex);
    return {};
}

Result<void> Filter::set_groups(std::string_view value) {
    if (!groups_.empty()) return wrong("group: given twice");
    bool good = for_each_part(value, [&](std::string_view name) {
        bool is_name = !name.empty() && name.size() <= kLongestGroup &&
                       std::all_of(name.begin(), name.end(), [](char c) {
                           return static_cast<unsigned char>(c) > ' ' && c != 0x7f;
                       });
        if (is_name) groups_.emplace_back(name);
        return is_name && groups_.size() <= kMaxGroups;
    });
    if (!good) {
        return wrong(
            "group is up to 64 names without spaces, of 1 to 255 bytes, with commas between");
    }
    std::sort(groups_.begin(), groups_.end());
    groups_.erase(std::unique(groups_.begin(), groups_.end()), groups_.end());
    return {};
}

void Filter::print() {
    auto line = [&](std::string_view key, std::string_view value) {
        text_.append(key).append(" ").append(value).append("\n");
    };
    if (has_priority_) {
        std::string range = std::to_string(lowest_);
        if (highest_ != 255) range += "-" + std::to_string(highest_);
        line("priority", range);
    }
    std::string names;
    auto add = [&](std::string_view name) {
        if (!names.empty()) names.push_back(',');
        names.append(name);
    };
    for (std::uint8_t type = 1; type < 32; ++type) {
        if (types_ & (1U << type)) add(to_string(static_cast<FrameType>(type)));
    }
    if (types_) line("type", names);
    if (method_) line("method", method_text_);
    if (uid_) line("sender uid", std::to_string(*uid_));
    if (pid_) line("sender pid", std::to_string(*pid_));
    if (prefix_) line("prefix", *prefix_);
    if (regex_) line("regex", regex_text_);
    if (channel_) line("channel", channel_text_);
    if (is_recursive_) line("recursive", "on");
    names.clear();
    for (const std::string& group : groups_) add(group);
    if (!groups_.empty()) line("group", names);
}

std::uint64_t Filter::bytes() const noexcept {
    return sizeof(Filter) + 2 * text_.size() + (method_ ? Glob::kMemory : 0) +
           (channel_ ? Glob::kMemory : 0) + (regex_ ? kRegexMemory : 0);
}

// ---- applying -----------------------------------------------------------------------------------

bool Filter::has_others() const noexcept {
    return has_priority_ || types_ || method_ || uid_ || pid_ || prefix_ || regex_ || channel_;
}

bool Filter::others_hold(Examined& message, bool in_reach) const {
    if (!in_reach) return false;
    const queue::Envelope& envelope = message.envelope();
    if (envelope.priority < lowest_ || envelope.priority > highest_) return false;
    if (types_ && !(types_ & (1U << (envelope.type & 31U)))) return false;
    if (uid_ && envelope.sender.uid != *uid_) return false;
    if (pid_ && envelope.sender.pid != *pid_) return false;
    if (method_ && !method_->matches(message.method())) return false;
    if (prefix_ && !message.content().starts_with(*prefix_)) return false;
    if (regex_) {
        std::string_view content = message.content();
        if (!RE2::PartialMatch(re2::StringPiece(content.data(), content.size()), *regex_)) {
            return false;
        }
    }
    return true;
}

bool Filter::names_group(Examined& message) const {
    return std::any_of(message.groups().begin(), message.groups().end(), [&](auto name) {
        return std::binary_search(groups_.begin(), groups_.end(), name);
    });
}

bool Filter::matches(Examined& message, bool in_reach, bool is_multicast) const {
    if (groups_.empty()) return others_hold(message, in_reach);
    if (!is_multicast) return others_hold(message, in_reach) && names_group(message);
    return names_group(message) || (has_others() && others_hold(message, in_reach));
}

}  // namespace ipcfs::channel
