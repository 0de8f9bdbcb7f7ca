// The command line of ipcfsd. An option that stands for a configuration key becomes a Setting, so
// that values are checked in one place. Main thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <daemon/config.hpp>

namespace ipcfs::daemon {

// Exit codes; documented in docs/configuration.md and the man page.
enum ExitCode : int {
    kExitOk = 0,
    kExitFailed = 1,
    kExitUsage = 2,    // the command line or the configuration is wrong
    kExitRunning = 3,  // a daemon already serves the mount point
};

constexpr const char* kDefaultConfigFile = "/etc/ipcfs/ipcfs.toml";

struct Options {
    bool foreground = false;
    bool check_config = false;
    bool help_keys = false;
    std::string config_file = kDefaultConfigFile;
    bool config_given = false;  // then the file must exist
    std::vector<Setting> settings;
};

// Parses the command line. Returns empty if the process must end with *exit_code: after --help and
// --version, which print to standard output, and after an error, printed on standard error.
std::optional<Options> parse_options(int argc, const char* const* argv, int* exit_code);

// Reads the file (which must exist if it was given explicitly) and applies IPCFS_MOUNT and the options.
Parsed load_config(const Options& options, const ProcessEnvironment& process);

}  // namespace ipcfs::daemon
