// The daemon's status texts: kern/ipc/version, the reason for `degraded`, and its log lines at start.
// Any thread.
#include <unistd.h>

#include <daemon/state.hpp>
#include <fuse/probe.hpp>

namespace ipcfs::daemon {
std::string Daemon::State::version() const {
    const fuse::SessionReport& r = session->report();
    std::string text = "ipcfs " IPCFS_VERSION "\n";
    text += "libfuse " + r.libfuse_version + "\n";
    text += "kernel " + fuse::probe_kernel().release + "\n";
    text += "fuse-protocol " + std::to_string(r.proto_major) + "." + std::to_string(r.proto_minor) +
            "\n";
    bool uring = r.transport == fuse::Transport::kUring;
    text += std::string("transport ") + (uring ? "uring" : "classic") + "\n";
    if (!r.why_not_uring.empty()) text += "why-not-uring " + r.why_not_uring + "\n";
    text += std::string("passthrough ") + (r.passthrough ? "on" : "off") + "\n";
    if (!r.passthrough) text += "why-not-passthrough " + r.why_not_passthrough + "\n";
    text +=
        "queues " + std::to_string(r.queues) + "\nqueue-depth " + std::to_string(r.depth) + "\n";
    text += std::string("survives ") + (r.survives ? "yes" : "no") + "\n";
    if (!r.survives) text += "why-not-survives " + r.why_not_survives + "\n";
    if (succession.inheritance) {
        text += "life " + std::to_string(succession.inheritance->life()) + "\n";
        text += "holder " + std::to_string(::getppid()) + "\n";
    }
    text += "pid " + std::to_string(::getpid()) + "\n";
    return text;
}

std::string Daemon::State::degraded() const {
    if (kept) {
        if (const store::Health health = kept->health(); health.degraded()) {
            return "durable channels: " + health.text;
        }
    }
    if (!session) return {};
    fuse::Overload overload = session->overload();
    if (overload.since == 0) return {};
    return "more operations wait than the io_uring queues have entries: waiting reads are asked in "
           "turn "
           "to come again, and everything is slower; raise fuse.queue-depth (now " +
           std::to_string(session->report().depth) + ")";
}

std::vector<std::string> Daemon::State::report() const {
    const fuse::SessionReport& r = session->report();
    std::vector<std::string> lines;
    lines.push_back("libfuse " + r.libfuse_version + ", FUSE protocol " +
                    std::to_string(r.proto_major) + "." + std::to_string(r.proto_minor));
    if (r.transport == fuse::Transport::kUring) {
        lines.push_back("transport: io_uring, " + std::to_string(r.queues) + " queues of " +
                        std::to_string(r.depth) + " entries");
    } else {
        lines.push_back("transport: classic, " + std::to_string(r.readers) + " threads" +
                        (r.why_not_uring.empty() ? "" : " (io_uring: " + r.why_not_uring + ")"));
    }
    if (!r.custom_io) {
        lines.push_back(
            "off: io_uring and later INIT flags; this libfuse was built without custom io");
    }
    if (!r.passthrough) {
        lines.push_back("off: passthrough of payloads and regions; " + r.why_not_passthrough);
    }
    if (r.survives) {
        lines.push_back(
            "survives: if this daemon is killed, its holder starts a successor on the same mount");
    } else {
        lines.push_back("off: surviving a killed daemon; " + r.why_not_survives);
    }
    if (succession.inheritance && succession.inheritance->life() > 1) {
        const auto taken = door->taken_over();
        lines.push_back("took over: " + std::to_string(taken.reopened) + " open files, " +
                        std::to_string(taken.lost) + " more lost, " + std::to_string(r.taken_over) +
                        " unanswered requests");
    }
    if (!r.allow_other) {
        lines.push_back("off: access for other users (fuse.allow-other)");
    }
    fuse::KernelFacts kernel = fuse::probe_kernel();
    if (kernel.default_request_timeout || kernel.max_request_timeout) {
        lines.push_back("warning: fs.fuse request timeouts are set (default " +
                        std::to_string(kernel.default_request_timeout) + " s, at most " +
                        std::to_string(kernel.max_request_timeout) +
                        " s): the kernel ends this mount if a reader waits longer; set "
                        "fs.fuse.max_request_timeout=0");
    }
    return lines;
}

}  // namespace ipcfs::daemon
