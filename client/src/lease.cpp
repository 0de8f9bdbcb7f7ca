// `ipcfs lease`, `dead` and `redrive`: one message on trial, and those that failed for good. One thread.
#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <string>

#include <commands.hpp>
#include <failure.hpp>
#include <io.hpp>
#include <json.hpp>
#include <message_reader.hpp>
#include <printer.hpp>
#include <show.hpp>
#include <text.hpp>
#include <tree.hpp>

#include <ipcfs/wait.hpp>

namespace ipcfs::client {
namespace {

// Tells what became of the message, or fails saying why that came too late.
void end_lease(MessageReader& lease, const Channel& channel, const std::string& words) {
    int error = lease.tell(words);
    if (error == 0) return;
    if (error == ESTALE) {
        fail(kError, channel.shown() +
                         ": the lease had ended before; the message may have gone to "
                         "somebody else");
    }
    fail_errno(channel.shown("lease"), error);
}

// Keeps the lease for so long, however short it is. Ctrl-C ends the command, and with it the lease.
void hold_on(MessageReader& lease, const Channel& channel, std::int64_t hold) {
    std::int64_t time = lease_time(channel);
    Deadline end(hold);
    for (;;) {
        std::int64_t left = end.left(time / 3);
        end_lease(lease, channel, with_time("extend", time));
        if (left <= 0) return;
        show_progress("holding the message for another " + human_duration(end.left(hold)) +
                      "; Ctrl-C gives it back");
        poll_one(-1, 0, std::max<std::int64_t>(left, 1'000'000));
        clear_progress();
    }
}

std::string last_words(const LeaseOptions& options) {
    switch (options.after) {
        case LeaseOptions::After::kNack:
            return options.delay > 0 ? with_time("nack", options.delay) : "nack";
        case LeaseOptions::After::kDead: return "dead";
        default: return "ack";
    }
}

int nothing_came(const Globals& globals, const Channel& channel,
                 const std::optional<std::int64_t>& timeout) {
    if (!globals.quiet && timeout.value_or(0) > 0) {
        fail(kNothing, channel.shown() + ": no message within " + human_duration(*timeout));
    }
    return kNothing;
}

// One dead letter, taken. False when there is none.
bool take_dead(const Channel& channel, std::string& body) {
    // One open file, one message, and then its end: also where the message is larger than a read.
    Fd file =
        open_or_fail(channel.file("dead/next"), O_RDONLY | O_NONBLOCK, channel.shown("dead/next"));
    constexpr std::size_t kRead = std::size_t{1} << 20;
    body.clear();
    for (bool first = true;; first = false) {
        std::size_t before = body.size();
        body.resize(before + kRead);
        ssize_t n = detail::again_if_undone(
            [&] { return ::read(file.get(), body.data() + before, kRead); });
        int error = n < 0 ? errno : 0;
        body.resize(before + static_cast<std::size_t>(std::max<ssize_t>(n, 0)));
        if (error == EAGAIN && first) return false;
        if (error != 0 && error != EINTR) fail_errno(channel.shown("dead/next"), error);
        // A message may be empty; the end of the channel cannot be told from that, and is found out
        // by the next open.
        if (n == 0) return true;
    }
}

}  // namespace

int lease(const Globals& globals, const LeaseOptions& options) {
    if (!options.command.empty()) {
        WorkOptions once;
        once.channel = options.channel;
        once.command = {"/bin/sh", "-c", options.command};
        once.count = 1;
        once.timeout = options.timeout;
        once.retry_delay = options.delay;
        once.summary = false;
        return work(globals, once);
    }
    Tree tree(globals.mount);
    Channel channel = tree.channel(options.channel);
    require_leases(channel);
    Printer printer(channel, options.print, globals.json);
    bool waits = options.timeout != 0;
    MessageReader reader(channel, "framed/lease", O_RDWR | (waits ? 0 : O_NONBLOCK));
    {
        Deadline deadline(waits ? options.timeout : std::nullopt);
        Hold hold(deadline);
        FrameView frame;
        if (!reader.receive(hold, deadline, frame)) {
            if (hold.interrupted()) return kInterrupted;  // by the signal itself, when `hold` goes
            return nothing_came(globals, channel, options.timeout);
        }
        printer.show(frame, true);
        // What is printed is done, even if Ctrl-C came meanwhile; but not where it is to be held.
        if (!options.hold) end_lease(reader, channel, last_words(options));
    }
    if (options.hold) {
        hold_on(reader, channel, *options.hold);
        end_lease(reader, channel, last_words(options));
    }
    return kOk;
}

int dead(const Globals& globals, const DeadOptions& options) {
    Tree tree(globals.mount);
    Channel channel = tree.channel(options.channel);
    require_leases(channel);
    if (!options.take) {
        Table table =
            parse_table(read_file_or_fail(channel.file("dead/peek"), channel.shown("dead/peek")));
        if (table.rows.empty() && !globals.json) {
            if (!globals.quiet && output_is_terminal()) {
                print(channel.shown() + " has no dead letters\n");
            }
            return kOk;
        }
        show_table(table, globals.json);
        return kOk;
    }
    Printer printer(channel, options.print, globals.json);
    std::string body;
    for (std::uint64_t n = 0; n < options.count.value_or(UINT64_MAX); ++n) {
        Deadline never(std::nullopt);
        Hold hold(never);
        if (!take_dead(channel, body)) break;
        printer.show(body);
    }
    return kOk;
}

int redrive(const Globals& globals, const std::string& name) {
    Tree tree(globals.mount);
    Channel channel = tree.channel(name);
    require_leases(channel);
    std::string dead(find(read_status(channel), "dead"));
    if (int error = write_once(channel.file("ctl"), "redrive\n"); error != 0) {
        fail_errno(channel.shown("ctl"), error);
    }
    if (dead.empty()) dead = "0";
    if (globals.json) {
        print(Json().object({{"channel", channel.name}, {"redriven", dead}}).take());
    } else if (!globals.quiet && output_is_terminal()) {
        print(dead + (dead == "1" ? " dead letter is" : " dead letters are") +
              " back in the queue of " + channel.shown() + "\n");
    }
    return kOk;
}

}  // namespace ipcfs::client
