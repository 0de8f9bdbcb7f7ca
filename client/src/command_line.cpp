// Parses the command line and prints the help, with CLI11; the only file that includes it. One thread.
#include <array>
#include <cstdio>
#include <iostream>
#include <type_traits>

#include <CLI/CLI.hpp>
#include <command_line.hpp>
#include <failure.hpp>
#include <io.hpp>
#include <settings.hpp>
#include <text.hpp>

namespace ipcfs::client {
namespace {

constexpr const char* kFooter =
    "A CHANNEL is a name such as `jobs` or `a/b`, or a path such as `/ipc/jobs`.\n"
    "Durations: 500ms, 30s, 5m, 1h; a plain number means seconds.\n"
    "Exit codes: 0 done, 1 error, 2 wrong usage, 3 no message in time, or it would have to wait,\n"
    "4 the channel or the daemon is gone, 130 interrupted.\n\n"
    "Examples:\n"
    "  ipcfs up\n"
    "  ipcfs mkdir jobs\n"
    "  ipcfs send jobs build\n"
    "  ipcfs recv jobs --timeout 10s\n"
    "  ipcfs work jobs -j 4 -- ./build.sh\n"
    "  ipcfs pub logs 'disk is full'\n\n"
    "\"ipcfs COMMAND --help\" and ipcfs(1) explain each command.";

constexpr std::array<const char*, 5> kHeadings{"The daemon and its tree", "Channels", "Messages",
                                               "Topics", "Leases and dead letters"};

using Numbers = std::vector<int>;

// Adds a parameter with a value of type T; the option takes it by add_option.
template <class T>
CLI::Option* add_value(CLI::App& app, const Parameter& parameter, T& target) {
    const auto [least, most] = parameter.range;
    if constexpr (std::is_same_v<T, std::optional<std::int64_t>>) {
        auto parse = [&target](const std::string& text) {
            target = parse_duration(text);
            if (!target)
                throw CLI::ValidationError(text + " is not a duration such as 500ms, 30s or 5m");
        };
        return app.add_option_function<std::string>(parameter.names, parse, parameter.help);
    } else if constexpr (std::is_same_v<T, bool>) {
        return app.add_flag(parameter.names, target, parameter.help);
    } else {
        if constexpr (std::is_same_v<T, std::string>) {
            if (parameter.is_flag()) return app.add_flag(parameter.names, target, parameter.help);
        }
        CLI::Option* option = app.add_option(parameter.names, target, parameter.help);
        if constexpr (std::is_same_v<T, Numbers>) option->delimiter(',');
        // A repeatable option takes one value each time; an operand takes all remaining ones.
        if constexpr (std::is_same_v<T, Numbers> || std::is_same_v<T, std::vector<std::string>>) {
            if (!parameter.is_operand()) option->allow_extra_args(false);
        }
        if constexpr (std::is_same_v<T, Numbers> || std::is_same_v<T, unsigned>) {
            if (most != 0) option->check(CLI::Range(least, most));
        }
        return option;
    }
}

void add(CLI::App& app, const Parameter& parameter) {
    CLI::Option* option = std::visit(
        [&](auto* target) { return add_value(app, parameter, *target); }, parameter.target);
    if (!std::holds_alternative<bool*>(parameter.target)) option->type_name(parameter.type);
    option->required(parameter.required);
    for (const std::string& other : parameter.excluded) option->excludes(app.get_option(other));
}

void add(CLI::App& app, const Command& command) {
    CLI::App* sub = app.add_subcommand(command.name, command.help);
    sub->group(kHeadings[static_cast<std::size_t>(command.group)]);
    sub->footer(std::string("Also --mount DIR, --json, -q (see ipcfs --help).\n\nExamples:\n") +
                command.examples);
    sub->fallthrough();
    for (const Parameter& parameter : command.parameters()) add(*sub, parameter);
}

Invocation refuse(const CLI::App& app, const CLI::ParseError& error,
                  const std::vector<Command*>& commands, const Globals& globals) {
    auto chosen = app.get_subcommands();
    if (error.get_exit_code() == 0) {
        app.exit(error);
        std::cout.flush();
        for (const Command* each : commands) {
            if (!chosen.empty() && chosen.front()->get_name() == each->name &&
                each->lists_settings) {
                print(settings_help(globals.mount));
            }
        }
        return {};
    }
    std::string help = chosen.empty() ? "ipcfs" : "ipcfs " + chosen.front()->get_name();
    bool unknown = chosen.empty() && !app.remaining().empty();
    std::string what = unknown ? "unknown command " + app.remaining().front() : error.what();
    std::fprintf(stderr, "ipcfs: %s\nTry: %s --help\n", escape_controls(what).c_str(),
                 help.c_str());
    return {nullptr, kUsage};
}

}  // namespace

Invocation parse(int argc, char** argv, const std::vector<Command*>& commands, Globals& globals) {
    CLI::App app("Inter-process communication as a file system", "ipcfs");
    app.require_subcommand(0, 1);
    app.footer(kFooter);
    app.set_help_all_flag("--help-all", "Help on every command");
    app.set_version_flag("--version", std::string("ipcfs ") + IPCFS_VERSION);
    app.add_option(
           "--mount", globals.mount,
           "Mount point of the tree (default: $IPCFS_MOUNT, else /ipc, else this user's own)")
        ->type_name("DIR");
    app.add_flag("--json", globals.json, "Print JSON for programs");
    app.add_flag("-q,--quiet", globals.quiet, "Print only errors");
    for (const Command* command : commands) add(app, *command);
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return refuse(app, error, commands, globals);
    }
    for (Command* command : commands) {
        if (app.got_subcommand(command->name)) return {command, kOk};
    }
    std::fputs(app.help().c_str(), stderr);
    return {nullptr, kUsage};
}

}  // namespace ipcfs::client
