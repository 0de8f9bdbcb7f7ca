// `ipcfs`: runs the chosen subcommand and turns a Failure into an error message and an exit code.
// One thread.
#include <algorithm>
#include <cstdio>
#include <exception>
#include <string_view>
#include <tuple>

#include <command.hpp>
#include <completion.hpp>
#include <failure.hpp>
#include <io.hpp>

namespace ipcfs::client {

std::vector<Command*> Command::all() {
    std::vector<Command*> all;
    for (Command* each = first_; each != nullptr; each = each->next_) {
        if (each->parameters_.empty()) each->declare();
        all.push_back(each);
    }
    std::sort(all.begin(), all.end(), [](const Command* a, const Command* b) {
        return std::tuple(a->group, std::string_view(a->name)) <
               std::tuple(b->group, std::string_view(b->name));
    });
    return all;
}

namespace {

int run(int argc, char** argv) {
    const auto commands = Command::all();
    // Called by shell completion: the arguments are unfinished words.
    if (argc > 1 && argv[1] == std::string_view("complete")) {
        return complete(commands, {argv + 2, argv + argc});
    }
    Globals globals;
    const auto [command, exit] = parse(argc, argv, commands, globals);
    if (command == nullptr) return exit;
    set_up_terminal(globals.quiet);
    try {
        return command->run(globals);
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
