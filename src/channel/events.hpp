// What happens at a channel, told to whoever listens: readers of `notify` and processes that asked for
// a signal. A hub belongs to a channel; publishing with no listener costs one relaxed load.
// Thread-safe; listeners are called without the channel's lock.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <base/clock.hpp>
#include <base/guarded.hpp>
#include <base/result.hpp>

namespace ipcfs::channel {

enum class EventKind : std::uint8_t {
    kArrival,
    kDrained,
    kHigh,
    kLow,
    kOverflow,
    kExpired,
    kDead,
    kCreated,
    kRemoved,
    kState
};
constexpr std::size_t kEventKinds = 10;
const char* name_of(EventKind kind) noexcept;

struct Event {
    std::uint64_t sequence = 0;  // per channel, stamped by the hub
    Nanos time = 0;              // since the epoch
    EventKind kind = EventKind::kArrival;
    std::uint8_t priority = 0;  // of the message it is about; 255 for the channel's own
    std::uint8_t type = 0;      // FrameType of the message; 0: not about a message
    std::uint64_t depth = 0;    // messages queued after it
    std::uint64_t detail = 0;   // a count or a size, by kind
    std::string text() const;   // `seq time event priority depth detail` and a line end
};

// `events=arrival,high min-priority=high type=event rate=100/s`, each part optional.
struct EventFilter {
    std::uint32_t kinds = (1U << kEventKinds) - 1;
    std::uint8_t min_priority = 0;
    std::optional<std::uint8_t> type;  // messages of this frame type only
    std::uint64_t rate = 0;            // events a second; 0: no limit
    bool matches(const Event& event) const noexcept;
};
// EINVAL with what is wrong.
Result<EventFilter> parse_filter(std::string_view text);
// critical high normal low, or 0 to 255.
std::optional<std::uint8_t> parse_priority(std::string_view text);
// The FrameType of that name.
std::optional<std::uint8_t> parse_frame_type(std::string_view name);

class EventListener {
public:
    virtual ~EventListener() = default;
    // Any thread, possibly several at once; must not block. False: it is over, forget me.
    virtual bool on_event(const Event& event) noexcept = 0;
    // False when nobody is there any more. Asked now and then.
    virtual bool alive() const noexcept { return true; }
};

class EventHub {
public:
    bool has_listeners() const noexcept { return count_.load(std::memory_order_acquire) > 0; }
    void add(std::shared_ptr<EventListener> listener);
    void remove(const EventListener* listener) noexcept;
    // Forgets listeners that are not alive. Returns how many remain.
    std::size_t sweep() noexcept;
    void publish(Event event) noexcept;
    std::uint64_t published() const noexcept { return sequence_.load(std::memory_order_relaxed); }

private:
    using List = std::vector<std::shared_ptr<EventListener>>;
    // Replaced, never changed, so that publishing needs no lock while it calls listeners.
    Guarded<std::shared_ptr<const List>> listeners_;
    std::atomic<std::size_t> count_{0};
    std::atomic<std::uint64_t> sequence_{0};
};

}  // namespace ipcfs::channel
