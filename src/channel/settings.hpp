// A channel's settings: what `ctl` shows and takes, one `key value` a line. A ctl text is parsed whole
// before anything is changed. Values and pure functions; any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <base/clock.hpp>
#include <base/result.hpp>
#include <channel/types.hpp>
#include <queue/priority_queue.hpp>

namespace ipcfs::channel {

// One write(2) of at most this is never split by the kernel: 1 MiB less a page.
constexpr std::uint64_t kMaxWrite = (1U << 20) - 4096;

enum class Type : std::uint8_t {
#define IPCFS_ROW(value, name, make) value,
    IPCFS_CHANNEL_TYPES(IPCFS_ROW)
#undef IPCFS_ROW
};
enum class Durable : std::uint8_t { kOff, kAsync, kSync };
enum class Payloads : std::uint8_t { kSealed, kPooled };
enum class Overflow : std::uint8_t { kBlock, kReject, kDropOldest, kDropNewest };

// Messages become readable when `count` of them are queued or the oldest has waited for `delay`.
struct BatchGate {
    std::uint32_t count = 0;  // 0: off, they are readable at once
    Nanos delay = 0;
    bool operator==(const BatchGate&) const = default;
};
constexpr std::uint32_t kMaxBatch = 65536;
constexpr BatchGate kDefaultBatch{64, 5 * kMillisecond};  // of type batch

struct Settings {
    Type type = Type::kQueue;
    std::uint64_t capacity = 1000;           // messages, from 1
    std::uint64_t bytes = 100ULL << 20;      // of bodies and extensions, from 1
    std::uint64_t max_message = kMaxWrite;   // bytes of one body, 1 to kMaxWrite
    std::uint64_t max_payload = 4ULL << 30;  // bytes of one payload, from 1
    Payloads payloads = Payloads::kSealed;   // kPooled: memory of the sender's, not sealed, too
    std::uint32_t high_watermark = 80;       // percent, 1 to 100
    std::uint32_t low_watermark = 20;        // percent, 0 to high_watermark
    Overflow overflow = Overflow::kBlock;
    queue::Schedule schedule = queue::Schedule::kStrict;
    Nanos ttl = 0;                // 0: messages do not expire
    Nanos timeout = 5 * kSecond;  // of writes that wait on an open file
    Durable durable = Durable::kOff;
    std::uint32_t max_deliveries = 5;  // leases of one message before it goes to the dead letters
    Nanos lease = 30 * kSecond;        // how long one lasts
    std::optional<BatchGate> batch;    // empty: the type's own
    std::uint64_t retain = 0;          // topics: messages that a new subscription starts with
    std::uint64_t notify_rate = 1000;  // doorbell rings a second, from 1

    bool operator==(const Settings&) const = default;

    BatchGate batch_gate() const noexcept {
        if (batch) return *batch;
        return type == Type::kBatch ? kDefaultBatch : BatchGate{};
    }
    // Messages go to subscriptions.
    bool publishes() const noexcept { return type == Type::kTopic || type == Type::kMulticast; }

    // Messages or bytes at which senders pause, rounded up, and at which they resume, rounded down.
    std::uint64_t high_mark() const noexcept { return mark_up(capacity); }
    std::uint64_t high_mark_bytes() const noexcept { return mark_up(bytes); }
    std::uint64_t low_mark() const noexcept { return mark_down(capacity); }
    std::uint64_t low_mark_bytes() const noexcept { return mark_down(bytes); }

private:
    // Every write asks for them, and a division of 128 bits is slow.
    static constexpr std::uint64_t kEasy = UINT64_MAX / 128;
    std::uint64_t mark_up(std::uint64_t whole) const noexcept {
        if (whole < kEasy) return (whole * high_watermark + 99) / 100;
        return static_cast<std::uint64_t>(
            (static_cast<unsigned __int128>(whole) * high_watermark + 99) / 100);
    }
    std::uint64_t mark_down(std::uint64_t whole) const noexcept {
        if (whole < kEasy) return whole * low_watermark / 100;
        return static_cast<std::uint64_t>(static_cast<unsigned __int128>(whole) * low_watermark /
                                          100);
    }
};

const char* name_of(Type type) noexcept;
const char* name_of(Durable durable) noexcept;
const char* name_of(Overflow overflow) noexcept;
const char* name_of(Payloads payloads) noexcept;
const char* name_of(queue::Schedule schedule) noexcept;

// All that ctl, the xattrs, the configuration and the reference know of a key.
struct SettingRow {
    std::string_view key;
    std::string values;  // that are allowed, for people
    std::string_view help;
    std::function<std::string(const Settings&)> print;
    // Returns an empty text; or what is allowed, and nothing is changed.
    std::function<std::string(Settings&, std::string_view)> parse;
};
// In the order in which `ctl` shows them.
const std::vector<SettingRow>& setting_rows();

// The value of `key` as text that set() takes; empty for an unknown key.
std::string get(const Settings& settings, std::string_view key);
// EINVAL, with what is allowed in the fault's operation, and nothing changed.
Result<void> set(Settings& settings, std::string_view key, std::string_view value);
// EINVAL where settings contradict each other (low above high, a durable stream, a batch on sync).
Result<void> check(const Settings& settings);
// What a type has anyway follows the type when that changes: it is not kept as a setting of its own.
void simplify(Settings& settings) noexcept;
// One `key value` line for each setting.
std::string print(const Settings& settings);

struct Command {
    enum class Kind : std::uint8_t { kPurge, kPause, kResume, kRevoke, kRedrive } kind;
    Nanos duration = 0;  // of a pause; 0: until resume
    std::string region;  // kRevoke: its name in share/. Done by whoever has the regions, not here
    bool operator==(const Command&) const = default;
};

// What a write to `ctl` asks for, checked whole.
struct Control {
    Settings settings;
    std::vector<Command> commands;
};

// `text`: lines of `key value` or a command; empty lines and lines from # on are passed over. At most
// 64 KiB. EINVAL with the line's number and the reason.
Result<Control> parse_control(std::string_view text, const Settings& now);

}  // namespace ipcfs::channel
