// Only this file uses CLI11.
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <iostream>
#include <map>
#include <unistd.h>

#include <CLI/CLI.hpp>

#include <base/fd.hpp>
#include <base/result.hpp>
#include <daemon/options.hpp>

namespace ipcfs::daemon {
namespace {

constexpr const char* kFooter = R"(
Signals: SIGTERM, SIGINT stop it (a second one at once); SIGHUP reloads log.*, limits.*, channel.*.
Exit status: 0 ok, 1 failed, 2 wrong usage or configuration, 3 the mount point is served already.
Every key of the configuration is explained by --help-keys, and at greater length in
/etc/ipcfs/ipcfs.toml as it is installed. Precedence: defaults, file, IPCFS_MOUNT, options, --set.
)";

constexpr std::size_t kMaxFile = 1 << 20;

Result<std::string> read_file(const std::string& path) {
    Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd) return errno_fault("cannot be read");
    std::string text(kMaxFile + 1, '\0');
    std::size_t size = 0;
    while (size < text.size()) {
        ssize_t got = read(fd.get(), text.data() + size, text.size() - size);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return errno_fault("cannot be read");
        if (got == 0) break;
        size += static_cast<std::size_t>(got);
    }
    if (size > kMaxFile) return Fault{EFBIG, "cannot be read (at most 1M is allowed)"};
    text.resize(size);
    return text;
}

}  // namespace

std::optional<Options> parse_options(int argc, const char* const* argv, int* exit_code) {
    Options options;
    CLI::App app{"ipcfsd - inter-process communication as a file system: the daemon"};
    app.name("ipcfsd");
    app.footer(kFooter);
    app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
    app.set_version_flag("-V,--version", std::string("ipcfsd " IPCFS_VERSION),
                         "print the version and exit");

    struct Valued {
        const char* option;
        const char* key;
        const char* type;
        const char* help;
        std::string value = {};
        CLI::Option* parsed = nullptr;
    };
    Valued valued[] = {
        {"--mount", "mount", "DIR", "where to mount the tree (environment: IPCFS_MOUNT)"},
        {"--state", "state", "DIR", "directory for durable channels and the fallback log"},
        {"--transport", "fuse.transport", "NAME", "auto, uring or classic"},
        {"--queue-depth", "fuse.queue-depth", "N", "io_uring entries per CPU"},
        {"--log-level", "log.level", "LEVEL", "trace, debug, info, warn, error, critical or off"},
        {"--log-target", "log.target", "WHERE", "auto, stderr, file or journald"},
        {"--log-file", "log.file", "FILE", "log to this file"},
    };
    for (Valued& one : valued) {
        one.parsed = app.add_option(one.option, one.value, one.help)->type_name(one.type);
    }
    auto* config = app.add_option("--config", options.config_file, "read this configuration file")
                       ->type_name("FILE")
                       ->capture_default_str();
    bool allow_other = false;
    auto* allow = app.add_flag("--allow-other,!--no-allow-other", allow_other,
                               "whether other users may use the tree");
    std::vector<std::string> sets;
    app.add_option("--set", sets, "set any key of the configuration; may be repeated")
        ->type_name("KEY=VALUE")
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
        ->allow_extra_args(false);
    app.add_flag("-f,--foreground", options.foreground, "stay in the foreground");
    app.add_flag("--help-keys", options.help_keys,
                 "print every key of the configuration with its default and meaning, and exit");
    app.add_flag("--check-config", options.check_config,
                 "check the configuration, print ok or every error, and exit");
    bool debug = false;
    app.add_flag("-d,--debug", debug, "print every FUSE request to stderr; implies --foreground");

    try {
        app.parse(argc, argv);
        for (const std::string& set : sets) {
            if (set.find('=') == std::string::npos || set[0] == '=') {
                throw CLI::ValidationError("--set " + set, "must be KEY=VALUE");
            }
        }
    } catch (const CLI::ParseError& stopped) {
        *exit_code = app.exit(stopped) == 0 ? kExitOk : kExitUsage;
        return std::nullopt;
    }

    options.config_given = config->count() > 0;
    // Make the path absolute now: a daemon in the background reloads it from another working directory.
    std::error_code failed;
    auto absolute = std::filesystem::absolute(options.config_file, failed);
    if (!failed) options.config_file = absolute.string();
    for (const Valued& one : valued) {
        if (one.parsed->count() > 0) options.settings.push_back({one.key, one.value, one.option});
    }
    if (allow->count() > 0) {
        options.settings.push_back({"fuse.allow-other", allow_other ? "true" : "false",
                                    allow_other ? "--allow-other" : "--no-allow-other"});
    }
    if (debug) {
        options.foreground = true;
        options.settings.push_back({"fuse.debug", "true", "--debug"});
    }
    for (const std::string& set : sets) {
        auto equals = set.find('=');
        options.settings.push_back({set.substr(0, equals), set.substr(equals + 1), "--set"});
    }
    return options;
}

Parsed load_config(const Options& options, const ProcessEnvironment& process) {
    ConfigSource source;
    source.process = process;
    source.file = options.config_file;
    auto text = read_file(options.config_file);
    if (text) {
        source.text = std::move(*text);
    } else if (options.config_given || text.error().code != ENOENT) {
        Parsed failed;
        failed.errors.push_back(options.config_file + ": " + text.error().message());
        return failed;
    }
    if (const char* mount = std::getenv("IPCFS_MOUNT"); mount && *mount) {
        source.settings.push_back({"mount", mount, "IPCFS_MOUNT"});
    }
    source.settings.insert(source.settings.end(), options.settings.begin(), options.settings.end());
    return read_config(source);
}

}  // namespace ipcfs::daemon
