#include <array>
#include <cerrno>
#include <fcntl.h>
#include <utility>

#include <command.hpp>
#include <failure.hpp>
#include <json.hpp>
#include <printer.hpp>

namespace ipcfs::client {
namespace {

// Larger bodies are streamed to JSON instead of loaded completely.
constexpr std::size_t kInlineJson = std::size_t{1} << 20;

constexpr std::array<std::pair<const char*, ExtensionType>, 5> kExtensions{
    {{"method", ExtensionType::kMethod},
     {"group", ExtensionType::kGroup},
     {"content-type", ExtensionType::kContentType},
     {"session", ExtensionType::kSession},
     {"trace-id", ExtensionType::kTraceId}}};

// Everything but the body.
Json head_of(const FrameView& frame, const MessageBody& body) {
    const FrameHeader& header = frame.header;
    Json json{
        {"sequence", header.sequence},    {"time", header.time},
        {"type", to_string(header.type)}, {"priority", header.priority},
        {"flags", header.flags},          {"redelivered", (header.flags & kFrameRedelivered) != 0},
        {"id", header.message_id},        {"correlation", header.correlation_id},
        {"deadline", header.deadline},    {"pid", header.sender_pid},
        {"tid", header.sender_tid},       {"uid", header.sender_uid},
        {"gid", header.sender_gid}};
    for (const auto& [name, type] : kExtensions) {
        auto value = frame.extension(type);
        if (!value) continue;
        std::string_view text = as_text(*value);
        json[name] = is_utf8(text) ? std::string(text) : base64(text);
    }
    if (header.payload_id != 0) {
        json["payload"] = header.payload_id;
        json["payload-kind"] = body.kind();
    }
    json["length"] = body.size();
    return json;
}

void add_body(Json& json, std::string_view body) {
    bool plain = is_utf8(body);
    json["encoding"] = plain ? "utf-8" : "base64";
    json["body"] = plain ? std::string(body) : base64(body);
}

void show_json(const FrameView& frame, const MessageBody& body) {
    Json json = head_of(frame, body);
    if (body.size() <= kInlineJson) {
        add_body(json, body.text());
        return print_json(json);
    }
    json["encoding"] = "base64";
    json["body"] = "";
    std::string text = to_line(json);
    constexpr std::string_view kEnd = "\"}\n";
    text.resize(text.size() - kEnd.size());
    print(text);
    std::string rest;  // up to two bytes of the last piece: base64 encodes three at a time
    body.for_each_piece([&](std::string_view piece) {
        rest += piece;
        std::size_t whole = rest.size() / 3 * 3;
        print(base64(std::string_view(rest).substr(0, whole)));
        rest.erase(0, whole);
    });
    print(base64(rest));
    print(kEnd);
}

Fd create_output(const std::string& path) {
    if (path.empty()) return Fd();
    Fd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
    if (!file) fail_errno(escape_controls(path), errno);
    return file;
}

}  // namespace

void Command::printing(PrintOptions& print) {
    flag("-0,--null", print.nul, "End each message with a NUL");
    flag("--newline", print.newline, "End each message with a newline, if it has none")
        .excludes("--null");
    add("-o,--output", &print.output, "FILE",
        "Write the messages into this file, one after the other");
}

Printer::Printer(const Channel& channel, const PrintOptions& options, bool json)
    : channel_(channel), options_(options), json_(json), output_(create_output(options.output)) {}

std::string Printer::shown_target() const {
    return output_ ? escape_controls(options_.output) : "cannot write to standard output";
}

bool Printer::ends_line() const {
    return options_.newline || (!options_.nul && !output_ && output_is_terminal());
}

void Printer::show(const FrameView& frame, bool leased) const {
    MessageBody body(channel_, frame, leased);
    if (json_ && !output_) return show_json(frame, body);
    write_body(body);
    if (json_) print_json(head_of(frame, body));
}

void Printer::show(std::string_view body) const {
    if (!json_) return write_last(body, body.empty() ? '\0' : body.back());
    Json json{{"length", body.size()}};
    if (output_) {
        write_all(output_.get(), body, shown_target());
    } else {
        add_body(json, body);
    }
    print_json(json);
}

void Printer::write_body(const MessageBody& body) const {
    // A small message and its terminator are one write.
    const bool small = body.size() <= kInlineJson;
    if (!small && !options_.nul && !ends_line()) return body.copy_to(target(), shown_target());
    char last = 0;
    std::string text;
    body.for_each_piece([&](std::string_view piece) {
        last = piece.back();
        if (small) {
            text += piece;
        } else {
            write_all(target(), piece, shown_target());
        }
    });
    write_last(text, last);
}

void Printer::write_last(std::string_view rest, char last) const {
    std::string text(rest);
    if (options_.nul) text += '\0';
    if (ends_line() && last != '\n') text += '\n';
    write_all(target(), text, shown_target());
}

}  // namespace ipcfs::client
