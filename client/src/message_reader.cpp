#include <cerrno>
#include <span>
#include <unistd.h>

#include <failure.hpp>
#include <message_reader.hpp>

#include <ipcfs/wait.hpp>

namespace ipcfs::client {
namespace {

constexpr std::size_t kRead = std::size_t{1} << 20;  // the largest read the kernel does not split
constexpr std::size_t kMaxFrame = std::size_t{64} << 20;
constexpr std::int64_t kDefaultLease = 30'000'000'000;

}  // namespace

MessageReader::MessageReader(const Channel& channel, std::string_view file, int flags)
    : shown_(channel.shown()), fd_(open_or_fail(channel.file(file), flags, channel.shown(file))) {}

int MessageReader::read_frame(FrameView& frame) {
    for (std::size_t have = 0;;) {
        if (buffer_.size() < have + kRead) buffer_.resize(have + kRead);
        ssize_t n = detail::retry_if_canceled(
            [&] { return ::read(fd_.get(), buffer_.data() + have, kRead); });
        if (n < 0 && errno == EINTR && have > 0) continue;  // the rest of a message never waits
        if (n < 0) return errno;
        if (n == 0 && have == 0) return EPIPE;
        have += static_cast<std::size_t>(n);
        std::size_t used = 0;
        auto wrong = decode(std::span(buffer_).first(have), frame, used);
        if (wrong == FrameError::kNone) return 0;
        if (wrong != FrameError::kTruncated || n == 0 || have >= kMaxFrame) {
            fail(kError, shown_ + ": the daemon sent an invalid message: " + to_string(wrong));
        }
    }
}

bool MessageReader::receive(const DeferSignals& signals, const Deadline& deadline,
                            FrameView& frame) {
    for (;;) {
        int error = read_frame(frame);
        if (error == 0 || error == EAGAIN) return error == 0;
        if (error == EPIPE) fail(kGone, shown_ + " was removed");
        if (error != EINTR) fail_errno(shown_, error);
        if (signals.interrupted() || deadline.passed()) return false;
    }
}

int MessageReader::try_receive(FrameView& frame) {
    int error = 0;
    do {
        error = read_frame(frame);
    } while (error == EINTR);
    return error;
}

int MessageReader::command(std::string_view words) {
    for (;;) {
        ssize_t n = detail::retry_if_canceled(
            [&] { return ::write(fd_.get(), words.data(), words.size()); });
        if (n == static_cast<ssize_t>(words.size())) return 0;
        if (n >= 0) return EIO;
        if (errno != EINTR) return errno;
    }
}

int no_message(const Globals& globals, const Channel& channel,
               const std::optional<std::int64_t>& timeout) {
    if (globals.quiet || timeout.value_or(0) == 0) return kNothing;
    fail(kNothing, channel.shown() + ": no message within " + human_duration(*timeout));
}

std::string with_time(std::string_view word, std::int64_t nanos) {
    return std::string(word) + " " + std::to_string(nanos) + "ns";
}

std::int64_t lease_time(const Channel& channel) {
    auto time = parse_duration(channel.find("ctl", "lease"));
    return time && *time > 0 ? *time : kDefaultLease;
}

void require_leases(const Channel& channel) {
    if (::access(channel.file("framed/lease").c_str(), F_OK) == 0 || errno != ENOENT) return;
    std::string type = channel.find("ctl", "type");
    std::string advice;
    if (type == "topic" || type == "multicast") {
        advice = "; name a subscription of it: ipcfs sub " + channel.shown() +
                 " --name NAME --create, then " + channel.shown("subs/NAME");
    }
    fail(kError, channel.shown() + " has no leases" +
                     (type.empty() ? "" : ": its type is " + type) + advice);
}

}  // namespace ipcfs::client
