// The options of `ipcfs work`; work_runner.cpp does the work. One thread.
#include <work.hpp>

namespace ipcfs::client {
namespace {

Registration<WorkOptions> g_work(
    Group::kLeases, "work",
    "Run a command for each message; exit code 0 acknowledges, else it is redelivered",
    "  ipcfs work jobs -- ./build.sh\n"
    "  ipcfs work jobs -j 4 --retry-delay 10s -- sh -c 'curl -sf -d @- http://host/in'\n"
    "  ipcfs work jobs --drain -- wc -c       # all queued messages, then end\n"
    "  ipcfs work logs/subs/pager --limit 1m --dead-on 65 -- ./page-me\n\n"
    "The message is the command's standard input. Its environment has IPCFS_MOUNT, "
    "_CHANNEL,\n"
    "_PATH, _SEQUENCE, _ID, _CORRELATION, _PRIORITY, _TYPE, _REDELIVERED, _TIME, "
    "_DEADLINE,\n"
    "_SENDER_PID, _SENDER_UID, _SENDER_GID, and where there is one _METHOD, "
    "_CONTENT_TYPE, _GROUP.\n"
    "The first Ctrl-C or SIGTERM takes no more and lets the running commands finish; "
    "the second\n"
    "stops them. Exit codes: 0 done, or ended by SIGTERM; 1 with -n, --once, --drain: a "
    "command\n"
    "failed; 3 no message in time.",
    [](Command& takes, WorkOptions& options) {
        takes.queue(options.channel);
        takes
            .add("command", &options.command, "COMMAND",
                 "The command and its arguments, after \"--\"")
            .require()
            .offer("@command");
        takes.add("-j,--jobs", &options.jobs, "N", "Run N commands at the same time (default 1)")
            .within(1, 1024)
            .offer("1 2 4 8 16");
        takes.add("-n,--count", &options.count, "N", "End after N messages");
        takes.flag("--once", options.once, "Same as -n 1").excludes("--count");
        takes.flag("--drain", options.drain, "End when nothing is queued");
        takes.add("-t,--timeout", &options.timeout, "DURATION",
                  "Wait at most DURATION for a message, then exit 3");
        takes.add("--limit", &options.limit, "DURATION", "Stop a command that runs longer");
        takes.add("--retry-delay", &options.retry_delay, "DURATION",
                  "Redeliver a message that failed after DURATION");
        takes
            .add("--dead-on", &options.dead_on, "CODE",
                 "Exit codes that make the message a dead letter at once")
            .within(1, 255);
    },
    work);

}  // namespace
}  // namespace ipcfs::client
