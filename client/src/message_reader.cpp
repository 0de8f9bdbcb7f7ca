// Reads messages one by one from a file of framed/. One thread.
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

MessageReader::Step MessageReader::step(std::size_t& have, FrameView& frame, int& error) {
    if (buffer_.size() < have + kRead) buffer_.resize(have + kRead);
    ssize_t n =
        detail::again_if_undone([&] { return ::read(fd_.get(), buffer_.data() + have, kRead); });
    error = n < 0 ? errno : n == 0 && have == 0 ? EPIPE : 0;
    if (error != 0) return Step::kNothing;
    have += static_cast<std::size_t>(n);
    std::size_t used = 0;
    auto wrong = decode(std::span(buffer_).first(have), frame, used);
    if (wrong == FrameError::kNone) return Step::kFrame;
    if (wrong == FrameError::kTruncated && n > 0 && have < kMaxFrame) return Step::kMore;
    fail(kError, shown_ + ": the daemon sent an invalid message: " + to_string(wrong));
}

bool MessageReader::receive(const Hold& hold, const Deadline& deadline, FrameView& frame) {
    std::size_t have = 0;
    for (;;) {
        int error = 0;
        switch (step(have, frame, error)) {
            case Step::kFrame: return true;
            case Step::kMore: continue;
            case Step::kNothing: break;
        }
        // EINTR means that nothing was taken; the rest of a message never waits.
        if (error == EINTR && (hold.interrupted() || deadline.passed())) return false;
        if (error == EINTR) continue;
        if (error == EAGAIN && have == 0) return false;
        if (error == EPIPE) fail(kGone, shown_ + " was removed");
        fail_errno(shown_, error);
    }
}

int MessageReader::try_receive(FrameView& frame) {
    std::size_t have = 0;
    for (;;) {
        int error = 0;
        Step done = step(have, frame, error);
        if (done == Step::kFrame) return 0;
        if (done == Step::kNothing && error != EINTR) return error;
    }
}

int MessageReader::command(std::string_view words) {
    for (;;) {
        ssize_t n =
            detail::again_if_undone([&] { return ::write(fd_.get(), words.data(), words.size()); });
        if (n == static_cast<ssize_t>(words.size())) return 0;
        if (n >= 0) return EIO;
        if (errno != EINTR) return errno;
    }
}

std::string with_time(std::string_view word, std::int64_t nanos) {
    return std::string(word) + " " + std::to_string(nanos) + "ns";
}

std::int64_t lease_time(const Channel& channel) {
    Pairs settings = parse_pairs(read_file(channel.file("ctl")).value_or(""));
    auto time = parse_duration(find(settings, "lease"));
    return time && *time > 0 ? *time : kDefaultLease;
}

void require_leases(const Channel& channel) {
    if (::access(channel.file("framed/lease").c_str(), F_OK) == 0 || errno != ENOENT) return;
    Pairs settings = parse_pairs(read_file(channel.file("ctl")).value_or(""));
    std::string type(find(settings, "type"));
    std::string advice;
    if (type == "topic" || type == "multicast") {
        advice = "; name a subscription of it: ipcfs sub " + channel.shown() +
                 " --name NAME --create, then " + channel.shown("subs/NAME");
    }
    fail(kError, channel.shown() + " has no leases" +
                     (type.empty() ? "" : ": its type is " + type) + advice);
}

}  // namespace ipcfs::client
