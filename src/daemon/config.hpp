// The configuration: plain data, read once at start (and again on SIGHUP) from a TOML file and from
// settings of the command line, checked whole before anything is built. This folder (src/daemon) is
// the program's main: it reads the configuration, builds all the rest, wires it and runs it.
//
// Every key is documented in conf/ipcfs.toml. Precedence: defaults, file, IPCFS_MOUNT, options.
// Pure functions over values; any thread.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <base/clock.hpp>
#include <base/log.hpp>
#include <channel/settings.hpp>

namespace ipcfs::daemon {

enum class Transport : std::uint8_t { kAuto, kUring, kClassic };
enum class Passthrough : std::uint8_t { kAuto, kOff };
enum class AllowOther : std::uint8_t { kAuto, kYes, kNo };
enum class LogTarget : std::uint8_t { kAuto, kStderr, kFile, kJournald };

// A limit that is not there; written "unlimited".
constexpr std::uint64_t kUnlimited = UINT64_MAX;

struct FuseConfig {
    Transport transport = Transport::kAuto;
    std::uint32_t queue_depth = 8192;  // io_uring entries per CPU
    std::uint32_t threads = 0;         // workers of the classic transport; 0: by the CPUs
    Passthrough passthrough = Passthrough::kAuto;  // memory given to clients directly
    AllowOther allow_other = AllowOther::kAuto;
    bool survive = true;  // a holder keeps the mount, for a daemon after this one
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

// What one user may hold at a time.
struct UserLimits {
    std::uint64_t messages = 200'000;
    std::uint64_t bytes = 1ULL << 30;
    std::uint64_t channels = 20'000;
    std::uint64_t open_files = 65'536;
    std::uint64_t waiters = 16'384;
    std::uint64_t payload_bytes = 8ULL << 30;  // of payloads, pools and regions
    bool operator==(const UserLimits&) const = default;
};

// [limits.user.NAME]: what is not given is inherited.
struct UserOverride {
    std::optional<std::uint64_t> messages, bytes, channels, open_files, waiters, payload_bytes;
    bool operator==(const UserOverride&) const = default;
};

struct LimitsConfig {
    UserLimits user;
    std::uint64_t total_bytes = 4ULL << 30;         // of all users together
    std::map<std::uint32_t, UserOverride> by_user;  // by uid
    bool operator==(const LimitsConfig&) const = default;
};

struct PayloadConfig {
    std::uint64_t reserve = 256ULL << 20;  // bytes of the machine's memory that payloads leave free
    bool operator==(const PayloadConfig&) const = default;
};

enum class StoreKind : std::uint8_t { kDisk, kMemory, kOff };

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

// What the defaults depend on; passed in so that tests can say it.
struct Surroundings {
    std::uint32_t uid = 0;  // effective
    std::string home, runtime_dir, state_home;
    std::string cwd = "/";  // what relative paths on the command line are relative to
};
// Of this process, from its environment and the user database.
Surroundings surroundings();

// One setting from outside the file. `origin` is how an error names it: "--mount", "--set".
struct Setting {
    std::string key;  // "limits.messages", "limits.user.alice.bytes"
    std::string value;
    std::string origin;
};

struct ConfigSource {
    Surroundings around;
    std::string file;                 // its name in errors
    std::optional<std::string> text;  // its contents; empty: there is no file
    std::vector<Setting> settings;    // applied after the file, in order
};

struct Parsed {
    Config config;                    // meaningless unless errors is empty
    std::vector<std::string> errors;  // "file:line:column: what, and what is allowed", all of them
};
Parsed read_config(const ConfigSource& source);

// The effective configuration as a file that read_config reads back to an equal value.
std::string to_toml(const Config& config);

// The limits that hold for `uid` in a daemon that runs as `own_uid`: the user's override over the
// defaults; root and the daemon's own user have none but those given to them by name.
UserLimits limits_for(const Config& config, std::uint32_t uid, std::uint32_t own_uid);

// What a reload would change. Of the keys, log.*, limits.* and channel.* (for new channels) can
// change in a running daemon; the others take a restart.
struct Reload {
    Config config;                     // the running one with what can be taken over
    std::vector<std::string> changed;  // keys taken over
    std::vector<std::string> restart;  // keys that wait for a restart
};
Reload plan_reload(const Config& running, const Config& wanted);

std::string_view name_of(Transport value);
std::string_view name_of(LogTarget value);

}  // namespace ipcfs::daemon
