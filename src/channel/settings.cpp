// Parsing and printing of settings. Any thread.
#include <algorithm>
#include <optional>
#include <utility>

#include <base/units.hpp>
#include <channel/settings.hpp>

namespace ipcfs::channel {
namespace {

using queue::Schedule;

template <class E>
struct Names;
template <>
struct Names<Type> {
    static constexpr auto kAll = std::to_array<const char*>({
#define IPCFS_ROW(value, name, make) name,
        IPCFS_CHANNEL_TYPES(IPCFS_ROW)
#undef IPCFS_ROW
    });
};
template <>
struct Names<Durable> {
    static constexpr std::array<const char*, 3> kAll{"off", "async", "sync"};
};
template <>
struct Names<Overflow> {
    static constexpr std::array<const char*, 4> kAll{"block", "reject", "drop-oldest",
                                                     "drop-newest"};
};
template <>
struct Names<Payloads> {
    static constexpr std::array<const char*, 2> kAll{"sealed", "pooled"};
};
template <>
struct Names<Schedule> {
    static constexpr std::array<const char*, 2> kAll{"strict", "fair"};
};

// Settings and types of the contract that later versions bring: refused, but known.
constexpr std::array<std::string_view, 9> kLaterKeys{"retries",      "retry-initial", "retry-max",
                                                     "retry-factor", "balance",       "sticky",
                                                     "breaker",      "cache",         "rate"};
constexpr std::string_view kLaterType = "service";

Fault invalid(std::string_view key, std::string_view value, std::string_view allowed) {
    std::string text(key);
    text.append(" '").append(value.substr(0, 64)).append("': ").append(allowed);
    return Fault{EINVAL, std::move(text)};
}

template <class E>
Result<void> set_name(E& to, std::string_view key, std::string_view value) {
    std::string allowed = "one of";
    for (std::size_t i = 0; i < Names<E>::kAll.size(); ++i) {
        if (value == Names<E>::kAll[i]) {
            to = static_cast<E>(i);
            return {};
        }
        allowed.append(i ? ", " : " ").append(Names<E>::kAll[i]);
    }
    return invalid(key, value, allowed);
}

template <class T>
Result<void> set_within(T& to, std::string_view key, std::string_view value,
                        std::optional<std::uint64_t> parsed, std::uint64_t least,
                        std::uint64_t most, std::string_view what) {
    if (!parsed || *parsed < least || *parsed > most) {
        std::string allowed(what);
        allowed.append(" from ").append(std::to_string(least));
        allowed.append(" to ").append(std::to_string(most));
        return invalid(key, value, allowed);
    }
    to = static_cast<T>(*parsed);
    return {};
}

Result<void> set_duration(Nanos& to, std::string_view key, std::string_view value) {
    auto parsed = parse_duration(value);
    // Deadlines are sums of a time and a setting: a year's headroom below the end of time.
    if (!parsed || *parsed > 1000 * 24 * 3600 * kSecond) {
        return invalid(key, value, "a duration such as 0, 10ms, 30s, 5m, 1h, of at most 24000h");
    }
    to = *parsed;
    return {};
}

Result<void> set_batch(std::optional<BatchGate>& to, std::string_view key, std::string_view value) {
    if (value == "off") {
        to = BatchGate{};
        return {};
    }
    constexpr std::string_view kAllowed =
        "off, or N DELAY with N from 1 to 65536 and a DELAY such as 5ms";
    auto space = value.find_first_of(" \t");
    if (space == std::string_view::npos) return invalid(key, value, kAllowed);
    auto count = parse_number(value.substr(0, space));
    BatchGate gate;
    auto delay = set_duration(gate.delay, key, trim(value.substr(space)));
    if (!count || *count < 1 || *count > kMaxBatch || !delay || gate.delay == 0) {
        return invalid(key, value, kAllowed);
    }
    gate.count = static_cast<std::uint32_t>(*count);
    to = gate;
    return {};
}

std::string format(const BatchGate& gate) {
    if (gate.count == 0) return "off";
    return std::to_string(gate.count) + " " + format_duration(gate.delay);
}

Result<Command> parse_command(std::string_view word, std::string_view argument, bool& known) {
    known = true;
    if (word == "purge" || word == "resume" || word == "redrive") {
        if (!argument.empty()) return Fault{EINVAL, std::string(word) + " takes no argument"};
        using Kind = Command::Kind;
        Kind kind = word == "purge"    ? Kind::kPurge
                    : word == "resume" ? Kind::kResume
                                       : Kind::kRedrive;
        return Command{kind, 0, {}};
    }
    if (word == "pause") {
        Command pause{Command::Kind::kPause, 0, {}};
        if (!argument.empty()) {
            if (auto set = set_duration(pause.duration, "pause", argument); !set)
                return set.error();
        }
        return pause;
    }
    if (word == "revoke") {
        constexpr std::string_view kShare = "share/";
        std::string_view name = argument;
        if (!name.starts_with(kShare) || name.size() == kShare.size() ||
            name.find('/', kShare.size()) != std::string_view::npos) {
            return Fault{EINVAL, "revoke: share/NAME"};
        }
        return Command{Command::Kind::kRevoke, 0, std::string(name.substr(kShare.size()))};
    }
    known = false;
    return Fault{EINVAL, "no such command"};
}

}  // namespace

const char* name_of(Type type) noexcept {
    return Names<Type>::kAll[static_cast<std::size_t>(type)];
}
const char* name_of(Durable durable) noexcept {
    return Names<Durable>::kAll[static_cast<std::size_t>(durable)];
}
const char* name_of(Overflow overflow) noexcept {
    return Names<Overflow>::kAll[static_cast<std::size_t>(overflow)];
}
const char* name_of(Payloads payloads) noexcept {
    return Names<Payloads>::kAll[static_cast<std::size_t>(payloads)];
}
const char* name_of(Schedule schedule) noexcept {
    return Names<Schedule>::kAll[static_cast<std::size_t>(schedule)];
}

std::string get(const Settings& s, std::string_view key) {
    if (key == "type") return name_of(s.type);
    if (key == "capacity") return std::to_string(s.capacity);
    if (key == "bytes") return format_size(s.bytes);
    if (key == "max-message") return std::to_string(s.max_message);
    if (key == "max-payload") return format_size(s.max_payload);
    if (key == "payloads") return name_of(s.payloads);
    if (key == "high-watermark") return std::to_string(s.high_watermark);
    if (key == "low-watermark") return std::to_string(s.low_watermark);
    if (key == "overflow") return name_of(s.overflow);
    if (key == "schedule") return name_of(s.schedule);
    if (key == "ttl") return format_duration(s.ttl);
    if (key == "timeout") return format_duration(s.timeout);
    if (key == "durable") return name_of(s.durable);
    if (key == "max-deliveries") return std::to_string(s.max_deliveries);
    if (key == "lease") return format_duration(s.lease);
    if (key == "batch") return format(s.batch_gate());
    if (key == "retain") return std::to_string(s.retain);
    if (key == "notify-rate") return std::to_string(s.notify_rate) + "/s";
    return {};
}

Result<void> set(Settings& s, std::string_view key, std::string_view value) {
    constexpr std::uint64_t kMost = 1ULL << 40;
    if (key == "type") {
        if (value == kLaterType) return invalid(key, value, "not in this version");
        return set_name(s.type, key, value);
    }
    if (key == "capacity") {
        return set_within(s.capacity, key, value, parse_number(value), 1, 1ULL << 32,
                          "a number of messages");
    }
    if (key == "bytes") {
        return set_within(s.bytes, key, value, parse_size(value), 1, kMost,
                          "a size in bytes (K M G)");
    }
    if (key == "max-message") {
        return set_within(s.max_message, key, value, parse_size(value), 1, kMaxWrite,
                          "a size in bytes (K M)");
    }
    if (key == "max-payload") {
        return set_within(s.max_payload, key, value, parse_size(value), 1, kMost,
                          "a size in bytes (K M G)");
    }
    if (key == "payloads") return set_name(s.payloads, key, value);
    if (key == "high-watermark") {
        return set_within(s.high_watermark, key, value, parse_number(value), 1, 100,
                          "a percentage");
    }
    if (key == "low-watermark") {
        return set_within(s.low_watermark, key, value, parse_number(value), 0, 100, "a percentage");
    }
    if (key == "overflow") return set_name(s.overflow, key, value);
    if (key == "schedule") return set_name(s.schedule, key, value);
    if (key == "ttl") return set_duration(s.ttl, key, value);
    if (key == "timeout") return set_duration(s.timeout, key, value);
    if (key == "durable") return set_name(s.durable, key, value);
    if (key == "max-deliveries") {
        return set_within(s.max_deliveries, key, value, parse_number(value), 1, 1'000'000,
                          "a number of deliveries");
    }
    if (key == "lease") {
        Nanos lease = 0;
        if (auto done = set_duration(lease, key, value); !done) return done;
        if (lease == 0) return invalid(key, value, "a duration above 0");
        s.lease = lease;
        return {};
    }
    if (key == "batch") return set_batch(s.batch, key, value);
    if (key == "retain") {
        return set_within(s.retain, key, value, parse_number(value), 0, 1'000'000,
                          "a number of messages");
    }
    if (key == "notify-rate") {
        std::string_view number = value.ends_with("/s") ? value.substr(0, value.size() - 2) : value;
        return set_within(s.notify_rate, key, value, parse_number(number), 1, 1'000'000,
                          "N/s with N");
    }
    if (std::find(kLaterKeys.begin(), kLaterKeys.end(), key) != kLaterKeys.end()) {
        return Fault{EINVAL, std::string(key) + ": not in this version"};
    }
    return Fault{EINVAL, "'" + std::string(key.substr(0, 64)) + "' is no setting and no command"};
}

Result<void> check(const Settings& s) {
    if (s.low_watermark > s.high_watermark) {
        return Fault{EINVAL, "low-watermark " + std::to_string(s.low_watermark) +
                                 " is above high-watermark " + std::to_string(s.high_watermark)};
    }
    if (s.type == Type::kStream && s.durable != Durable::kOff) {
        return Fault{EINVAL, "type stream is not durable: its bytes are not kept"};
    }
    if (s.type == Type::kSync && s.batch_gate().count > 0) {
        return Fault{EINVAL,
                     "type sync has no batch: its writers wait until each message is taken"};
    }
    return {};
}

std::string print(const Settings& settings) {
    std::string text;
    for (std::string_view key : kSettingKeys) {
        text.append(key).append(" ").append(get(settings, key)).append("\n");
    }
    return text;
}

void simplify(Settings& s) noexcept {
    if (auto own = std::exchange(s.batch, std::nullopt); own && *own != s.batch_gate())
        s.batch = own;
}

Result<Control> parse_control(std::string_view text, const Settings& now) {
    if (text.size() > 65536) return Fault{EINVAL, "more than 65536 bytes"};
    Control control{now, {}};
    int number = 0;
    auto at_line = [&](const Fault& fault) {
        return Fault{fault.code, "line " + std::to_string(number) + ": " + fault.operation};
    };
    while (!text.empty()) {
        ++number;
        auto end = text.find('\n');
        std::string_view line = trim(text.substr(0, end));
        text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
        if (line.empty() || line.front() == '#') continue;
        auto space = line.find_first_of(" \t");
        std::string_view key = line.substr(0, space);
        std::string_view value =
            space == std::string_view::npos ? std::string_view{} : trim(line.substr(space));
        bool known = false;
        auto command = parse_command(key, value, known);
        if (known) {
            if (!command) return at_line(command.error());
            control.commands.push_back(*command);
            continue;
        }
        if (auto done = set(control.settings, key, value); !done) return at_line(done.error());
    }
    if (auto consistent = check(control.settings); !consistent) return consistent.error();
    simplify(control.settings);
    return control;
}

}  // namespace ipcfs::channel
