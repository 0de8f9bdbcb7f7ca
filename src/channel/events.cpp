// Events, filters and the hub. Any thread.
#include <algorithm>
#include <array>

#include <base/units.hpp>
#include <channel/events.hpp>
#include <ipcfs/frame.hpp>

namespace ipcfs::channel {
namespace {

constexpr std::array<const char*, kEventKinds> kNames{"arrival",  "drained", "high", "low",
                                                      "overflow", "expired", "dead", "created",
                                                      "removed",  "state"};

const char* detail_name(EventKind kind) {
    switch (kind) {
        case EventKind::kArrival: return "size";
        case EventKind::kOverflow:
        case EventKind::kExpired: return "lost";
        default: return "value";
    }
}

}  // namespace

const char* name_of(EventKind kind) noexcept {
    return kNames[static_cast<std::size_t>(kind)];
}

std::string Event::text() const {
    std::string line = std::to_string(sequence);
    line.append(" ").append(std::to_string(time)).append(" ").append(name_of(kind));
    line.append(" ").append(std::to_string(priority)).append(" ").append(std::to_string(depth));
    line.append(" ").append(detail_name(kind)).append("=").append(std::to_string(detail));
    return line.append("\n");
}

bool EventFilter::matches(const Event& event) const noexcept {
    if (!(kinds >> static_cast<unsigned>(event.kind) & 1U)) return false;
    if (event.priority < min_priority) return false;
    return !type || event.type == *type;
}

std::optional<std::uint8_t> parse_priority(std::string_view text) {
    if (text == "critical") return 255;
    if (text == "high") return 192;
    if (text == "normal") return 128;
    if (text == "low") return 0;
    auto number = parse_number(text);
    if (!number || *number > 255) return std::nullopt;
    return static_cast<std::uint8_t>(*number);
}

std::optional<std::uint8_t> parse_frame_type(std::string_view name) {
    for (std::uint8_t type = 1; type <= static_cast<std::uint8_t>(FrameType::kError); ++type) {
        if (name == to_string(static_cast<FrameType>(type))) return type;
    }
    return std::nullopt;
}

Result<EventFilter> parse_filter(std::string_view text) {
    EventFilter filter;
    auto wrong = [](std::string_view what, std::string_view value) {
        return Fault{
            EINVAL, "notify: " + std::string(what) + " '" + std::string(value.substr(0, 64)) + "'"};
    };
    while (true) {
        auto start = text.find_first_not_of(" \t\r\n");
        if (start == std::string_view::npos) return filter;
        text.remove_prefix(start);
        std::string_view part = text.substr(0, text.find_first_of(" \t\r\n"));
        text.remove_prefix(part.size());
        auto equals = part.find('=');
        if (equals == std::string_view::npos) return wrong("no key=value:", part);
        std::string_view key = part.substr(0, equals);
        std::string_view value = part.substr(equals + 1);
        if (key == "events") {
            filter.kinds = 0;
            while (!value.empty()) {
                std::string_view name = value.substr(0, value.find(','));
                value.remove_prefix(std::min(value.size(), name.size() + 1));
                auto at = std::find(kNames.begin(), kNames.end(), name);
                if (at == kNames.end()) return wrong("no such event:", name);
                filter.kinds |= 1U << (at - kNames.begin());
            }
            if (filter.kinds == 0) return wrong("no event named in", part);
        } else if (key == "min-priority") {
            auto priority = parse_priority(value);
            if (!priority)
                return wrong("min-priority is critical, high, normal, low or 0 to 255, not", value);
            filter.min_priority = *priority;
        } else if (key == "type") {
            filter.type = parse_frame_type(value);
            if (!filter.type) return wrong("no such message type:", value);
        } else if (key == "rate") {
            std::string_view number =
                value.ends_with("/s") ? value.substr(0, value.size() - 2) : value;
            auto rate = parse_number(number);
            if (!rate || *rate == 0 || *rate > 1'000'000)
                return wrong("rate is N/s with N from 1 to 1000000, not", value);
            filter.rate = *rate;
        } else {
            return wrong("no such filter:", key);
        }
    }
}

void EventHub::add(std::shared_ptr<EventListener> listener) {
    std::shared_ptr<const List> old;
    listeners_.with([&](auto& held) {
        auto list = held ? std::make_shared<List>(*held) : std::make_shared<List>();
        list->push_back(std::move(listener));
        count_.store(list->size(), std::memory_order_release);
        old = std::exchange(held, std::move(list));
    });
}

void EventHub::remove(const EventListener* listener) noexcept {
    std::shared_ptr<const List> old;  // a listener must not be destroyed under the lock
    listeners_.with([&](auto& held) {
        if (!held) return;
        auto list = std::make_shared<List>(*held);
        std::erase_if(*list, [&](const auto& l) { return l.get() == listener; });
        count_.store(list->size(), std::memory_order_release);
        old = std::exchange(held, std::move(list));
    });
}

std::size_t EventHub::sweep() noexcept {
    auto list = listeners_.with([](auto& held) { return held; });
    if (!list) return 0;
    for (const auto& listener : *list) {
        if (!listener->alive()) remove(listener.get());
    }
    return count_.load(std::memory_order_relaxed);
}

void EventHub::publish(Event event) noexcept {
    if (!has_listeners()) return;
    event.sequence = sequence_.fetch_add(1, std::memory_order_relaxed) + 1;
    auto list = listeners_.with([](auto& held) { return held; });
    for (const auto& listener : *list) {
        if (!listener->on_event(event)) remove(listener.get());
    }
}

}  // namespace ipcfs::channel
