// `ipcfs send`. Opens without blocking and waits with poll, so that a full channel is waited for
// without a limit and Ctrl-C ends the wait. What does not fit one write goes through `put`. One
// thread.
#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <memory>
#include <poll.h>
#include <span>
#include <string>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

#include <commands.hpp>
#include <failure.hpp>
#include <io.hpp>
#include <json.hpp>
#include <put.hpp>
#include <tree.hpp>

#include <ipcfs/frame.hpp>
#include <ipcfs/wait.hpp>

namespace ipcfs::client {
namespace {

// What the kernel never splits, header and body, bytes.
constexpr std::size_t kMaxWrite = 1044480;
constexpr std::size_t kMaxLine = std::size_t{64} << 20;
constexpr std::int64_t kRefresh = 500 * kMillisecond;  // of the progress line

struct Level {
    std::string_view name;
    std::uint8_t priority;
};
constexpr std::array<Level, 4> kLevels{
    {{"critical", 255}, {"high", 192}, {"normal", 128}, {"low", 0}}};

// How the messages are dressed: the file they go to, and the frame around them, if any.
struct Dress {
    std::string file = "queue";
    bool framed = false;
    FrameHeader header;
    std::vector<std::byte> extensions;
    std::optional<std::int64_t> ttl;
};

std::uint8_t parse_priority(const std::string& text) {
    for (const Level& level : kLevels) {
        if (level.name == text) return level.priority;
    }
    auto number = parse_number(text);
    if (!number || *number > 255) {
        fail(kUsage,
             escape_controls(text) + " is not a priority: critical, high, normal, low or 0..255");
    }
    return static_cast<std::uint8_t>(*number);
}

void set_type(Dress& dress, const std::string& text) {
    if (text.find('/') != std::string::npos) {
        auto bytes = std::as_bytes(std::span(text));
        if (!append_extension(dress.extensions, ExtensionType::kContentType, bytes)) {
            fail(kUsage, "the content type is too long");
        }
        return;
    }
    for (FrameType type : {FrameType::kControl, FrameType::kData, FrameType::kEvent,
                           FrameType::kRequest, FrameType::kResponse, FrameType::kError}) {
        if (text == to_string(type)) {
            dress.header.type = type;
            return;
        }
    }
    fail(kUsage, escape_controls(text) +
                     " is not a type: data, event, request, response, error, control, or a content "
                     "type as text/plain");
}

void add_text(Dress& dress, ExtensionType type, std::string_view text, const char* what) {
    if (text.empty()) return;
    if (!append_extension(dress.extensions, type, std::as_bytes(std::span(text)))) {
        fail(kUsage, std::string("the ") + what + " is too long");
    }
}

Dress choose_dress(const SendOptions& options) {
    Dress dress;
    if (!options.priority.empty()) {
        dress.header.priority = parse_priority(options.priority);
        dress.framed = true;
        for (const Level& level : kLevels) {
            if (level.priority != dress.header.priority) continue;
            dress.file = "priority/" + std::string(level.name);
            dress.framed = false;
        }
    }
    dress.ttl = options.ttl;
    dress.framed = dress.framed || options.ttl || !options.type.empty() ||
                   !options.method.empty() || !options.group.empty();
    if (!options.type.empty()) set_type(dress, options.type);
    add_text(dress, ExtensionType::kMethod, options.method, "method");
    for (std::string_view group : split(options.group, ',')) {
        add_text(dress, ExtensionType::kGroup, group, "group");
    }
    if (dress.framed) dress.file = "framed/queue";
    return dress;
}

std::string put_on(const Dress& dress, std::string_view message) {
    if (!dress.framed) return std::string(message);
    FrameHeader header = dress.header;
    if (dress.ttl) {
        header.deadline = static_cast<std::uint64_t>(wall_clock() + *dress.ttl);
        header.flags |= kFrameExpires;
    }
    std::vector<std::byte> out;
    auto body = std::as_bytes(std::span(message.data(), message.size()));
    if (!encode(header, dress.extensions, body, out)) fail(kError, "cannot make a frame of that");
    return {reinterpret_cast<const char*>(out.data()), out.size()};
}

// Sends messages one after the other over one open file.
class Sender {
public:
    Sender(const Channel& channel, const SendOptions& options)
        : channel_(channel),
          dress_(choose_dress(options)),
          timeout_(options.timeout),
          fd_(open_or_fail(channel.file(dress_.file), O_WRONLY | O_NONBLOCK,
                           channel.shown(dress_.file))) {}

    void send(std::string_view message) {
        if (message.empty() && !dress_.framed) {
            fail(kUsage, "an empty message can only be sent with a header; add --type data");
        }
        std::string bytes = put_on(dress_, message);
        if (bytes.size() > kMaxWrite) return send_large({message});
        Deadline deadline(timeout_);
        std::int64_t started = now();
        std::int64_t backoff = 0;
        for (;;) {
            ssize_t n = detail::again_if_undone(
                [&] { return ::write(fd_.get(), bytes.data(), bytes.size()); });
            if (n == static_cast<ssize_t>(bytes.size())) break;
            if (n >= 0) fail(kError, channel_.shown() + ": only a part was written");
            if (errno == EINTR) continue;
            if (errno == EMSGSIZE) return send_large({message});
            if (errno != EAGAIN) fail_errno(channel_.shown() + after_some(), errno);
            wait(fd_.get(), deadline, started, backoff);
        }
        clear_progress();
        ++sent_;
    }

    // All of a descriptor: as a plain message if it is short enough.
    void send_all(int source, const std::string& shown) {
        std::string start;
        while (start.size() <= kMaxWrite) {
            std::size_t before = start.size();
            start.resize(before + 65536);
            ssize_t n = ::read(source, start.data() + before, 65536);
            int error = n < 0 ? errno : 0;
            start.resize(before + static_cast<std::size_t>(std::max<ssize_t>(n, 0)));
            if (n == 0) return send(start);
            if (n < 0 && error != EINTR) fail_errno(shown, error);
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

    // One attempt: 0, or the errno of the close, or of the write before it. A message that waits to be
    // written lets room pass by, so room is waited for before and after.
    int try_large(LargeBody& body, const Deadline& deadline, std::int64_t started) {
        bool refuses = find(read_settings(), "overflow") == "reject";
        if (!refuses) wait_for_room(fd_.get(), deadline, started);
        LargeWrite out(channel_, dress_.file == "queue" ? "put" : "framed/put",
                       timeout_.has_value());
        int error = 0;
        if (dress_.file == "queue") {
            error = write_body(out, body, now());
        } else {
            error = write_framed(out, body);
        }
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
                // Its length comes first, and only its end tells that.
                body.rest = (spool_ = hold_rest(body.rest, body.shown)).get();
                spooled_start_ = body.start;
                ::fstat(body.rest, &about);
            }
            if (spool_) body.start = spooled_start_;
            auto left = about.st_size - ::lseek(body.rest, 0, SEEK_CUR);
            length = body.start.size() + static_cast<std::uint64_t>(std::max<off_t>(left, 0));
        }
        FrameHeader header = dress_.header;
        if (dress_.ttl) {
            header.deadline = static_cast<std::uint64_t>(wall_clock() + *dress_.ttl);
            header.flags |= kFrameExpires;
        }
        // Its checksum would have to be known before the first byte of the body.
        header.flags |= kFrameNoChecksum;
        if (encode_header(header, dress_.extensions, {}) == 0) {
            fail(kError, "cannot make a frame of that");
        }
        header.body_length = framed_length_ = length;
        auto fixed = std::as_bytes(std::span(&header, 1));
        std::string head(reinterpret_cast<const char*>(fixed.data()), fixed.size());
        head.append(reinterpret_cast<const char*>(dress_.extensions.data()),
                    dress_.extensions.size());
        if (int error = out.write(head)) return error;
        return write_body(out, body, now());
    }

    [[noreturn]] void refuse_large(int error) const {
        std::string what = channel_.shown() + after_some();
        if (error == EMSGSIZE) {
            std::string limit(find(read_settings(), "max-payload"));
            fail(kError, what + ": a message of at least " + human_size(written_) +
                             " is too long; max-payload is " + limit);
        }
        if (error == ENOSPC) {
            fail(kError, what + ": the machine's memory is too short for " + human_size(written_) +
                             " and more; payload.reserve of the daemon keeps some of it free");
        }
        fail_errno(what, error);
    }

    void wait_for_room(int fd, const Deadline& deadline, std::int64_t started) {
        std::int64_t backoff = 0;
        if (poll_one(fd, POLLOUT, 0) == 0) wait(fd, deadline, started, backoff);
    }

    Pairs read_settings() const {
        return parse_pairs(read_file(channel_.file("ctl")).value_or(""));
    }

    // Until there may be room. Room that somebody else took at once is retried less and less often.
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
            if ((ready & (POLLOUT | POLLERR)) != 0) {  // of an error the write tells more
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

    // Why it cannot be sent now: "jobs is full (800 of 1000)".
    std::string reason() const {
        Pairs state = read_status(channel_);
        Pairs settings = read_settings();
        if (find(settings, "type") == "sync") return channel_.shown() + " has no reader waiting";
        // It pauses by itself when it is full; `why` tells the two apart.
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
    Dress dress_;
    std::optional<std::int64_t> timeout_;
    Fd fd_;
    std::uint64_t sent_ = 0;
    std::uint64_t written_ = 0;        // of the last large one, as far as it was known
    std::uint64_t framed_length_ = 0;  // as its header says
    // The rest of a descriptor, where its length has to be known; and what came before it.
    Fd spool_;
    std::string_view spooled_start_;
};

// One message a line, as the lines come; a line's newline is not part of it.
void send_lines(Sender& sender, int fd, const std::string& shown) {
    std::string pending;
    std::string chunk(65536, '\0');
    for (;;) {
        ssize_t n = ::read(fd, chunk.data(), chunk.size());
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) fail_errno(shown, errno);
        pending.append(chunk, 0, static_cast<std::size_t>(n));
        std::size_t start = 0;
        for (auto end = pending.find('\n'); end != std::string::npos;
             end = pending.find('\n', start)) {
            // An empty line is no message: the kernel does not hand over a write of nothing.
            if (end > start) sender.send(std::string_view(pending).substr(start, end - start));
            start = end + 1;
        }
        pending.erase(0, start);
        if (n == 0) break;
        if (pending.size() > kMaxLine) {
            fail(kError, shown + ": a line is longer than " + human_size(kMaxLine));
        }
    }
    if (!pending.empty()) sender.send(pending);
}

// Publishing where nobody can subscribe is a mistake; where nobody does, it may be.
void look_at_topic(const Globals& globals, const Channel& channel) {
    std::string type = channel.setting("type");
    if (!type.empty() && type != "topic" && type != "multicast") {
        fail(kError, channel.shown() + " is no topic, its type is " + type +
                         "; a message is sent there with: ipcfs send " + channel.shown());
    }
    bool none = find(read_status(channel), "subscribers") == "0";
    if (none && !globals.quiet && ::isatty(STDERR_FILENO) == 1) {
        std::fprintf(stderr, "ipcfs: %s has no subscribers now\n", channel.shown().c_str());
    }
}

}  // namespace

int send(const Globals& globals, const SendOptions& options) {
    if (!options.messages.empty() && (options.lines || !options.file.empty())) {
        fail(kUsage, "a MESSAGE cannot be given together with --lines or --file");
    }
    Tree tree(globals.mount);
    Channel channel = tree.channel(options.channel);
    if (options.publish) look_at_topic(globals, channel);
    Sender sender(channel, options);
    bool from_input = options.messages.empty() ||
                      (options.messages.size() == 1 && options.messages.front() == "-");
    if (from_input) {
        bool file = !options.file.empty() && options.file != "-";
        std::string shown = file ? escape_controls(options.file) : "standard input";
        Fd opened = file ? open_or_fail(options.file, O_RDONLY, shown) : Fd();
        int source = file ? opened.get() : STDIN_FILENO;
        if (options.lines) {
            send_lines(sender, source, shown);
        } else {
            sender.send_all(source, shown);
        }
    }
    for (const std::string& message : options.messages) {
        if (!from_input) sender.send(message);
    }
    if (globals.json) {
        Pairs result{{"channel", channel.name}, {"sent", std::to_string(sender.sent())}};
        print(Json().object(result).take());
    }
    return kOk;
}

}  // namespace ipcfs::client
