// `ipcfs recv` and `ipcfs follow`. Both read framed/stream, one message a read, so the end of a
// message is known, and an empty message from the channel's end. The read waits, not poll: waiting
// reads are served first come, first served, wake nobody in vain, and are what a writer of a
// channel of type sync looks for. A payload is passed on piece by piece. One thread.
#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <span>
#include <string>
#include <vector>

#include <commands.hpp>
#include <content.hpp>
#include <failure.hpp>
#include <io.hpp>
#include <json.hpp>
#include <tree.hpp>

#include <ipcfs/frame.hpp>

namespace ipcfs::client {
namespace {

constexpr std::size_t kRead = std::size_t{1} << 20;  // the largest read the kernel does not split
constexpr std::size_t kMaxFrame = std::size_t{64} << 20;
// Of bodies larger than this JSON is written without having them whole.
constexpr std::size_t kInlineJson = kRead;

std::string_view text_of(std::span<const std::byte> bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// All but the body, which is to be appended: the object is open.
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
    extension("content-type", ExtensionType::kContentType);
    extension("session", ExtensionType::kSession);
    extension("trace-id", ExtensionType::kTraceId);
    if (header.payload_id != 0) {
        json.key("payload").value(header.payload_id).key("payload-kind").value(content.kind());
    }
    json.key("length").value(content.size());
    return json;
}

void print_json(const FrameView& frame, const Content& content) {
    Json json = head_as_json(frame, content);
    if (content.size() <= kInlineJson) {
        std::string body = content.text();
        bool plain = is_utf8(body);
        json.key("encoding").value(plain ? "utf-8" : "base64");
        json.key("body").value(plain ? body : base64(body));
        return print(json.end().take());
    }
    json.key("encoding").value("base64").key("body").value("");
    std::string text = json.end().take();
    constexpr std::string_view kEnd = "\"}\n";
    text.resize(text.size() - kEnd.size());
    print(text);
    std::string rest;  // of the piece before, up to two bytes: base64 takes three at a time
    content.for_each_piece([&](std::string_view piece) {
        rest += piece;
        std::size_t whole = rest.size() / 3 * 3;
        print(base64(std::string_view(rest).substr(0, whole)));
        rest.erase(0, whole);
    });
    print(base64(rest));
    print(kEnd);
}

class Receiver {
public:
    Receiver(const Channel& channel, const ReceiveOptions& options, bool json, bool waits)
        : channel_(channel),
          options_(options),
          json_(json),
          output_(options.output.empty() ? Fd() : create_output(options.output)),
          fd_(open_or_fail(channel.file("framed/stream"), O_RDONLY | (waits ? 0 : O_NONBLOCK),
                           channel.shown("framed/stream"))) {}

    // Takes and prints one message. False when there was none until the deadline.
    bool receive(const Deadline& deadline) {
        Hold hold(deadline);
        std::size_t have = 0;
        for (;;) {
            if (buffer_.size() < have + kRead) buffer_.resize(have + kRead);
            ssize_t n = ::read(fd_.get(), buffer_.data() + have, kRead);
            if (n < 0 && errno == EINTR) {
                // Only a read that took nothing is interrupted; the rest of a message never waits.
                if (hold.interrupted() || deadline.passed()) return false;
                continue;
            }
            if (n < 0 && errno == EAGAIN && have == 0) return false;
            if (n < 0) fail_errno(channel_.shown(), errno);
            if (n == 0 && have == 0) fail(kGone, channel_.shown() + " was removed");
            have += static_cast<std::size_t>(n);
            FrameView frame;
            std::size_t used = 0;
            auto error = decode(std::span(buffer_).first(have), frame, used);
            if (error == FrameError::kTruncated && n > 0 && have < kMaxFrame) continue;
            if (error != FrameError::kNone) {
                fail(kError, channel_.shown() +
                                 ": the daemon sent what is no message: " + to_string(error));
            }
            show(frame);
            return true;
        }
    }

private:
    static Fd create_output(const std::string& path) {
        Fd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
        if (!file) fail_errno(escape_controls(path), errno);
        return file;
    }

    void show(const FrameView& frame) const {
        Content content(channel_, frame);
        if (output_) {
            write_content(content, output_.get(), escape_controls(options_.output), false);
            if (json_) print(head_as_json(frame, content).end().take());
        } else if (json_) {
            print_json(frame, content);
        } else {
            write_content(content, STDOUT_FILENO, "cannot write to standard output",
                          output_is_terminal());
        }
    }

    void write_content(const Content& content, int fd, const std::string& shown,
                       bool terminal) const {
        bool line =
            options_.ending == Ending::kNewline || (options_.ending == Ending::kAsIs && terminal);
        if (content.size() > kInlineJson && !line && options_.ending == Ending::kAsIs) {
            return content.copy_to(fd, shown);
        }
        char last = 0;
        // A small one goes out in one write, with its ending.
        std::string small;
        content.for_each_piece([&](std::string_view piece) {
            last = piece.back();
            if (content.size() <= kInlineJson) {
                small += piece;
            } else {
                write_all(fd, piece, shown);
            }
        });
        if (options_.ending == Ending::kNul) small += '\0';
        if (line && last != '\n') small += '\n';
        write_all(fd, small, shown);
    }

    const Channel& channel_;
    const ReceiveOptions& options_;
    const bool json_;
    const Fd output_;
    Fd fd_;
    std::vector<std::byte> buffer_;
};

}  // namespace

int receive(const Globals& globals, const ReceiveOptions& options) {
    Tree tree(globals.mount);
    Channel channel = tree.channel(options.channel);
    bool drain = !options.follow && options.count == 0;
    bool waits = options.follow || (!drain && options.timeout != 0);
    Receiver receiver(channel, options, globals.json, waits);
    if (options.follow) {
        for (;;) receiver.receive(Deadline(std::nullopt));
    }
    for (std::uint64_t n = 0; drain || n < options.count; ++n) {
        // Without waiting there is no deadline to be early for: it takes what is there, or nothing.
        if (receiver.receive(Deadline(waits ? options.timeout : std::nullopt))) continue;
        if (drain) return kOk;
        if (!globals.quiet && *options.timeout > 0) {
            fail(kNothing,
                 channel.shown() + ": no message within " + human_duration(*options.timeout));
        }
        return kNothing;
    }
    return kOk;
}

}  // namespace ipcfs::client
