// `ipcfs send` and `pub`. Opens without blocking and waits with poll, so that it can wait for a
// full channel without limit and Ctrl-C ends the wait. Messages that do not fit one write go
// through `put`. One thread.
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <poll.h>
#include <span>
#include <string>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

#include <command.hpp>
#include <failure.hpp>
#include <framing.hpp>
#include <io.hpp>
#include <json.hpp>
#include <put.hpp>
#include <tree.hpp>

#include <ipcfs/frame.hpp>
#include <ipcfs/wait.hpp>

namespace ipcfs::client {
namespace {

// The largest write that the kernel does not split, in bytes: header and body.
constexpr std::size_t kMaxWrite = 1044480;
constexpr std::size_t kMaxLine = std::size_t{64} << 20;
constexpr std::int64_t kRefresh = 500 * kMillisecond;  // ns between updates of the progress line

// Sends messages one after the other through one open file.
class Sender {
public:
    Sender(const Channel& channel, const FramingOptions& framing,
           std::optional<std::int64_t> timeout)
        : channel_(channel),
          framing_(framing),
          timeout_(timeout),
          fd_(open_or_fail(channel.file(framing_.file), O_WRONLY | O_NONBLOCK,
                           channel.shown(framing_.file))) {}

    void send(std::string_view message) {
        if (message.empty() && !framing_.framed) {
            fail(kUsage, "an empty message can only be sent with a header; add --type data");
        }
        std::string bytes = framing_.frame(message);
        if (bytes.size() > kMaxWrite) return send_large({message});
        Deadline deadline(timeout_);
        std::int64_t started = now();
        std::int64_t backoff = 0;
        for (;;) {
            ssize_t n = detail::retry_if_canceled(
                [&] { return ::write(fd_.get(), bytes.data(), bytes.size()); });
            if (n == static_cast<ssize_t>(bytes.size())) break;
            if (n >= 0) fail(kError, channel_.shown() + ": only a part of the message was written");
            if (errno == EINTR) continue;
            if (errno == EMSGSIZE) return send_large({message});
            if (errno != EAGAIN) fail_errno(channel_.shown() + after_some(), errno);
            wait(fd_.get(), deadline, started, backoff);
        }
        clear_progress();
        ++sent_;
    }

    // Sends all of a descriptor as one message, by a plain write if it is short enough.
    void send_all(int source, const std::string& shown) {
        std::string start;
        while (start.size() <= kMaxWrite) {
            if (!read_more(source, start, shown)) return send(start);
        }
        send_large({start, source, shown});
    }

    void send_large(LargeBody body) {
        Deadline deadline(timeout_);
        std::int64_t started = now();
        for (;;) {
            int error = try_large(body, deadline, started);
            clear_progress();
            if (error == 0) break;
            bool full = error == EAGAIN || error == ETIMEDOUT;
            if (!full) refuse_large(error);
            if (deadline.passed() || !body.rewind()) {
                fail(kNothing, channel_.shown() + after_some() + ": " + reason() +
                                   "; the message was not sent");
            }
        }
        ++sent_;
    }

    std::uint64_t sent() const { return sent_; }

private:
    std::string after_some() const {
        return sent_ == 0 ? "" : " (after " + std::to_string(sent_) + " messages)";
    }

    // Makes one attempt. Returns 0, or the errno of the write or close. An unfinished message
    // reserves no room, so the caller waits for room before and after.
    int try_large(LargeBody& body, const Deadline& deadline, std::int64_t started) {
        bool refuses = channel_.find("ctl", "overflow") == "reject";
        if (!refuses) wait_for_room(fd_.get(), deadline, started);
        const bool plain = framing_.file == "queue";
        LargeWrite out(channel_, plain ? "put" : "framed/put", timeout_.has_value());
        int error = plain ? write_body(out, body, now()) : write_framed(out, body);
        if (error == 0 && !refuses) wait_for_room(out.fd(), deadline, started);
        written_ = std::max(out.written(), framed_length_);
        return out.finish();
    }

    int write_framed(LargeWrite& out, LargeBody& body) {
        std::uint64_t length = body.start.size();
        if (body.rest >= 0) {
            struct stat about {};
            ::fstat(body.rest, &about);
            if (!S_ISREG(about.st_mode)) {
                // The header needs the length, which only the end of the input shows.
                body.rest = (spool_ = hold_rest(body.rest, body.shown)).get();
                spooled_start_ = body.start;
                ::fstat(body.rest, &about);
            }
            if (spool_) body.start = spooled_start_;
            auto left = about.st_size - ::lseek(body.rest, 0, SEEK_CUR);
            length = body.start.size() + static_cast<std::uint64_t>(std::max<off_t>(left, 0));
        }
        FrameHeader header = framing_.header_now();
        // The checksum would be needed before the first byte of the body.
        header.flags |= kFrameNoChecksum;
        if (encode_header(header, framing_.extensions, {}) == 0) {
            fail(kError, "cannot make a frame: a header field is invalid");
        }
        header.body_length = framed_length_ = length;
        auto fixed = std::as_bytes(std::span(&header, 1));
        std::string head(reinterpret_cast<const char*>(fixed.data()), fixed.size());
        head.append(reinterpret_cast<const char*>(framing_.extensions.data()),
                    framing_.extensions.size());
        if (int error = out.write(head)) return error;
        return write_body(out, body, now());
    }

    [[noreturn]] void refuse_large(int error) const {
        std::string what = channel_.shown() + after_some();
        if (error == EMSGSIZE) {
            fail(kError, what + ": a message of at least " + human_size(written_) +
                             " is too long; max-payload is " + channel_.find("ctl", "max-payload"));
        }
        if (error == ENOSPC) {
            fail(kError, what + ": too little memory is available for " + human_size(written_) +
                             " or more; the daemon's payload.reserve keeps some of it free");
        }
        fail_errno(what, error);
    }

    void wait_for_room(int fd, const Deadline& deadline, std::int64_t started) {
        std::int64_t backoff = 0;
        if (poll_one(fd, POLLOUT, 0) == 0) wait(fd, deadline, started, backoff);
    }

    // Waits until there may be room. Backs off if other senders take the room first.
    void wait(int fd, const Deadline& deadline, std::int64_t started, std::int64_t& backoff) {
        for (;;) {
            if (deadline.passed()) {
                std::string waited = *timeout_ == 0 ? "" : " after " + human_duration(*timeout_);
                fail(kNothing, channel_.shown() + after_some() + ": " + reason() + waited +
                                   "; the message was not sent");
            }
            std::int64_t turn = now();
            short ready = poll_one(fd, POLLOUT, deadline.left(kRefresh));
            if (detail::is_gone(ready)) fail_errno(channel_.shown(), EPIPE);
            if ((ready & (POLLOUT | POLLERR)) != 0) {  // the write gives the reason of an error
                backoff = now() - turn < kMillisecond
                              ? std::min(2 * backoff + kMillisecond, 100 * kMillisecond)
                              : 0;
                if (backoff > kMillisecond) poll_one(-1, 0, deadline.left(backoff));
                return;
            }
            if (now() - started >= kRefresh) {
                show_progress("waiting: " + reason() + ", for " + human_duration(now() - started) +
                              after_some() + "...");
            }
        }
    }

    // Why the message cannot be sent now, such as "jobs is full (800 of 1000)".
    std::string reason() const {
        Pairs state = channel_.read("status");
        Pairs settings = channel_.read("ctl");
        if (find(settings, "type") == "sync") return channel_.shown() + " has no reader waiting";
        // A full channel also pauses; `why` distinguishes that from the command.
        bool held =
            find(state, "state") == "paused" && find(state, "why").starts_with("by command");
        std::string text = channel_.shown() + (held ? " is paused" : " is full");
        auto type = find(settings, "type");
        if (!held && (type == "topic" || type == "multicast")) {
            return "a subscription of " + channel_.shown() + " is full and its overflow is block";
        }
        auto depth = find(state, "depth");
        auto capacity = find(settings, "capacity");
        if (depth.empty() || capacity.empty()) return text;
        return text + " (" + std::string(depth) + " of " + std::string(capacity) + ")";
    }

    const Channel& channel_;
    Framing framing_;
    std::optional<std::int64_t> timeout_;
    Fd fd_;
    std::uint64_t sent_ = 0;
    std::uint64_t written_ = 0;        // bytes of the last large message, as far as known
    std::uint64_t framed_length_ = 0;  // its length according to its header
    // The input, copied to memory if its length must be known first.
    Fd spool_;
    std::string_view spooled_start_;
};

// Sends one message for each line as it arrives, without the newline.
void send_lines(Sender& sender, int fd, const std::string& shown) {
    std::string pending;
    while (read_more(fd, pending, shown)) {
        std::size_t start = 0;
        for (auto end = pending.find('\n'); end != std::string::npos;
             end = pending.find('\n', start)) {
            // Skip empty lines: the kernel does not pass on empty writes.
            if (end > start) sender.send(std::string_view(pending).substr(start, end - start));
            start = end + 1;
        }
        pending.erase(0, start);
        if (pending.size() > kMaxLine) {
            fail(kError, shown + ": a line is longer than " + human_size(kMaxLine));
        }
    }
    if (!pending.empty()) sender.send(pending);
}

// Publishing to a channel that is no topic is an error; to one without subscribers, perhaps a mistake.
void check_topic(const Globals& globals, const Channel& channel) {
    std::string type = channel.find("ctl", "type");
    if (!type.empty() && type != "topic" && type != "multicast") {
        fail(kError, channel.shown() + " is no topic, its type is " + type +
                         "; to send a message there: ipcfs send " + channel.shown());
    }
    bool none = channel.find("status", "subscribers") == "0";
    if (none && !globals.quiet && ::isatty(STDERR_FILENO) == 1) {
        std::fprintf(stderr, "ipcfs: %s has no subscribers now\n", channel.shown().c_str());
    }
}

void send_input(Sender& sender, const std::string& from, bool lines) {
    bool file = !from.empty() && from != "-";
    std::string shown = file ? escape_controls(from) : "standard input";
    Fd opened = file ? open_or_fail(from, O_RDONLY, shown) : Fd();
    int source = file ? opened.get() : STDIN_FILENO;
    if (lines) {
        send_lines(sender, source, shown);
    } else {
        sender.send_all(source, shown);
    }
}

struct SendOptions {
    std::string channel;
    std::vector<std::string> messages;
    FramingOptions framing;
    std::string file;
    bool lines = false;
    bool publish = false;  // `pub`: to a topic
    std::optional<std::int64_t> timeout;
};

int send(const Globals& globals, const SendOptions& options) {
    const auto& messages = options.messages;
    if (!messages.empty() && (options.lines || !options.file.empty())) {
        fail(kUsage, "a MESSAGE cannot be given together with --lines or --file");
    }
    Tree tree(globals.mount);
    Channel channel = tree.channel(options.channel);
    if (options.publish) check_topic(globals, channel);
    Sender sender(channel, options.framing, options.timeout);
    if (messages.empty() || (messages.size() == 1 && messages.front() == "-")) {
        send_input(sender, options.file, options.lines);
    } else {
        for (const std::string& message : messages) sender.send(message);
    }
    if (globals.json) {
        print_json({{"channel", channel.name}, {"sent", sender.sent()}});
    }
    return kOk;
}

void declare_send(Command& takes, SendOptions& options) {
    takes.channel(options.channel);
    takes.add("message", &options.messages, "MESSAGE",
              "Each is one message; none, or -: standard input is one message");
    takes
        .add("-p,--priority", &options.framing.priority, "PRIORITY",
             "critical, high, normal, low or 0..255")
        .offer("critical high normal low");
    takes.add("--ttl", &options.framing.ttl, "DURATION",
              "Drop the message if it is not delivered within DURATION");
    takes
        .add("--type", &options.framing.type, "TYPE",
             "data (default), event, request, response, error, control;\n"
             "or a content type such as text/plain")
        .offer("data event request response error control text/plain application/json");
    takes.flag("-l,--lines", options.lines,
               "Send each line of standard input or of --file as a message");
    takes.add("-f,--file", &options.file, "FILE", "Read the message from this file");
    takes.add("-t,--timeout", &options.timeout, "DURATION",
              "Wait at most DURATION for room, for each message, then exit 3");
    takes.add("--method", &options.framing.method, "NAME",
              "The method requested; filters can match it");
}

Registration<SendOptions> g_send(
    Group::kMessages, "send", "Send messages; waits while the channel is full",
    "  ipcfs send jobs build\n"
    "  ipcfs send jobs first second        # two messages\n"
    "  date | ipcfs send jobs              # standard input is one message\n"
    "  seq 1000 | ipcfs send jobs --lines  # one message a line\n"
    "  ipcfs send jobs --file film.mkv     # of any size up to max-payload\n"
    "  ipcfs send jobs -p critical stop\n"
    "  ipcfs send jobs --ttl 30s --type text/plain 'soon obsolete'\n"
    "  ipcfs send jobs --timeout 0 build   # exit 3 instead of waiting",
    declare_send, send);

Registration<SendOptions> g_pub(
    Group::kTopics, "pub", "Publish to a topic, for every matching subscription",
    "  ipcfs mkdir logs --type topic\n"
    "  ipcfs pub logs 'disk is full' -p high\n"
    "  journalctl -f | ipcfs pub logs --lines\n"
    "  ipcfs pub orders --group eu,us 'order 17'   # type multicast\n"
    "  ipcfs pub logs --method rotate ''",
    [](Command& takes, SendOptions& options) {
        declare_send(takes, options);
        takes.add("-g,--group", &options.framing.group, "GROUP",
                  "On type multicast: the subscriptions that name this group");
        options.publish = true;
    },
    send);

}  // namespace
}  // namespace ipcfs::client
