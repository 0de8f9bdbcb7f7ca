// `ipcfs recv` and `ipcfs follow`. Both read framed/stream, one message a read, so the end of a
// message is known, and an empty message from the channel's end. The read waits, not poll: waiting
// reads are served first come, first served, wake nobody in vain, and are what a writer of a
// channel of type sync looks for. One thread.
#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <span>
#include <string>
#include <vector>

#include <commands.hpp>
#include <failure.hpp>
#include <io.hpp>
#include <json.hpp>
#include <tree.hpp>

#include <ipcfs/frame.hpp>

namespace ipcfs::client {
namespace {

constexpr std::size_t kRead = std::size_t{1} << 20;  // the largest read the kernel does not split
constexpr std::size_t kMaxFrame = std::size_t{64} << 20;

std::string_view text_of(std::span<const std::byte> bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string as_json(const FrameView& frame) {
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
    std::string_view body = text_of(frame.body);
    bool plain = is_utf8(body);
    json.key("length").value(std::uint64_t{body.size()});
    json.key("encoding").value(plain ? "utf-8" : "base64");
    json.key("body").value(plain ? std::string(body) : base64(body));
    return json.end().take();
}

class Receiver {
public:
    Receiver(const Channel& channel, const ReceiveOptions& options, bool json, bool waits)
        : channel_(channel),
          options_(options),
          json_(json),
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
    void show(const FrameView& frame) const {
        if (json_) return print(as_json(frame));
        std::string body(text_of(frame.body));
        bool line = options_.ending == Ending::kNewline ||
                    (options_.ending == Ending::kAsIs && output_is_terminal());
        if (options_.ending == Ending::kNul) body += '\0';
        if (line && !body.ends_with('\n')) body += '\n';
        print(body);
    }

    const Channel& channel_;
    const ReceiveOptions& options_;
    const bool json_;
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
