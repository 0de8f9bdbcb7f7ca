// Shared by `recv`, `follow` and `sub`. One thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <command.hpp>
#include <printer.hpp>
#include <tree.hpp>

namespace ipcfs::client {

struct ReceiveOptions {
    std::string channel;
    std::optional<std::uint64_t> count;  // 0: what is queued; empty: for ever
    std::optional<std::int64_t> timeout;
    PrintOptions print;
};

// Prints messages of framed/stream. Returns the exit code.
int receive_from(const Globals& globals, const Channel& channel, const ReceiveOptions& options);

}  // namespace ipcfs::client
