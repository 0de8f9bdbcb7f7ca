// The command line of ipcfsd. Every option that stands for a key of the configuration becomes a
// Setting, so there is one place where values are checked. Main thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <daemon/config.hpp>

namespace ipcfs::daemon {

// What the process ends with; documented in docs/configuration.md and the man page.
enum ExitCode : int {
    kExitOk = 0,
    kExitFailed = 1,
    kExitUsage = 2,    // the command line or the configuration is wrong
    kExitRunning = 3,  // the mount point is served already
};

constexpr const char* kDefaultConfigFile = "/etc/ipcfs/ipcfs.toml";

struct Options {
    bool foreground = false;
    bool check_config = false;
    std::string config_file = kDefaultConfigFile;
    bool config_given = false;  // then the file must exist
    std::vector<Setting> settings;
};

// Empty when the process should end at once with *exit_code: after --help and --version, which are
// answered on standard output, and after an error, told on standard error.
std::optional<Options> parse_options(int argc, const char* const* argv, int* exit_code);

// Reads the file (if it is there, or must be) and applies IPCFS_MOUNT and the options.
Parsed load_config(const Options& options, const Surroundings& around);

}  // namespace ipcfs::daemon
