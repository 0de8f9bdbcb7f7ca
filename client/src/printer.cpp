// Prints messages. One thread.
#include <cerrno>
#include <fcntl.h>
#include <span>

#include <command.hpp>
#include <failure.hpp>
#include <printer.hpp>

namespace ipcfs::client {
namespace {

// Larger bodies are streamed to JSON instead of loaded completely.
constexpr std::size_t kInlineJson = std::size_t{1} << 20;

std::string_view text_of(std::span<const std::byte> bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Everything but the body, which the caller appends: the object is still open.
Json head_as_json(const FrameView& frame, const Content& content) {
    const FrameHeader& header = frame.header;
    Json json;
    json.begin_object();
    json.key("sequence").value(header.sequence).key("time").value(header.time);
    json.key("type").value(to_string(header.type));
    json.key("priority").value(std::uint64_t{header.priority});
    json.key("flags").value(std::uint64_t{header.flags});
    json.key("redelivered").value((header.flags & kFrameRedelivered) != 0);
    json.key("id").value(header.message_id).key("correlation").value(header.correlation_id);
    json.key("deadline").value(header.deadline);
    json.key("pid").value(std::uint64_t{header.sender_pid});
    json.key("tid").value(std::uint64_t{header.sender_tid});
    json.key("uid").value(std::uint64_t{header.sender_uid});
    json.key("gid").value(std::uint64_t{header.sender_gid});
    auto extension = [&](const char* name, ExtensionType type) {
        auto value = frame.extension(type);
        if (value)
            json.key(name).value(is_utf8(text_of(*value)) ? std::string(text_of(*value))
                                                          : base64(text_of(*value)));
    };
    extension("method", ExtensionType::kMethod);
    extension("group", ExtensionType::kGroup);
    extension("content-type", ExtensionType::kContentType);
    extension("session", ExtensionType::kSession);
    extension("trace-id", ExtensionType::kTraceId);
    if (header.payload_id != 0) {
        json.key("payload").value(header.payload_id).key("payload-kind").value(content.kind());
    }
    json.key("length").value(content.size());
    return json;
}

void add_body(Json& json, std::string_view body) {
    bool plain = is_utf8(body);
    json.key("encoding").value(plain ? "utf-8" : "base64");
    json.key("body").value(plain ? std::string(body) : base64(body));
}

void print_json(const FrameView& frame, const Content& content) {
    Json json = head_as_json(frame, content);
    if (content.size() <= kInlineJson) {
        add_body(json, content.text());
        return print(json.end().take());
    }
    json.key("encoding").value("base64").key("body").value("");
    std::string text = json.end().take();
    constexpr std::string_view kEnd = "\"}\n";
    text.resize(text.size() - kEnd.size());
    print(text);
    std::string rest;  // up to two bytes of the last piece: base64 encodes three at a time
    content.for_each_piece([&](std::string_view piece) {
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

bool Printer::ends_line(bool terminal) const {
    return options_.newline || (!options_.nul && terminal);
}

void Printer::show(const FrameView& frame, bool leased) const {
    Content content(channel_, frame, leased);
    if (json_ && !output_) return print_json(frame, content);
    write_content(content, target(), shown_target(), !output_ && output_is_terminal());
    if (json_) print(head_as_json(frame, content).end().take());
}

void Printer::show(std::string_view body) const {
    if (json_) {
        Json json;
        json.begin_object().key("length").value(std::uint64_t{body.size()});
        if (!output_) add_body(json, body);
        if (output_) write_all(output_.get(), body, shown_target());
        return print(json.end().take());
    }
    std::string text(body);
    if (options_.nul) text += '\0';
    if (ends_line(!output_ && output_is_terminal()) && !body.ends_with('\n')) text += '\n';
    write_all(target(), text, shown_target());
}

void Printer::write_content(const Content& content, int fd, const std::string& shown,
                            bool terminal) const {
    bool line = ends_line(terminal);
    if (content.size() > kInlineJson && !line && !options_.nul && !options_.newline) {
        return content.copy_to(fd, shown);
    }
    char last = 0;
    // Write a small message and its terminator at once.
    std::string small;
    content.for_each_piece([&](std::string_view piece) {
        last = piece.back();
        if (content.size() <= kInlineJson) {
            small += piece;
        } else {
            write_all(fd, piece, shown);
        }
    });
    if (options_.nul) small += '\0';
    if (line && last != '\n') small += '\n';
    write_all(fd, small, shown);
}

}  // namespace ipcfs::client
