// Parses the command line according to the commands' declarations. One thread.
#pragma once

#include <vector>

#include <command.hpp>

namespace ipcfs::client {

// The parsed command. If `command` is null, help or an error message has been printed.
struct Invocation {
    Command* command = nullptr;
    int exit = 0;
};

// Fills in the globals and the targets of the chosen command.
Invocation parse(int argc, char** argv, const std::vector<Command*>& commands, Globals& globals);

}  // namespace ipcfs::client
