// libFuzzer target for the texts written to `ctl`: a refused one changes nothing and says why in
// one line; the settings of an accepted one obey their bounds, and printed and parsed again are
// equal.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include <base/check.hpp>
#include <channel/settings.hpp>

namespace {

using namespace ipcfs;
using namespace ipcfs::channel;

void is_a_refusal(const Fault& fault) {
    IPCFS_CHECK(fault.code == EINVAL);
    IPCFS_CHECK(!fault.operation.empty());
    IPCFS_CHECK(fault.operation.find('\n') == std::string::npos);  // `status` is read by lines
}

// Settings far from the defaults, so that a key which print forgets shows.
Settings other_settings() {
    Settings other;
    for (const auto& [key, value] : {std::pair{"type", "sync"},
                                     {"capacity", "7"},
                                     {"bytes", "13"},
                                     {"max-message", "17"},
                                     {"high-watermark", "3"},
                                     {"low-watermark", "2"},
                                     {"overflow", "drop-newest"},
                                     {"schedule", "fair"},
                                     {"ttl", "9ns"},
                                     {"timeout", "11h"},
                                     {"durable", "async"},
                                     {"max-deliveries", "23"},
                                     {"lease", "29ms"},
                                     {"retain", "31"},
                                     {"notify-rate", "19/s"}}) {
        IPCFS_CHECK(set(other, key, value).has_value());
    }
    return other;
}

void is_in_bounds(const Settings& s) {
    IPCFS_CHECK(check(s).has_value());
    IPCFS_CHECK(s.capacity >= 1 && s.bytes >= 1 && s.notify_rate >= 1);
    IPCFS_CHECK(s.max_message >= 1 && s.max_message <= kMaxWrite);
    IPCFS_CHECK(s.high_watermark >= 1 && s.high_watermark <= 100);
    IPCFS_CHECK(s.low_watermark <= s.high_watermark);
    IPCFS_CHECK(s.ttl >= 0 && s.timeout >= 0 && s.lease > 0);
    IPCFS_CHECK(s.max_deliveries >= 1 && s.batch_gate().count <= kMaxBatch);
    IPCFS_CHECK((s.batch_gate().count == 0) == (s.batch_gate().delay == 0));
    IPCFS_CHECK(s.high_mark() >= 1 && s.high_mark() <= s.capacity);
    IPCFS_CHECK(s.low_mark() <= s.high_mark());
    IPCFS_CHECK(s.high_mark_bytes() <= s.bytes && s.low_mark_bytes() <= s.high_mark_bytes());
}

void printed_and_parsed_again_is_equal(const Settings& settings) {
    const std::string text = print(settings);
    for (const Settings& before : {Settings{}, other_settings()}) {
        const auto again = parse_control(text, before);
        IPCFS_CHECK(again.has_value());
        IPCFS_CHECK(again->settings == settings);
        IPCFS_CHECK(again->commands.empty());
    }
}

// A line at a time through set(), as xattrs come: a refused one leaves the settings as they were.
void is_set_whole_or_not_at_all(std::string_view text) {
    Settings settings;
    while (!text.empty()) {
        const auto end = text.find('\n');
        const auto line = text.substr(0, end);
        text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
        const auto space = line.find(' ');
        const auto key = line.substr(0, space);
        const auto value =
            space == std::string_view::npos ? std::string_view{} : line.substr(space + 1);
        const Settings before = settings;
        const auto done = set(settings, key, value);
        if (!done) {
            is_a_refusal(done.error());
            IPCFS_CHECK(settings == before);
        } else {
            const std::string shown = get(settings, key);
            IPCFS_CHECK(!shown.empty());
            Settings again = before;
            IPCFS_CHECK(set(again, key, shown).has_value() && again == settings);
        }
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    for (const Settings& before : {Settings{}, other_settings()}) {
        const Settings now = before;
        const auto control = parse_control(text, now);
        IPCFS_CHECK(now == before);
        if (!control) {
            is_a_refusal(control.error());
            continue;
        }
        is_in_bounds(control->settings);
        printed_and_parsed_again_is_equal(control->settings);
        for (const Command& command : control->commands) {
            IPCFS_CHECK(command.duration >= 0);
            IPCFS_CHECK(command.kind == Command::Kind::kPause || command.duration == 0);
        }
        // Applying the same text again changes nothing more.
        const auto twice = parse_control(text, control->settings);
        IPCFS_CHECK(twice.has_value() && twice->settings == control->settings);
        IPCFS_CHECK(twice->commands == control->commands);
    }
    is_set_whole_or_not_at_all(text);
    return 0;
}
