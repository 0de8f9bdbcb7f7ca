// Parsing and printing of settings. Any thread.
#include <algorithm>
#include <array>
#include <optional>
#include <type_traits>
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

using Row = SettingRow;

// Deadlines are sums of a time and a setting: a year's headroom below the end of time.
constexpr Nanos kLongest = 24000 * 3600 * kSecond;

std::string parse_duration_into(Nanos& to, std::string_view value, Nanos least = 0) {
    const auto parsed = parse_duration(value);
    if (!parsed || *parsed > kLongest) {
        return "a duration such as 0, 10ms, 30s, 5m, 1h, of at most 24000h";
    }
    if (*parsed < least) return "a duration above 0";
    to = *parsed;
    return {};
}

template <class T>
std::string store_within(T& to, std::optional<std::uint64_t> parsed, std::uint64_t least,
                         std::uint64_t most, std::string_view what) {
    if (!parsed || *parsed < least || *parsed > most) {
        std::string allowed(what);
        allowed.append(" from ").append(std::to_string(least));
        return allowed.append(" to ").append(std::to_string(most));
    }
    to = static_cast<T>(*parsed);
    return {};
}

template <auto kMember>
Row named(std::string_view key, std::string_view help) {
    using E = std::decay_t<decltype(std::declval<Settings&>().*kMember)>;
    std::string values;
    for (const char* name : Names<E>::kAll) values.append(values.empty() ? "" : " ").append(name);
    return {key, std::move(values), help,
            [](const Settings& s) { return std::string(name_of(s.*kMember)); },
            [](Settings& s, std::string_view value) -> std::string {
                if (std::is_same_v<E, Type> && value == kLaterType) return "not in this version";
                std::string allowed = "one of";
                for (std::size_t i = 0; i < Names<E>::kAll.size(); ++i) {
                    if (value == Names<E>::kAll[i]) {
                        s.*kMember = static_cast<E>(i);
                        return {};
                    }
                    allowed.append(i ? ", " : " ").append(Names<E>::kAll[i]);
                }
                return allowed;
            }};
}

// `what` is said of wrong values. `unit` follows the number where it is printed, and may where it is parsed.
template <auto kMember>
Row number(std::string_view key, std::uint64_t least, std::uint64_t most, std::string_view what,
           std::string_view help, std::string_view unit = {}) {
    std::string values = std::to_string(least);
    values.append(unit).append(" to ").append(std::to_string(most)).append(unit);
    return {key, std::move(values), help,
            [unit](const Settings& s) { return std::to_string(s.*kMember).append(unit); },
            [=](Settings& s, std::string_view value) {
                if (value.ends_with(unit)) value.remove_suffix(unit.size());
                return store_within(s.*kMember, parse_number(value), least, most, what);
            }};
}

template <auto kMember>
Row size(std::string_view key, std::uint64_t most, std::string (*shown)(std::uint64_t),
         std::string_view help) {
    return {
        key, "1 to " + shown(most), help, [shown](const Settings& s) { return shown(s.*kMember); },
        [most](Settings& s, std::string_view value) {
            return store_within(s.*kMember, parse_size(value), 1, most, "a size in bytes (K M G)");
        }};
}

template <auto kMember>
Row duration(std::string_view key, Nanos least, std::string_view help) {
    return {key, format_duration(least) + " to " + format_duration(kLongest), help,
            [](const Settings& s) { return format_duration(s.*kMember); },
            [least](Settings& s, std::string_view value) {
                return parse_duration_into(s.*kMember, value, least);
            }};
}

std::string print_batch(const Settings& settings) {
    const BatchGate gate = settings.batch_gate();
    if (gate.count == 0) return "off";
    return std::to_string(gate.count) + " " + format_duration(gate.delay);
}

std::string parse_batch(Settings& settings, std::string_view value) {
    if (value == "off") {
        settings.batch = BatchGate{};
        return {};
    }
    BatchGate gate;
    const auto space = std::min(value.find_first_of(" \t"), value.size());
    const auto count = parse_number(value.substr(0, space));
    const auto wrong = parse_duration_into(gate.delay, trim(value.substr(space)));
    if (!count || *count < 1 || *count > kMaxBatch || !wrong.empty() || gate.delay == 0) {
        return "off, or N DELAY with N from 1 to 65536 and a DELAY such as 5ms";
    }
    gate.count = static_cast<std::uint32_t>(*count);
    settings.batch = gate;
    return {};
}

std::vector<Row> make_rows() {
    using S = Settings;
    constexpr std::uint64_t kMost = 1ULL << 40;
    const auto digits = [](std::uint64_t value) { return std::to_string(value); };
    return {
        named<&S::type>("type",
                        "changes only while the channel is not open and empty, and has no "
                        "subscription (EBUSY)"),
        number<&S::capacity>("capacity", 1, 1ULL << 32, "a number of messages", "messages"),
        size<&S::bytes>("bytes", kMost, format_size, "of all bodies and frame extensions queued"),
        size<&S::max_message>("max-message", kMaxWrite, digits, "bytes of one body"),
        size<&S::max_payload>(
            "max-payload", kMost, format_size,
            "bytes of one large message, and of one region; not counted in `bytes`"),
        named<&S::payloads>("payloads",
                            "pooled: senders may also lend chunks of memory that they can go on "
                            "writing to. Only for channels whose users trust each other"),
        number<&S::high_watermark>("high-watermark", 1, 100, "a percentage",
                                   "percent at which senders pause; above it there is room for "
                                   "priority critical alone"),
        number<&S::low_watermark>("low-watermark", 0, 100, "a percentage",
                                  "percent at which they resume; at most high-watermark"),
        named<&S::overflow>("overflow", "what happens to a message for which there is no room"),
        named<&S::schedule>("schedule",
                            "strict: the highest priority first, always. fair: each priority in "
                            "use gets a share, from 1 (priorities 0 to 15) to 16 (240 to 255), so "
                            "that none starves"),
        duration<&S::ttl>("ttl", 0, "how long a message may wait before it expires; 0: for ever"),
        duration<&S::timeout>("timeout", 0, "of writes that wait on an open file"),
        named<&S::durable>("durable",
                           "messages are kept on disk; sync: a write returns when they "
                           "are there. Not on type stream"),
        number<&S::max_deliveries>("max-deliveries", 1, 1'000'000, "a number of deliveries",
                                   "leases of one message, then it is a dead letter"),
        duration<&S::lease>("lease", 1, "how long a lease lasts"),
        {"batch", "off, or N DELAY with N from 1 to 65536",
         "messages can be read when N are queued or the first has waited for DELAY; on type batch "
         "`64 5ms` by default. Not on type sync",
         print_batch, parse_batch},
        number<&S::retain>("retain", 0, 1'000'000, "a number of messages",
                           "messages that a topic keeps for new subscriptions"),
        number<&S::notify_rate>("notify-rate", 1, 1'000'000, "N/s with N",
                                "inotify events a second for arrivals by other files than `queue`",
                                "/s"),
    };
}

const Row* find_row(std::string_view key) {
    const auto& rows = setting_rows();
    const auto row =
        std::find_if(rows.begin(), rows.end(), [&](const Row& r) { return r.key == key; });
    return row == rows.end() ? nullptr : &*row;
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
            const auto allowed = parse_duration_into(pause.duration, argument);
            if (!allowed.empty()) return invalid("pause", argument, allowed);
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

const std::vector<SettingRow>& setting_rows() {
    static const std::vector<SettingRow> rows = make_rows();
    return rows;
}

std::string get(const Settings& settings, std::string_view key) {
    const Row* row = find_row(key);
    return row ? row->print(settings) : std::string();
}

Result<void> set(Settings& settings, std::string_view key, std::string_view value) {
    if (const Row* row = find_row(key)) {
        auto allowed = row->parse(settings, value);
        if (allowed.empty()) return {};
        return invalid(key, value, allowed);
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
    for (const Row& row : setting_rows()) {
        text.append(row.key).append(" ").append(row.print(settings)).append("\n");
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
