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
    std::string method;
    std::string group;
    bool publish = false;  // `pub`: to a topic
    std::string file;
    bool lines = false;
    std::optional<std::int64_t> ttl;
    std::optional<std::int64_t> timeout;
};
enum class Ending { kAsIs, kNewline, kNul };
struct PrintOptions {
    Ending ending = Ending::kAsIs;
    std::string output;  // a file in place of standard output
};
struct ReceiveOptions {
    std::string channel;
    std::uint64_t count = 1;  // 0: what is there
    std::optional<std::int64_t> timeout;
    bool follow = false;  // for ever: count does not matter
    PrintOptions print;
};
struct SubscribeOptions {
    std::string name;  // empty: anonymous
    std::vector<std::string> filter;
    bool set_filter = false;
    bool recursive = false;
    bool create = false;
    bool remove = false;
    bool list = false;
    std::string mode;
};
struct LeaseOptions {
    enum class After { kAck, kNack, kDead };
    After after = After::kAck;
    std::string channel;
    std::optional<std::int64_t> timeout;
    std::int64_t delay = 0;  // of a nack
    std::optional<std::int64_t> hold;
    std::string command;  // for a shell, which decides in place of `after`
    PrintOptions print;
};
struct DeadOptions {
    std::string channel;
    bool take = false;
    std::optional<std::uint64_t> count;
    PrintOptions print;
};
struct WorkOptions {
    std::string channel;
    std::vector<std::string> command;
    unsigned jobs = 1;
    std::optional<std::uint64_t> count;  // so many messages in all
    bool drain = false;                  // what is there, without waiting
    std::optional<std::int64_t> timeout;
    std::optional<std::int64_t> limit;  // of one command's time
    std::int64_t retry_delay = 0;
    std::vector<int> dead_on;  // exit codes that bury the message
    bool summary = true;       // with --json
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
int subscribe(const Globals&, const ReceiveOptions&, const SubscribeOptions&);
int lease(const Globals&, const LeaseOptions&);
int dead(const Globals&, const DeadOptions&);
int redrive(const Globals&, const std::string& channel);
int work(const Globals&, const WorkOptions&);
int peek(const Globals&, const std::string& channel);
int control(const Globals&, const ControlOptions&);
int stats(const Globals&, const StatsOptions&);
int maps(const Globals&, const MapsOptions&);

}  // namespace ipcfs::client
