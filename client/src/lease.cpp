// `ipcfs lease`, `dead` and `redrive`: one leased message, and dead letters. One thread.
#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <string>

#include <command.hpp>
#include <failure.hpp>
#include <io.hpp>
#include <json.hpp>
#include <message_reader.hpp>
#include <printer.hpp>
#include <show.hpp>
#include <text.hpp>
#include <tree.hpp>
#include <work.hpp>

#include <ipcfs/wait.hpp>

namespace ipcfs::client {
namespace {

struct LeaseOptions {
    std::string channel;
    bool acknowledge = false;
    std::string nack;  // the delay
    bool dead = false;
    std::optional<std::int64_t> timeout;
    std::optional<std::int64_t> hold;
    std::string command;  // run by a shell; its exit code decides
    PrintOptions print;
};

// Ends the lease by `words`; throws a Failure if it had ended already.
void end_lease(MessageReader& lease, const Channel& channel, const std::string& words) {
    int error = lease.command(words);
    if (error == 0) return;
    if (error == ESTALE) {
        fail(kError, channel.shown() +
                         ": the lease had already ended; the message may have been "
                         "redelivered");
    }
    fail_errno(channel.shown("lease"), error);
}

// Renews the lease for `hold` ns. Ctrl-C ends the command, and with it the lease.
void keep_lease(MessageReader& lease, const Channel& channel, std::int64_t hold) {
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

std::string final_command(const LeaseOptions& options) {
    if (options.dead) return "dead";
    if (options.nack.empty()) return "ack";
    auto delay = parse_duration(options.nack);
    if (!delay) fail(kUsage, escape_controls(options.nack) + " is not a duration");
    return *delay > 0 ? with_time("nack", *delay) : "nack";
}

int lease(const Globals& globals, const LeaseOptions& options) {
    const std::string words = final_command(options);
    if (!options.command.empty()) {
        WorkOptions once;
        once.channel = options.channel;
        once.command = {"/bin/sh", "-c", options.command};
        once.count = 1;
        once.timeout = options.timeout;
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
        DeferSignals signals(deadline);
        FrameView frame;
        if (!reader.receive(signals, deadline, frame)) {
            if (signals.interrupted()) return kInterrupted;  // `signals` then obeys it
            return no_message(globals, channel, options.timeout);
        }
        printer.show(frame, true);
        // A printed message is done, even if Ctrl-C came meanwhile, unless it is to be held.
        if (!options.hold) end_lease(reader, channel, words);
    }
    if (options.hold) {
        keep_lease(reader, channel, *options.hold);
        end_lease(reader, channel, words);
    }
    return kOk;
}

Registration<LeaseOptions> g_lease(
    Group::kLeases, "lease", "Lease one message, print it, then acknowledge it or give it back",
    "  ipcfs lease jobs                     # printed, then acknowledged\n"
    "  ipcfs lease jobs --nack              # a look: it goes back to the front\n"
    "  ipcfs lease jobs --nack=30s          # and comes again in 30 s\n"
    "  ipcfs lease jobs --dead              # into dead/\n"
    "  ipcfs lease jobs --hold 5m           # mine for 5 minutes; Ctrl-C gives it back\n"
    "  ipcfs lease jobs --command 'grep -q ok'   # ack if that succeeds",
    [](Command& takes, LeaseOptions& options) {
        takes.queue(options.channel);
        takes.flag("--ack", options.acknowledge,
                   "Acknowledge the message once it is printed (default)");
        takes
            .add("--nack{0}", &options.nack, "[=DELAY]",
                 "Give the message back once it is printed; redeliver it at once or after DELAY")
            .excludes("--ack");
        takes.flag("--dead", options.dead, "Make it a dead letter")
            .excludes("--ack")
            .excludes("--nack");
        takes.add("--hold", &options.hold, "DURATION", "Hold the lease for DURATION before that");
        takes
            .add("--command", &options.command, "COMMAND",
                 "Run COMMAND by sh(1) with the message as standard input; acknowledge it on exit\n"
                 "code 0, else give it back")
            .excludes("--ack")
            .excludes("--nack")
            .excludes("--dead");
        takes.add("-t,--timeout", &options.timeout, "DURATION",
                  "Wait at most DURATION for a message, then exit 3");
        takes.printing(options.print);
    },
    lease);

struct DeadOptions {
    std::string channel;
    bool take = false;
    std::optional<std::uint64_t> count;
    PrintOptions print;
};

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
        show(globals, table);
        return kOk;
    }
    Printer printer(channel, options.print, globals.json);
    for (std::uint64_t n = 0; n < options.count.value_or(UINT64_MAX); ++n) {
        Deadline never(std::nullopt);
        DeferSignals signals(never);
        // One open file delivers one message and then ends, even if that is larger than one read.
        auto body = read_file(channel.file("dead/next"), O_NONBLOCK, SIZE_MAX);
        if (!body && errno == EAGAIN) break;
        if (!body) fail_errno(channel.shown("dead/next"), errno);
        printer.show(*body);
    }
    return kOk;
}

Registration<DeadOptions> g_dead(
    Group::kLeases, "dead", "Show the messages that failed too often, or take them out",
    "  ipcfs dead jobs\n"
    "  ipcfs dead jobs --json\n"
    "  ipcfs dead jobs --take -n 1 -o broken.job",
    [](Command& takes, DeadOptions& options) {
        takes.queue(options.channel);
        takes.flag("--take", options.take, "Print them and remove them");
        takes.add("-n,--count", &options.count, "N", "With --take: at most N");
        takes.printing(options.print);
    },
    dead);

int redrive(const Globals& globals, const ChannelOption& options) {
    Tree tree(globals.mount);
    Channel channel = tree.channel(options.channel);
    require_leases(channel);
    std::string dead(channel.find("status", "dead"));
    if (int error = write_once(channel.file("ctl"), "redrive\n"); error != 0) {
        fail_errno(channel.shown("ctl"), error);
    }
    if (dead.empty()) dead = "0";
    if (globals.json) {
        print_json(to_json(Pairs{{"channel", channel.name}, {"redriven", dead}}));
    } else if (!globals.quiet && output_is_terminal()) {
        print(dead + (dead == "1" ? " dead letter is" : " dead letters are") +
              " back in the queue of " + channel.shown() + "\n");
    }
    return kOk;
}

Registration<ChannelOption> g_redrive(
    Group::kLeases, "redrive", "Give all dead letters another chance",
    "  ipcfs redrive jobs\n  ipcfs redrive logs/subs/alice",
    [](Command& takes, ChannelOption& options) { takes.queue(options.channel); }, redrive);

}  // namespace
}  // namespace ipcfs::client
