// The subcommands: what each was asked to do, filled in by main() from the command line, and the
// function that does it. Each returns the exit code, or ends in a Failure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace ipcfs::client {

struct Globals {
    std::string mount;  // empty: choose_root decides
    bool json = false;
    bool quiet = false;
};

struct UpOptions {
    std::vector<std::string> daemon_options;
};
struct DownOptions {
    std::int64_t timeout = 5'000'000'000;
};
struct ListOptions {
    std::string channel;
    bool details = false;
    bool recursive = false;
};
struct MakeOptions {
    std::vector<std::string> channels;
    bool parents = false;
    std::string mode;
    std::string type;
    std::vector<std::string> settings;  // key=value
};
struct RemoveOptions {
    std::vector<std::string> channels;
    bool recursive = false;
    bool force = false;
};
struct SendOptions {
    std::string channel;
    std::vector<std::string> messages;
    std::string priority;
    std::string type;  // a frame type, or a media type when it has a slash
    std::string file;
    bool lines = false;
    std::optional<std::int64_t> ttl;
    std::optional<std::int64_t> timeout;
};
enum class Ending { kAsIs, kNewline, kNul };
struct ReceiveOptions {
    std::string channel;
    std::uint64_t count = 1;  // 0: what is there
    std::optional<std::int64_t> timeout;
    Ending ending = Ending::kAsIs;
    bool follow = false;  // count and timeout do not matter
    std::string output;   // a file in place of standard output
};
struct ControlOptions {
    std::string channel;
    std::vector<std::string> words;
};
struct MapsOptions {
    std::string channel;
    bool all = false;
};
struct StatsOptions {
    std::string subject;
    std::optional<std::int64_t> watch;
};

int up(const Globals&, const UpOptions&);
int down(const Globals&, const DownOptions&);
int version(const Globals&);
int doctor(const Globals&);
int status(const Globals&, const std::string& channel);
int list(const Globals&, const ListOptions&);
int make(const Globals&, const MakeOptions&);
int remove(const Globals&, const RemoveOptions&);
int send(const Globals&, const SendOptions&);
int receive(const Globals&, const ReceiveOptions&);
int peek(const Globals&, const std::string& channel);
int control(const Globals&, const ControlOptions&);
int stats(const Globals&, const StatsOptions&);
int maps(const Globals&, const MapsOptions&);

}  // namespace ipcfs::client
