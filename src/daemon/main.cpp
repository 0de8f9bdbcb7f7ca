// ipcfsd: options, configuration, lock, background, log, and the life of one Daemon from start to
// end. All on the main thread, which becomes the loop; only Daemon::stop() has its own thread, so
// that the loop can log what it waits for.
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <thread>
#include <unistd.h>

#include <base/thread.hpp>
#include <base/units.hpp>
#include <daemon/config.hpp>
#include <daemon/daemon.hpp>
#include <daemon/holder.hpp>
#include <daemon/instance.hpp>
#include <daemon/log.hpp>
#include <daemon/loop.hpp>
#include <daemon/options.hpp>
#include <daemon/service.hpp>

namespace ipcfs::daemon {
namespace {

constexpr Nanos kStopPatience = kSecond;  // between log lines that say what stop() waits for
constexpr Nanos kSignalDebounce = 300 * kMillisecond;  // signals closer together count as one
constexpr int kStopRounds = 5;  // then the daemon detaches the mount and exits

std::string show(std::uint64_t limit, bool bytes = false) {
    if (limit == kUnlimited) return "unlimited";
    return bytes ? format_size(limit) : std::to_string(limit);
}

std::string joined(const std::vector<std::string>& words) {
    std::string text;
    for (const std::string& word : words) {
        if (!text.empty()) text += ", ";
        text += word;
    }
    return text;
}

// Raises the soft limit on descriptors to the hard limit.
void raise_descriptor_limit() {
    rlimit limit{};
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

// A daemon's run, from taking its lock to the end.
class Run {
public:
    // `background` is set if this process has gone to the background. That must happen before a Run
    // exists, since a loop does not survive a fork.
    Run(Options options, ProcessEnvironment process, Config config,
        std::optional<Background> background)
        : options_(std::move(options)),
          process_(std::move(process)),
          config_(std::move(config)),
          background_(std::move(background)) {}

    int run() {
        int code = prepare();
        if (code == kExitOk && config_.fuse.survive) {
            if (auto over = hold()) return *over;
        }
        if (code == kExitOk) code = serve();
        if (code != kExitOk) {
            if (background_) background_->failed(code);
            return code;
        }
        loop_->run();
        if (stopper_.joinable()) stopper_.join();
        daemon_.reset();
        log_->info("stopped");
        return exit_code_;
    }

private:
    // Takes the lock, opens the log and prepares the mount point.
    int prepare() {
        config_.mount = canonical_mount(config_.mount);
        const char* runtime = std::getenv("XDG_RUNTIME_DIR");
        pid_t holder = 0;
        auto lock = InstanceLock::take(
            lock_path(config_.mount, process_.uid, runtime ? runtime : ""), &holder);
        if (!lock && lock.error().code == EBUSY) return already_served(holder);
        if (!lock) return fail(lock.error().message());
        lock_.emplace(std::move(*lock));

        if (auto made = ensure_directory(config_.state, 0700); !made) {
            return fail(made.error().message());
        }
        if (auto opened = open_log(); !opened) return fail(opened.error().message());
        raise_descriptor_limit();
        log_startup();

        auto cleared = clear_dead_mounts(config_.mount);
        if (!cleared) return fail(cleared.error().message());
        if (*cleared > 0) {
            log_->warn("unmounted the dead mount of a killed daemon at ", config_.mount);
        }
        if (auto made = ensure_directory(config_.mount, 0755); !made) {
            return fail(made.error().message());
        }
        return kExitOk;
    }

    // Becomes the holder and returns its exit code; or returns empty in the daemon.
    std::optional<int> hold() {
        auto holder = Holder::make(session_config(config_));
        if (!holder) return fail(holder.error().message());
        holder_ = std::move(*holder);
        log_.reset();  // only the daemon may rotate the log file
        const auto over = holder_->run(manager_, [this] {
            if (background_) background_->ready();
        });
        if (!over) {
            become_daemon();
            return std::nullopt;
        }
        if (!holder_->why().empty()) {
            if (auto opened = open_log(); opened) log_->critical(holder_->why());
            if (!log_ || log_->current().target != LogTarget::kStderr)
                std::fprintf(stderr, "ipcfsd: %s\n", holder_->why().c_str());
            manager_.status(holder_->why());
        }
        if (background_) background_->failed(*over);
        return over;
    }

    void become_daemon() {
        lock_->release_to_parent();
        manager_ = ServiceManager(holder_->take_line());
        if (holder_->predecessor().empty()) return;
        // Reads the configuration as a daemon started now would.
        Parsed wanted = load_config(options_, process_);
        wanted.config.mount = canonical_mount(wanted.config.mount);
        if (wanted.errors.empty()) config_ = plan_reload(config_, wanted.config).config;
    }

    // Mounts and serves; every step that can fail is here.
    int serve() {
        if (!log_) {
            if (auto opened = open_log(); !opened) return fail(opened.error().message());
        }
        if (holder_ && !holder_->predecessor().empty()) {
            log_->warn("the daemon ", holder_->predecessor(), "; pid ", getpid(), " takes over");
        }
        loop_.emplace();
        loop_->on_signal([this](int signal) { on_signal(signal); });
        auto daemon =
            Daemon::create(config_, *log_, *loop_, holder_ ? holder_->succession() : Succession{},
                           [this](bool plain, const std::string& why) {
                               loop_->post([this, plain, why] { on_end(plain, why); });
                           });
        if (!daemon) return fail(daemon.error().message());
        daemon_ = std::move(*daemon);
        for (const std::string& line : daemon_->report()) log_->info(line);
        log_->info("ready: ", config_.mount);
        if (background_) background_->ready();
        if (holder_) Holder::report_ready(manager_.line());
        manager_.ready("serving " + config_.mount);
        return kExitOk;
    }

    Result<void> open_log() {
        auto log = DaemonLogger::open(config_.log, log_place());
        if (!log) return log.error();
        log_ = std::move(*log);
        return {};
    }

    int fail(const std::string& why) {
        // Report on stderr, and also in the log if that is elsewhere.
        const bool elsewhere = log_ && log_->current().target != LogTarget::kStderr;
        if (elsewhere) log_->critical("cannot start: ", why);
        std::fprintf(stderr, "ipcfsd: %s\n", why.c_str());
        manager_.status("cannot start: " + why);
        return kExitFailed;
    }

    int already_served(pid_t holder) {
        const std::string who = holder == 0 ? "another ipcfsd" : "pid " + std::to_string(holder);
        const bool usual = config_.mount == "/ipc";
        const std::string how = (usual ? "" : "IPCFS_MOUNT=" + config_.mount + ' ') + "ipcfs down";
        std::fprintf(stderr, "ipcfsd: %s is already served by %s (stop it with: %s)\n",
                     config_.mount.c_str(), who.c_str(), how.c_str());
        return kExitRunning;
    }

    LogPlace log_place() const { return {background_.has_value(), config_.state}; }

    void log_startup() {
        utsname kernel{};
        uname(&kernel);
        const bool file = ::access(options_.config_file.c_str(), R_OK) == 0;
        log_->info("ipcfsd ", IPCFS_VERSION, ", pid ", getpid(), ", uid ", process_.uid, ", ",
                   kernel.sysname, ' ', kernel.release, ", configuration ",
                   file ? options_.config_file : "built in");
        std::string limits;
        for (std::size_t i = 0; i < access::kResources; ++i) {
            const std::string_view name = access::kResourceRows[i].name;
            limits.append(name) += ' ' + show(config_.limits.user[i], name.ends_with("bytes"));
            limits += i + 1 < access::kResources ? ", " : "; ";
        }
        log_->info("limits of a user: ", limits, "of all users: bytes ",
                   show(config_.limits.total_bytes, true), "; ", config_.limits.by_user.size(),
                   " users with overrides");
        if (process_.uid != 0) {
            log_->info("unprivileged: mounting through fusermount3 for uid ", process_.uid,
                       "; other users ",
                       fuse_conf_allows_other()
                           ? "can have access (user_allow_other is in /etc/fuse.conf)"
                           : "have no access (add user_allow_other to /etc/fuse.conf)");
        }
    }

    void on_signal(int signal) {
        if (signal == SIGHUP) {
            if (!stopping_) reload();
            return;
        }
        const Nanos now = SystemClock().monotonic();
        // A service manager may signal all processes, and the holder forwards its signal: treat
        // both as one.
        if (stopping_ && holder_ && now - last_signal_ < kSignalDebounce) return;
        last_signal_ = now;
        if (stopping_) {
            log_->warn("second signal ", signal, ": ending at once");
            force_exit(kExitFailed);
        }
        log_->info("signal ", signal, ": stopping");
        stop();
    }

    void on_end(bool plain, const std::string& why) {
        if (stopping_) return;
        if (plain) {
            log_->info(config_.mount, " was unmounted: ending");
        } else {
            log_->error("the mount at ", config_.mount, " ended: ", why);
            exit_code_ = kExitFailed;
        }
        stop();
    }

    void stop() {
        stopping_ = true;
        if (holder_) holder_->set_ending();
        manager_.stopping("unmounting " + config_.mount);
        stopper_ = start_thread("ipcfs-stopper", [this] {
            daemon_->stop();
            loop_->stop();
        });
        watch_stop(1);
    }

    void watch_stop(int round) {
        loop_->after(kStopPatience, [this, round] {
            const std::string what = joined(daemon_->holding());
            log_->warn("still stopping after ", round,
                       " s, held by: ", what.empty() ? "(unknown)" : what);
            manager_.status("stopping, held by: " + what);
            if (round == kStopRounds) {
                log_->error("giving up waiting: detaching the mount and exiting");
                force_exit(exit_code_);
            }
            watch_stop(round + 1);
        });
    }

    // Exits when stopping hangs: detaches the mount, so that no dead mount stays, and destroys nothing.
    [[noreturn]] void force_exit(int code) {
        if (holder_) holder_->set_ending();
        if (ipcfs_mounted(config_.mount)) {
            if (!fuse::detach_mount(config_.mount, false))
                log_->error("cannot unmount ", config_.mount);
        }
        lock_.reset();
        _exit(code);
    }

    void reload() {
        manager_.reloading();
        Parsed wanted = load_config(options_, process_);
        wanted.config.mount = canonical_mount(wanted.config.mount);
        if (!wanted.errors.empty()) {
            for (const std::string& error : wanted.errors) log_->error("reload: ", error);
            log_->error("reload: nothing was changed");
            manager_.ready("serving " + config_.mount + " (last reload failed)");
            return;
        }
        Reload plan = plan_reload(config_, wanted.config);
        if (auto reopened = log_->reconfigure(plan.config.log, log_place()); !reopened) {
            log_->error("reload: ", reopened.error().message(), "; the log is unchanged");
            plan.config.log = config_.log;
        }
        daemon_->reload(plan.config);
        config_ = std::move(plan.config);
        log_->info("reloaded: ", plan.changed.empty() ? "nothing changed" : joined(plan.changed));
        if (!plan.restart.empty()) {
            log_->warn("reload: these changes need a restart: ", joined(plan.restart));
        }
        manager_.ready("serving " + config_.mount);
    }

    const Options options_;
    const ProcessEnvironment process_;
    Config config_;
    std::optional<Background> background_;
    ServiceManager manager_;
    std::optional<InstanceLock> lock_;
    std::unique_ptr<DaemonLogger> log_;
    std::unique_ptr<Holder> holder_;
    std::optional<Loop> loop_;        // none in the holder, nor before the fork
    std::unique_ptr<Daemon> daemon_;  // ends before the loop and the log
    std::thread stopper_;
    bool stopping_ = false;
    Nanos last_signal_ = 0;  // when it came, monotonic
    int exit_code_ = kExitOk;
};

int main_of(int argc, char** argv) {
    int code = kExitOk;
    auto options = parse_options(argc, argv, &code);
    if (!options) return code;
    const ProcessEnvironment process = process_environment();
    Parsed parsed = load_config(*options, process);
    if (!parsed.errors.empty()) {
        for (const std::string& error : parsed.errors) {
            std::fprintf(stderr, "ipcfsd: %s\n", error.c_str());
        }
        return kExitUsage;
    }
    if (options->help_keys) {
        std::fputs(reference(parsed.config).c_str(), stdout);
        return kExitOk;
    }
    if (options->check_config) {
        std::puts("ok");
        return kExitOk;
    }
    std::signal(SIGPIPE, SIG_IGN);
    // The kernel sends SIGIO when another process breaks a lease; payload::held_elsewhere() takes
    // one for a moment.
    std::signal(SIGIO, SIG_IGN);
    umask(022);
    std::optional<Background> background;
    if (!options->foreground) {
        auto entered = Background::enter();
        if (!entered) {
            std::fprintf(stderr, "ipcfsd: %s\n", entered.error().message().c_str());
            return kExitFailed;
        }
        background.emplace(std::move(*entered));
    }
    return Run(std::move(*options), process, std::move(parsed.config), std::move(background)).run();
}

}  // namespace
}  // namespace ipcfs::daemon

int main(int argc, char** argv) {
    return ipcfs::daemon::main_of(argc, argv);
}
