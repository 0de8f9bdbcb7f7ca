// Working on the messages of a channel by a command. One thread.
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
    std::optional<std::uint64_t> count;  // so many messages in all
    bool once = false;                   // as a count of 1
    bool drain = false;                  // what is there, without waiting
    std::optional<std::int64_t> timeout;
    std::optional<std::int64_t> limit;  // of one command's time
    std::optional<std::int64_t> retry_delay;
    std::vector<int> dead_on;  // exit codes that bury the message
    bool summary = true;       // with --json
};

// The exit code.
int work(const Globals& globals, const WorkOptions& options);

}  // namespace ipcfs::client
