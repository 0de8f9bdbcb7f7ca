// The command line, read as the commands declare it. One thread.
#pragma once

#include <vector>

#include <command.hpp>

namespace ipcfs::client {

// What is to be run. Without a command everything is said already: the help, or what was wrong.
struct Invocation {
    Command* command = nullptr;
    int exit = 0;
};

// Fills in the globals and the targets of the command that it finds.
Invocation parse(int argc, char** argv, const std::vector<Command*>& commands, Globals& globals);

}  // namespace ipcfs::client
