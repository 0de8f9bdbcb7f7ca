// The configuration: plain data, read at start and again on SIGHUP from a TOML file and the command
// line, and checked completely before anything is built. This folder (src/daemon) is the program's
// main: it reads the configuration, builds everything, connects it and runs it.
//
// conf/ipcfs.toml documents every key. Later sources win: defaults, file, IPCFS_MOUNT, options.
// Pure functions over values; any thread.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <access/account.hpp>
#include <base/clock.hpp>
#include <base/log.hpp>
#include <channel/settings.hpp>

namespace ipcfs::daemon {

enum class Transport : std::uint8_t { kAuto, kUring, kClassic };
enum class Passthrough : std::uint8_t { kAuto, kOff };
enum class AllowOther : std::uint8_t { kAuto, kYes, kNo };
enum class LogTarget : std::uint8_t { kAuto, kStderr, kFile, kJournald };

using access::kUnlimited;  // written "unlimited"

struct FuseConfig {
    Transport transport = Transport::kAuto;
    std::uint32_t queue_depth = 8192;              // io_uring entries per CPU
    std::uint32_t threads = 0;                     // readers of the classic transport; 0: one a CPU
    Passthrough passthrough = Passthrough::kAuto;  // clients access payload memory directly
    AllowOther allow_other = AllowOther::kAuto;
    bool survive = true;  // a holder keeps the mount for a successor daemon
    Nanos entry_timeout = 3600 * kSecond;
    Nanos attr_timeout = 3600 * kSecond;
    bool debug = false;  // libfuse prints every request to stderr
    bool operator==(const FuseConfig&) const = default;
};

struct LogConfig {
    Level level = Level::kInfo;
    LogTarget target = LogTarget::kAuto;
    std::string file;  // empty: none
    std::uint64_t max_size = 10ULL << 20;
    std::uint32_t max_files = 5;
    bool operator==(const LogConfig&) const = default;
};

// [limits.user.NAME], by access::Resource; unset values are inherited.
using UserOverride = std::array<std::optional<std::uint64_t>, access::kResources>;

struct LimitsConfig {
    access::Limits user{200'000, 1ULL << 30, 20'000, 65'536, 16'384, 8ULL << 30};
    std::uint64_t total_bytes = 4ULL << 30;         // of all users together
    std::map<std::uint32_t, UserOverride> by_user;  // by uid
    bool operator==(const LimitsConfig&) const = default;
};

struct PayloadConfig {
    std::uint64_t reserve = 256ULL << 20;  // bytes of the machine's memory that payloads leave free
    bool operator==(const PayloadConfig&) const = default;
};

enum class StoreKind : std::uint8_t { kDisk, kOff };

struct StoreConfig {
    StoreKind kind = StoreKind::kDisk;     // where durable channels are kept
    std::uint64_t max_size = 16ULL << 30;  // bytes on disk, payloads' files apart
    bool operator==(const StoreConfig&) const = default;
};

struct Config {
    std::string mount;  // absolute
    std::string state;  // absolute
    FuseConfig fuse;
    LogConfig log;
    LimitsConfig limits;
    PayloadConfig payload;
    StoreConfig store;
    channel::Settings channel;  // of new channels
    bool operator==(const Config&) const = default;
};

// The uid of a user's name or number.
std::optional<std::uint32_t> uid_of(const std::string& user);

// What the defaults depend on. Passed in, so that tests can set it.
struct ProcessEnvironment {
    std::uint32_t uid = 0;  // effective
    std::string home, runtime_dir, state_home;
    std::string cwd = "/";  // base of relative paths on the command line
};
// Reads this process's environment and the user database.
ProcessEnvironment process_environment();

// A setting from outside the file. Errors name it by `origin`: "--mount", "--set".
struct Setting {
    std::string key;  // "limits.messages", "limits.user.alice.bytes"
    std::string value;
    std::string origin;
};

struct ConfigSource {
    ProcessEnvironment process;
    std::string file;                 // the name used in errors
    std::optional<std::string> text;  // the contents; empty if there is no file
    std::vector<Setting> settings;    // applied after the file, in order
};

struct Parsed {
    Config config;                    // valid only if `errors` is empty
    std::vector<std::string> errors;  // all: "file:line:column: fault, and what is allowed"
};
Parsed read_config(const ConfigSource& source);

// The effective configuration as TOML; read_config() of it gives an equal value.
std::string to_toml(const Config& config);

// What --help-keys prints: each key with its value in `defaults`, its meaning, and what is allowed.
std::string reference(const Config& defaults);

// The limits of `uid` in a daemon that runs as `own_uid`: the user's override, else the defaults.
// Root and the daemon's own user are unlimited unless an override names them.
access::Limits limits_for(const Config& config, std::uint32_t uid, std::uint32_t own_uid);

// What a reload would change. A running daemon can take over log.*, limits.*, payload.reserve and
// channel.* (for new channels); other keys need a restart.
struct Reload {
    Config config;                     // the running one with the reloadable changes
    std::vector<std::string> changed;  // keys that take effect
    std::vector<std::string> restart;  // keys that need a restart
};
Reload plan_reload(const Config& running, const Config& wanted);

std::string_view name_of(LogTarget value);

}  // namespace ipcfs::daemon
