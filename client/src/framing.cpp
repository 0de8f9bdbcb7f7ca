// Chooses the file and builds the frame for the options of `send` and `pub`. One thread.
#include <array>
#include <span>

#include <failure.hpp>
#include <framing.hpp>
#include <io.hpp>
#include <text.hpp>

namespace ipcfs::client {
namespace {

struct NamedPriority {
    std::string_view name;
    std::uint8_t priority;
};
constexpr std::array<NamedPriority, 4> kPriorities{
    {{"critical", 255}, {"high", 192}, {"normal", 128}, {"low", 0}}};

std::uint8_t parse_priority(const std::string& text) {
    for (const NamedPriority& level : kPriorities) {
        if (level.name == text) return level.priority;
    }
    auto number = parse_number(text);
    if (!number || *number > 255) {
        fail(kUsage,
             escape_controls(text) + " is not a priority: critical, high, normal, low or 0..255");
    }
    return static_cast<std::uint8_t>(*number);
}

void set_type(Framing& framing, const std::string& text) {
    if (text.find('/') != std::string::npos) {
        auto bytes = std::as_bytes(std::span(text));
        if (!append_extension(framing.extensions, ExtensionType::kContentType, bytes)) {
            fail(kUsage, "the content type is too long");
        }
        return;
    }
    for (FrameType type : {FrameType::kControl, FrameType::kData, FrameType::kEvent,
                           FrameType::kRequest, FrameType::kResponse, FrameType::kError}) {
        if (text == to_string(type)) {
            framing.header.type = type;
            return;
        }
    }
    fail(kUsage, escape_controls(text) +
                     " is not a type: data, event, request, response, error, control, or a content "
                     "type such as text/plain");
}

void add_text(Framing& framing, ExtensionType type, std::string_view text, const char* what) {
    if (text.empty()) return;
    if (!append_extension(framing.extensions, type, std::as_bytes(std::span(text)))) {
        fail(kUsage, std::string("the ") + what + " is too long");
    }
}

}  // namespace

Framing::Framing(const FramingOptions& options) : ttl(options.ttl) {
    if (!options.priority.empty()) {
        header.priority = parse_priority(options.priority);
        framed = true;
        for (const NamedPriority& level : kPriorities) {
            if (level.priority != header.priority) continue;
            file = "priority/" + std::string(level.name);
            framed = false;
        }
    }
    framed = framed || options.ttl || !options.type.empty() || !options.method.empty() ||
             !options.group.empty();
    if (!options.type.empty()) set_type(*this, options.type);
    add_text(*this, ExtensionType::kMethod, options.method, "method");
    for (std::string_view group : split(options.group, ',')) {
        add_text(*this, ExtensionType::kGroup, group, "group");
    }
    if (framed) file = "framed/queue";
}

FrameHeader Framing::header_now() const {
    FrameHeader now = header;
    if (ttl) {
        now.deadline = static_cast<std::uint64_t>(wall_clock() + *ttl);
        now.flags |= kFrameExpires;
    }
    return now;
}

std::string Framing::frame(std::string_view message) const {
    if (!framed) return std::string(message);
    std::vector<std::byte> out;
    auto body = std::as_bytes(std::span(message.data(), message.size()));
    if (!encode(header_now(), extensions, body, out))
        fail(kError, "cannot make a frame: a header field is invalid");
    return {reinterpret_cast<const char*>(out.data()), out.size()};
}

}  // namespace ipcfs::client
