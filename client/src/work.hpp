// Processes the messages of a channel by a command. One thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <command.hpp>

namespace ipcfs::client {

struct WorkOptions {
    std::string channel;
    std::vector<std::string> command;
    unsigned jobs = 1;
    std::optional<std::uint64_t> count;  // end after this many messages
    bool once = false;                   // like a count of 1
    bool drain = false;                  // only what is queued, without waiting
    std::optional<std::int64_t> timeout;
    std::optional<std::int64_t> limit;  // the time limit of one command, ns
    std::optional<std::int64_t> retry_delay;
    std::vector<int> dead_on;  // exit codes that make a dead letter
    bool summary = true;       // with --json
};

// Returns the exit code.
int work(const Globals& globals, const WorkOptions& options);

}  // namespace ipcfs::client
