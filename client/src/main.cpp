// `ipcfs`: the command. Reads the command line and calls one subcommand; the only file that
// includes CLI11.
#include <cstdio>

#include <CLI/CLI.hpp>
#include <commands.hpp>
#include <failure.hpp>
#include <io.hpp>
#include <text.hpp>

namespace ipcfs::client {
namespace {

constexpr const char* kFooter =
    "A CHANNEL is a name as `jobs` or `a/b`, or a path as `/ipc/jobs`. Durations: 500ms, 30s, 5m, "
    "1h;\n"
    "a plain number counts seconds.\n"
    "Exit codes: 0 done, 1 error, 2 wrong usage, 3 no message in time or it would have to wait,\n"
    "4 the channel or the daemon is gone, 130 interrupted.\n\n"
    "Examples:\n"
    "  ipcfs up\n"
    "  ipcfs mkdir jobs\n"
    "  ipcfs send jobs build\n"
    "  ipcfs recv jobs --timeout 10s\n"
    "  ipcfs work jobs -j 4 -- ./build.sh\n"
    "  ipcfs pub logs 'disk is full'\n\n"
    "\"ipcfs COMMAND --help\" explains each command; so does ipcfs(1).";

CLI::Option* add_duration(CLI::App* app, const std::string& names,
                          std::optional<std::int64_t>& target, const std::string& help) {
    auto parse = [&target](const std::string& text) {
        target = parse_duration(text);
        if (!target) throw CLI::ValidationError(text + " is not a duration (as 500ms, 30s, 5m)");
    };
    return app->add_option_function<std::string>(names, parse, help)->type_name("DURATION");
}

CLI::App* add_command(CLI::App& app, const std::string& name, const std::string& help,
                      const std::string& examples) {
    CLI::App* command = app.add_subcommand(name, help);
    command->footer("Also --mount DIR, --json, -q (see ipcfs --help).\n\nExamples:\n" + examples);
    command->fallthrough();
    return command;
}

struct CommandLine {
    Globals globals;
    UpOptions up;
    DownOptions down;
    std::optional<std::int64_t> down_timeout;
    std::string channel;
    ListOptions list;
    MakeOptions make;
    RemoveOptions remove;
    SendOptions send;
    ReceiveOptions receive;
    std::optional<std::uint64_t> subscribe_count;
    SubscribeOptions subscribe;
    LeaseOptions lease;
    std::optional<std::int64_t> delay;
    std::string nack;
    bool bury = false;
    bool acknowledge = false;
    DeadOptions dead;
    WorkOptions work;
    bool once = false;
    bool nul = false;
    bool newline = false;
    ControlOptions control;
    StatsOptions stats;
    MapsOptions maps;
};

void declare_service(CLI::App& app, CommandLine& line) {
    CLI::App* up = add_command(app, "up", "Start the daemon and mount the tree; fine if it runs",
                               "  ipcfs up\n"
                               "  ipcfs --mount ~/ipc up\n"
                               "  ipcfs up -- --config /etc/ipcfs.toml");
    up->add_option("options", line.up.daemon_options, "Options for ipcfsd(8), after \"--\"")
        ->type_name("");
    CLI::App* down = add_command(app, "down", "Stop the daemon, and clean up a dead mount",
                                 "  ipcfs down\n  ipcfs --mount ~/ipc down --timeout 30s");
    add_duration(down, "-t,--timeout", line.down_timeout, "How long it may take (default 5s)");
    add_command(app, "version", "Versions of this command and of the daemon",
                "  ipcfs version\n  ipcfs version --json");
    add_command(app, "doctor", "Look at what this machine offers and say what to do about it",
                "  ipcfs doctor\n  ipcfs doctor --json | python3 -m json.tool");
    CLI::App* status =
        add_command(app, "status", "How a channel, or the whole tree, is doing",
                    "  ipcfs status\n  ipcfs status jobs\n  ipcfs status jobs --json");
    status->add_option("channel", line.channel, "The channel; without it the whole tree")
        ->type_name("CHANNEL");
    CLI::App* stats = add_command(app, "stats", "Statistics of the tree or of a channel",
                                  "  ipcfs stats\n  ipcfs stats resources\n"
                                  "  ipcfs stats jobs --watch 1");
    stats
        ->add_option("subject", line.stats.subject,
                     "messages (default), channels, mappings, notifications, resources;\n"
                     "or a channel")
        ->type_name("SUBJECT");
    add_duration(stats, "-w,--watch", line.stats.watch, "Show it again and again, so often");
    CLI::App* maps = add_command(app, "maps", "Who holds large payloads, pools and shared regions",
                                 "  ipcfs maps\n  ipcfs maps video --all\n"
                                 "  sudo ipcfs maps --json     # root sees into every process");
    maps->add_option("channel", line.maps.channel, "Only what is below it")->type_name("CHANNEL");
    maps->add_flag("-a,--all", line.maps.all, "Also what nobody has open or mapped");
}

void declare_channels(CLI::App& app, CommandLine& line) {
    CLI::App* ls = add_command(app, "ls", "List channels", "  ipcfs ls\n  ipcfs ls -lR jobs");
    ls->add_option("channel", line.list.channel, "List what is below it")->type_name("CHANNEL");
    ls->add_flag("-l,--long", line.list.details, "With owner, mode, readers and writers");
    ls->add_flag("-R,--recursive", line.list.recursive, "Sub-channels too");
    CLI::App* make =
        add_command(app, "mkdir", "Make channels",
                    "  ipcfs mkdir jobs\n"
                    "  ipcfs mkdir -p build/linux/x86 -m 770\n"
                    "  ipcfs mkdir ticks --set capacity=10 --set overflow=drop-oldest\n"
                    "  ipcfs mkdir handover --type sync");
    make->add_option("channel", line.make.channels, "The channels")
        ->required()
        ->type_name("CHANNEL");
    make->add_flag("-p,--parents", line.make.parents, "Make parents as needed; fine if it exists");
    make->add_option("-m,--mode", line.make.mode, "Permissions, octal, as of mkdir(1)")
        ->type_name("MODE");
    make->add_option("-t,--type", line.make.type,
                     "Its type: queue (default), sync, batch, topic, multicast or stream")
        ->type_name("TYPE");
    make->add_option("-s,--set", line.make.settings, "A setting (see ipcfs ctl); may be repeated")
        ->type_name("KEY=VALUE")
        ->allow_extra_args(false);
    CLI::App* rm = add_command(app, "rm", "Remove channels that are empty",
                               "  ipcfs rm jobs\n  ipcfs rm -rf build");
    rm->add_option("channel", line.remove.channels, "The channels")
        ->required()
        ->type_name("CHANNEL");
    rm->add_flag("-r,--recursive", line.remove.recursive, "Sub-channels first, deepest first");
    rm->add_flag("-f,--force", line.remove.force,
                 "Throw away the messages and shared regions that are left; no error if\n"
                 "there is no such channel");
    CLI::App* ctl = add_command(app, "ctl", "Show or change settings; purge, pause, resume",
                                "  ipcfs ctl jobs\n"
                                "  ipcfs ctl jobs capacity\n"
                                "  ipcfs ctl jobs capacity 5000 overflow reject\n"
                                "  ipcfs ctl jobs durable sync\n"
                                "  ipcfs ctl ticks batch 64 5ms\n"
                                "  ipcfs ctl jobs pause 30s\n"
                                "  ipcfs ctl jobs purge\n"
                                "  ipcfs ctl video revoke share/frames");
    ctl->add_option("channel", line.control.channel, "The channel")
        ->required()
        ->type_name("CHANNEL");
    ctl->add_option("words", line.control.words,
                    "Nothing: show all. KEY: show one. KEY VALUE...: set, all or none of them.\n"
                    "Or a command: purge, pause [DURATION], resume, redrive, revoke share/NAME")
        ->type_name("");
}

void add_send_options(CLI::App* send, CommandLine& line) {
    send->add_option("channel", line.send.channel, "The channel")->required()->type_name("CHANNEL");
    send->add_option("message", line.send.messages,
                     "Each is one message; none, or -: all of standard input is one")
        ->type_name("MESSAGE");
    send->add_option("-p,--priority", line.send.priority, "critical, high, normal, low or 0..255")
        ->type_name("PRIORITY");
    add_duration(send, "--ttl", line.send.ttl, "Not delivered after so long");
    send->add_option("--type", line.send.type,
                     "data (default), event, request, response, error, control;\n"
                     "or a content type as text/plain")
        ->type_name("TYPE");
    send->add_flag("-l,--lines", line.send.lines,
                   "One message a line of standard input or of --file");
    send->add_option("-f,--file", line.send.file, "Read the message from this file")
        ->type_name("FILE");
    add_duration(send, "-t,--timeout", line.send.timeout,
                 "Wait at most so long for room, for each message; then exit 3");
    send->add_option("--method", line.send.method, "What it asks for; filters can look at it")
        ->type_name("NAME");
}

void add_print_options(CLI::App* reader, CommandLine& line, PrintOptions& print) {
    CLI::Option* nul = reader->add_flag("-0,--null", line.nul, "End each message with a NUL");
    reader->add_flag("--newline", line.newline, "End each message with a newline, if it has none")
        ->excludes(nul);
    reader
        ->add_option("-o,--output", print.output,
                     "Write the messages into this file, one after the other")
        ->type_name("FILE");
}

void add_channel(CLI::App* command, std::string& target, const std::string& help) {
    command->add_option("channel", target, help)->required()->type_name("CHANNEL");
}

void declare_messages(CLI::App& app, CommandLine& line) {
    CLI::App* send =
        add_command(app, "send", "Send messages; waits while the channel is full",
                    "  ipcfs send jobs build\n"
                    "  ipcfs send jobs first second        # two messages\n"
                    "  date | ipcfs send jobs              # standard input is one message\n"
                    "  seq 1000 | ipcfs send jobs --lines  # one message a line\n"
                    "  ipcfs send jobs --file film.mkv     # of any size up to max-payload\n"
                    "  ipcfs send jobs -p critical stop\n"
                    "  ipcfs send jobs --ttl 30s --type text/plain 'worthless soon'\n"
                    "  ipcfs send jobs --timeout 0 build   # exit 3 instead of waiting");
    add_send_options(send, line);

    CLI::App* recv =
        add_command(app, "recv", "Receive messages; waits for one by default",
                    "  job=$(ipcfs recv jobs)\n"
                    "  ipcfs recv jobs --timeout 10s || echo nothing\n"
                    "  ipcfs recv jobs -n 0               # what is there, without waiting\n"
                    "  ipcfs recv jobs -n 5 -0 | xargs -0 -n1 echo\n"
                    "  ipcfs recv jobs --output film.mkv\n"
                    "  ipcfs recv jobs --json");
    recv->add_option("channel", line.receive.channel, "The channel")
        ->required()
        ->type_name("CHANNEL");
    recv->add_option("-n,--count", line.receive.count, "So many messages; 0: what is there now")
        ->type_name("N");
    add_duration(recv, "-t,--timeout", line.receive.timeout,
                 "Wait at most so long for each message; then exit 3");
    CLI::App* follow = add_command(app, "follow", "Print messages as they come, for ever",
                                   "  ipcfs follow jobs\n  ipcfs follow jobs --json");
    follow->add_option("channel", line.receive.channel, "The channel")
        ->required()
        ->type_name("CHANNEL");
    for (CLI::App* reader : {recv, follow}) add_print_options(reader, line, line.receive.print);
    CLI::App* peek = add_command(app, "peek", "Show what is queued, without taking it",
                                 "  ipcfs peek jobs\n  ipcfs peek jobs --json");
    peek->add_option("channel", line.channel, "The channel")->required()->type_name("CHANNEL");
}

void declare_topics(CLI::App& app, CommandLine& line) {
    CLI::App* pub =
        add_command(app, "pub", "Publish to a topic: every subscription that wants it gets it",
                    "  ipcfs mkdir logs --type topic\n"
                    "  ipcfs pub logs 'disk is full' -p high\n"
                    "  journalctl -f | ipcfs pub logs --lines\n"
                    "  ipcfs pub orders --group eu,us 'order 17'   # type multicast\n"
                    "  ipcfs pub logs --method rotate ''");
    add_send_options(pub, line);
    pub->add_option("-g,--group", line.send.group,
                    "On type multicast: the subscriptions that name this group")
        ->type_name("GROUP");
    CLI::App* sub = add_command(
        app, "sub", "Subscribe to a topic, and print what is published",
        "  ipcfs sub logs                        # from now on, until Ctrl-C\n"
        "  ipcfs sub logs --name alice --create  # lasts: nothing is missed between two calls\n"
        "  ipcfs sub logs --name alice -n 0      # what came meanwhile\n"
        "  ipcfs sub logs --name pager --create --filter 'priority high-critical' -n 0\n"
        "  ipcfs sub logs --name all --create --recursive   # logs/web, logs/db ... too\n"
        "  ipcfs sub logs --list\n"
        "  ipcfs sub logs --name alice --remove\n"
        "  ipcfs work logs/subs/pager -- ./page-me          # a subscription is a queue");
    add_channel(sub, line.receive.channel, "The topic");
    sub->add_option("--name", line.subscribe.name, "A subscription that lasts: TOPIC/subs/NAME")
        ->type_name("NAME");
    sub->add_flag("-c,--create", line.subscribe.create, "Make it unless it is there");
    sub->add_option(
           "-f,--filter", line.subscribe.filter,
           "What it is to get, a condition each (all must hold), as: priority high-critical,\n"
           "type event, method GLOB, sender user NAME, prefix TEXT, regex RE, channel GLOB,\n"
           "group NAME; '' is everything. Replaces the filter it has")
        ->type_name("CONDITION")
        ->allow_extra_args(false);
    sub->add_flag("-R,--recursive", line.subscribe.recursive,
                  "Also what is published to topics below this one");
    sub->add_option("-m,--mode", line.subscribe.mode, "With --create: permissions, octal")
        ->type_name("MODE");
    sub->add_flag("--remove", line.subscribe.remove, "Remove it; it has to be empty");
    sub->add_flag("--list", line.subscribe.list, "List the subscriptions that last");
    sub->add_option("-n,--count", line.subscribe_count,
                    "End after so many messages; 0: what is there now")
        ->type_name("N");
    add_duration(sub, "-t,--timeout", line.receive.timeout,
                 "Wait at most so long for each message; then exit 3");
    add_print_options(sub, line, line.receive.print);
}

void declare_lease(CLI::App& app, CommandLine& line) {
    CLI::App* lease = add_command(
        app, "lease", "Take one message on trial, print it, and say what becomes of it",
        "  ipcfs lease jobs                     # printed, then acknowledged\n"
        "  ipcfs lease jobs --nack              # a look: it goes back to the front\n"
        "  ipcfs lease jobs --nack=30s          # and comes again in 30 s\n"
        "  ipcfs lease jobs --dead              # into dead/\n"
        "  ipcfs lease jobs --hold 5m           # mine for 5 minutes; Ctrl-C gives it back\n"
        "  ipcfs lease jobs --command 'grep -q ok'   # ack if that succeeds");
    add_channel(lease, line.lease.channel, "The channel, or TOPIC/subs/NAME");
    CLI::Option* ack =
        lease->add_flag("--ack", line.acknowledge, "Acknowledge it when it is printed (default)");
    CLI::Option* nack = lease
                            ->add_flag("--nack{0}", line.nack,
                                       "Give it back when it is printed, at once or after DELAY")
                            ->type_name("[=DELAY]")
                            ->excludes(ack);
    CLI::Option* bury = lease->add_flag("--dead", line.bury, "Make it a dead letter")
                            ->excludes(ack)
                            ->excludes(nack);
    add_duration(lease, "--hold", line.lease.hold, "Keep it so long before that is done");
    lease
        ->add_option("--command", line.lease.command,
                     "Run this by sh(1) with the message as standard input; acknowledge it if it\n"
                     "succeeds, else give it back")
        ->type_name("COMMAND")
        ->excludes(ack)
        ->excludes(nack)
        ->excludes(bury);
    add_duration(lease, "-t,--timeout", line.lease.timeout,
                 "Wait at most so long for a message; then exit 3");
    add_print_options(lease, line, line.lease.print);

    CLI::App* dead =
        add_command(app, "dead", "Show the messages that failed too often, or take them out",
                    "  ipcfs dead jobs\n"
                    "  ipcfs dead jobs --json\n"
                    "  ipcfs dead jobs --take -n 1 -o broken.job");
    add_channel(dead, line.dead.channel, "The channel, or TOPIC/subs/NAME");
    dead->add_flag("--take", line.dead.take, "Print them and remove them");
    dead->add_option("-n,--count", line.dead.count, "With --take: at most so many")->type_name("N");
    add_print_options(dead, line, line.dead.print);
    CLI::App* redrive = add_command(app, "redrive", "Give all dead letters another chance",
                                    "  ipcfs redrive jobs\n  ipcfs redrive logs/subs/alice");
    add_channel(redrive, line.channel, "The channel, or TOPIC/subs/NAME");

    CLI::App* work = add_command(
        app, "work", "Run a command for each message; exit 0 acknowledges, else it comes again",
        "  ipcfs work jobs -- ./build.sh\n"
        "  ipcfs work jobs -j 4 --retry-delay 10s -- sh -c 'curl -sf -d @- http://host/in'\n"
        "  ipcfs work jobs --drain -- wc -c       # what is there, then end\n"
        "  ipcfs work logs/subs/pager --limit 1m --dead-on 65 -- ./page-me\n\n"
        "The message is the command's standard input. Its environment has IPCFS_MOUNT, _CHANNEL,\n"
        "_PATH, _SEQUENCE, _ID, _CORRELATION, _PRIORITY, _TYPE, _REDELIVERED, _TIME, _DEADLINE,\n"
        "_SENDER_PID, _SENDER_UID, _SENDER_GID, and where there is one _METHOD, _CONTENT_TYPE, "
        "_GROUP.\n"
        "The first Ctrl-C or SIGTERM takes no more and lets the running commands finish; the "
        "second\n"
        "stops them. Exit codes: 0 done, or ended by SIGTERM; 1 with -n, --once, --drain: a "
        "command\n"
        "failed; 3 no message in time.");
    add_channel(work, line.work.channel, "The channel, or TOPIC/subs/NAME");
    work->add_option("command", line.work.command, "The command and its arguments, after \"--\"")
        ->required()
        ->type_name("COMMAND");
    work->add_option("-j,--jobs", line.work.jobs, "So many at once (default 1)")
        ->check(CLI::Range(1U, 1024U))
        ->type_name("N");
    CLI::Option* count =
        work->add_option("-n,--count", line.work.count, "End after so many messages")
            ->type_name("N");
    work->add_flag("--once", line.once, "As -n 1")->excludes(count);
    work->add_flag("--drain", line.work.drain, "End when nothing is queued");
    add_duration(work, "-t,--timeout", line.work.timeout,
                 "Wait at most so long for a message; then exit 3");
    add_duration(work, "--limit", line.work.limit, "Stop a command that runs longer");
    add_duration(work, "--retry-delay", line.delay,
                 "A message that failed comes again after so long");
    work->add_option("--dead-on", line.work.dead_on,
                     "Exit codes that say it never will work: straight into dead/")
        ->delimiter(',')
        ->allow_extra_args(false)
        ->check(CLI::Range(1, 255))
        ->type_name("CODE");
}

// What CLI11 leaves to be put together.
void complete(const std::string& command, CommandLine& line) {
    Ending ending = line.nul ? Ending::kNul : line.newline ? Ending::kNewline : Ending::kAsIs;
    line.receive.print.ending = line.lease.print.ending = line.dead.print.ending = ending;
    line.receive.follow = command == "follow" || (command == "sub" && !line.subscribe_count);
    if (line.subscribe_count) line.receive.count = *line.subscribe_count;
    line.down.timeout = line.down_timeout.value_or(line.down.timeout);
    line.send.publish = command == "pub";
    line.subscribe.set_filter = !line.subscribe.filter.empty();
    if (line.bury) line.lease.after = LeaseOptions::After::kDead;
    if (!line.nack.empty()) {
        auto delay = parse_duration(line.nack);
        if (!delay) fail(kUsage, escape_controls(line.nack) + " is not a duration");
        line.lease.after = LeaseOptions::After::kNack;
        line.lease.delay = *delay;
    }
    line.work.retry_delay = line.delay.value_or(0);
    if (line.once) line.work.count = 1;
}

int dispatch(const std::string& command, CommandLine& line) {
    const Globals& globals = line.globals;
    complete(command, line);
    if (command == "up") return up(globals, line.up);
    if (command == "down") return down(globals, line.down);
    if (command == "version") return version(globals);
    if (command == "doctor") return doctor(globals);
    if (command == "status") return status(globals, line.channel);
    if (command == "ls") return list(globals, line.list);
    if (command == "mkdir") return make(globals, line.make);
    if (command == "rm") return remove(globals, line.remove);
    if (command == "send" || command == "pub") return send(globals, line.send);
    if (command == "sub") return subscribe(globals, line.receive, line.subscribe);
    if (command == "lease") return lease(globals, line.lease);
    if (command == "dead") return dead(globals, line.dead);
    if (command == "redrive") return redrive(globals, line.channel);
    if (command == "work") return work(globals, line.work);
    if (command == "peek") return peek(globals, line.channel);
    if (command == "ctl") return control(globals, line.control);
    if (command == "stats") return stats(globals, line.stats);
    if (command == "maps") return maps(globals, line.maps);
    return receive(globals, line.receive);
}

int run(int argc, char** argv) {
    CLI::App app("Inter-process communication as a file system", "ipcfs");
    CommandLine line;
    app.require_subcommand(0, 1);
    app.footer(kFooter);
    app.set_help_all_flag("--help-all", "Help on every command");
    app.set_version_flag("--version", std::string("ipcfs ") + IPCFS_VERSION);
    app.add_option("--mount", line.globals.mount,
                   "Where the tree is (default: $IPCFS_MOUNT, else /ipc, else this user's own)")
        ->type_name("DIR");
    app.add_flag("--json", line.globals.json, "Output for programs");
    app.add_flag("-q,--quiet", line.globals.quiet, "No progress, no remarks; errors only");
    declare_service(app, line);
    declare_channels(app, line);
    declare_messages(app, line);
    declare_topics(app, line);
    declare_lease(app, line);
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        if (error.get_exit_code() == 0) return app.exit(error);
        auto chosen = app.get_subcommands();
        std::string help = chosen.empty() ? "ipcfs" : "ipcfs " + chosen.front()->get_name();
        bool unknown = chosen.empty() && !app.remaining().empty();
        std::string what =
            unknown ? "there is no command " + app.remaining().front() : error.what();
        std::fprintf(stderr, "ipcfs: %s\nTry: %s --help\n", escape_controls(what).c_str(),
                     help.c_str());
        return kUsage;
    }
    if (app.get_subcommands().empty()) {
        std::fputs(app.help().c_str(), stderr);
        return kUsage;
    }
    set_up_terminal(line.globals.quiet);
    try {
        return dispatch(app.get_subcommands().front()->get_name(), line);
    } catch (const Failure& failure) {
        clear_progress();
        std::fprintf(stderr, "ipcfs: %s\n", failure.text.c_str());
        return failure.code;
    } catch (const std::exception& error) {
        clear_progress();
        std::fprintf(stderr, "ipcfs: %s\n", error.what());
        return kError;
    }
}

}  // namespace
}  // namespace ipcfs::client

int main(int argc, char** argv) {
    return ipcfs::client::run(argc, argv);
}
