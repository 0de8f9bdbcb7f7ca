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
    "  ipcfs recv jobs --timeout 10s\n\n"
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
    make->add_option("-t,--type", line.make.type, "Its type: queue (default) or sync")
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
                                "  ipcfs ctl jobs pause 30s\n"
                                "  ipcfs ctl jobs purge\n"
                                "  ipcfs ctl video revoke share/frames");
    ctl->add_option("channel", line.control.channel, "The channel")
        ->required()
        ->type_name("CHANNEL");
    ctl->add_option("words", line.control.words,
                    "Nothing: show all. KEY: show one. KEY VALUE...: set, all or none of them.\n"
                    "Or a command: purge, pause [DURATION], resume, revoke share/NAME")
        ->type_name("");
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
    CLI::Option* lines = send->add_flag("-l,--lines", line.send.lines,
                                        "One message a line of standard input or of --file");
    send->add_option("-f,--file", line.send.file, "Read the message from this file")
        ->type_name("FILE");
    add_duration(send, "-t,--timeout", line.send.timeout,
                 "Wait at most so long for room, for each message; then exit 3");
    (void)lines;

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
    for (CLI::App* reader : {recv, follow}) {
        CLI::Option* nul = reader->add_flag("-0,--null", line.nul, "End each message with a NUL");
        reader
            ->add_flag("--newline", line.newline, "End each message with a newline, if it has none")
            ->excludes(nul);
        reader
            ->add_option("-o,--output", line.receive.output,
                         "Write the messages into this file, one after the other")
            ->type_name("FILE");
    }
    CLI::App* peek = add_command(app, "peek", "Show what is queued, without taking it",
                                 "  ipcfs peek jobs\n  ipcfs peek jobs --json");
    peek->add_option("channel", line.channel, "The channel")->required()->type_name("CHANNEL");
}

int dispatch(const std::string& command, CommandLine& line) {
    const Globals& globals = line.globals;
    line.receive.ending = line.nul ? Ending::kNul : line.newline ? Ending::kNewline : Ending::kAsIs;
    line.receive.follow = command == "follow";
    line.down.timeout = line.down_timeout.value_or(line.down.timeout);
    if (command == "up") return up(globals, line.up);
    if (command == "down") return down(globals, line.down);
    if (command == "version") return version(globals);
    if (command == "doctor") return doctor(globals);
    if (command == "status") return status(globals, line.channel);
    if (command == "ls") return list(globals, line.list);
    if (command == "mkdir") return make(globals, line.make);
    if (command == "rm") return remove(globals, line.remove);
    if (command == "send") return send(globals, line.send);
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
