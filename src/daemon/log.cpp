// Only this file uses spdlog.
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <sys/stat.h>
#include <unistd.h>

#include <spdlog/logger.h>
#include <spdlog/sinks/rotating_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#if IPCFS_HAVE_SYSTEMD
#include <spdlog/sinks/systemd_sink.h>
#endif

#include <daemon/log.hpp>
#include <insight/table.hpp>

namespace ipcfs::daemon {
namespace {

// systemd sets JOURNAL_STREAM to the device:inode of the socket that it connected to stderr.
bool stderr_is_journal() {
    const char* stream = std::getenv("JOURNAL_STREAM");
    struct stat about {};
    std::uint64_t device = 0;
    std::uint64_t inode = 0;
    return stream && std::sscanf(stream, "%" SCNu64 ":%" SCNu64, &device, &inode) == 2 &&
           fstat(STDERR_FILENO, &about) == 0 && about.st_dev == device && about.st_ino == inode;
}

spdlog::level::level_enum spd_level(Level level) {
    static_assert(static_cast<int>(Level::kOff) == static_cast<int>(spdlog::level::off));
    return static_cast<spdlog::level::level_enum>(level);
}

std::shared_ptr<spdlog::logger> make(const LogConfig& config) {
    std::shared_ptr<spdlog::sinks::sink> sink;
    const char* pattern = "%Y-%m-%dT%H:%M:%S.%e%z %l: %v";
    switch (config.target) {
        case LogTarget::kFile:
            sink = std::make_shared<spdlog::sinks::rotating_file_sink_mt>(
                config.file, config.max_size, config.max_files);
            break;
        case LogTarget::kJournald:
#if IPCFS_HAVE_SYSTEMD
            sink = std::make_shared<spdlog::sinks::systemd_sink_mt>("ipcfsd");
            pattern = "%v";
            break;
#else
            throw spdlog::spdlog_ex("built without libsystemd");
#endif
        case LogTarget::kAuto:
        case LogTarget::kStderr: sink = std::make_shared<spdlog::sinks::stderr_sink_mt>(); break;
    }
    auto logger = std::make_shared<spdlog::logger>("ipcfsd", std::move(sink));
    logger->set_level(spdlog::level::trace);  // base/log.hpp filters by level
    logger->flush_on(spdlog::level::trace);   // lose no line when the daemon is killed
    logger->set_pattern(pattern);
    logger->set_error_handler([](const std::string&) {});
    return logger;
}

}  // namespace

bool journal_available() {
#if IPCFS_HAVE_SYSTEMD
    return ::access("/run/systemd/journal/socket", W_OK) == 0;
#else
    return false;
#endif
}

LogConfig resolve_log(LogConfig config, const LogPlace& place) {
    if (config.target != LogTarget::kAuto) return config;
    if (!config.file.empty()) {
        config.target = LogTarget::kFile;
    } else if (journal_available() && (place.background || stderr_is_journal())) {
        config.target = LogTarget::kJournald;
    } else if (!place.background) {
        config.target = LogTarget::kStderr;
    } else {
        config.target = LogTarget::kFile;
        config.file = place.state + "/ipcfsd.log";
    }
    return config;
}

DaemonLogger::~DaemonLogger() = default;

Result<std::unique_ptr<DaemonLogger>> DaemonLogger::open(const LogConfig& config,
                                                         const LogPlace& place) {
    std::unique_ptr<DaemonLogger> logger(new DaemonLogger);
    auto opened = logger->reconfigure(config, place);
    if (!opened) return opened.error();
    return logger;
}

Result<void> DaemonLogger::reconfigure(const LogConfig& config, const LogPlace& place) {
    Target next;
    next.config = resolve_log(config, place);
    Target now = target_.with([](const Target& target) { return target; });
    LogConfig same_level = next.config;
    same_level.level = now.config.level;
    if (now.logger && same_level == now.config) {
        next.logger = now.logger;  // one sink only may rotate a file
    } else {
        if (next.config.target == LogTarget::kJournald && !journal_available()) {
            return Fault{ENOENT, "log to the journal"};
        }
        try {
            next.logger = make(next.config);
        } catch (const std::exception& failed) {
            return Fault{errno ? errno : EIO, "log to " + std::string(name_of(next.config.target)) +
                                                  ' ' + next.config.file + " (" + failed.what() +
                                                  ')'};
        }
    }
    set_level(next.config.level);
    target_.with([&](Target& target) { std::swap(target, next); });
    return {};
}

LogConfig DaemonLogger::current() const {
    return target_.with([](const Target& target) { return target.config; });
}

void DaemonLogger::emit(Level level, std::string_view line) noexcept {
    try {
        auto logger = target_.with([](const Target& target) { return target.logger; });
        logger->log(spd_level(level), insight::escaped(line));
    } catch (...) {
        // There is nowhere to report this.
    }
}

}  // namespace ipcfs::daemon
