// `ipcfs recv` and `ipcfs follow`. Both read framed/stream, one message a read, which distinguishes
// an empty message from the end of the channel. They wait in read instead of poll: waiting reads
// are served in order, wake no reader in vain, and are what a writer on type sync waits for.
// Payloads are passed on piece by piece. One thread.
#include <fcntl.h>

#include <command.hpp>
#include <failure.hpp>
#include <io.hpp>
#include <message_reader.hpp>
#include <printer.hpp>
#include <receive.hpp>
#include <tree.hpp>

namespace ipcfs::client {

int receive_from(const Globals& globals, const Channel& channel, const ReceiveOptions& options) {
    bool drain = options.count == 0;
    bool waits = !drain && options.timeout != 0;
    Printer printer(channel, options.print, globals.json);
    MessageReader reader(channel, "framed/stream", O_RDONLY | (waits ? 0 : O_NONBLOCK));
    for (std::uint64_t n = 0; drain || n < options.count.value_or(UINT64_MAX); ++n) {
        // Without waiting there is no deadline: take what is queued, or nothing.
        Deadline deadline(waits ? options.timeout : std::nullopt);
        DeferSignals signals(deadline);
        FrameView frame;
        if (reader.receive(signals, deadline, frame)) {
            printer.show(frame);
            continue;
        }
        if (drain) return kOk;
        if (signals.interrupted()) return kInterrupted;  // `signals` then obeys it
        return no_message(globals, channel, options.timeout);
    }
    return kOk;
}

namespace {

int receive(const Globals& globals, const ReceiveOptions& options) {
    return receive_from(globals, Tree(globals.mount).channel(options.channel), options);
}

Registration<ReceiveOptions> g_recv(
    Group::kMessages, "recv", "Receive messages; waits for one by default",
    "  job=$(ipcfs recv jobs)\n"
    "  ipcfs recv jobs --timeout 10s || echo nothing\n"
    "  ipcfs recv jobs -n 0               # all queued messages, without waiting\n"
    "  ipcfs recv jobs -n 5 -0 | xargs -0 -n1 echo\n"
    "  ipcfs recv jobs --output film.mkv\n"
    "  ipcfs recv jobs --json",
    [](Command& takes, ReceiveOptions& options) {
        takes.queue(options.channel, "The channel");
        options.count = 1;
        takes.add("-n,--count", &options.count, "N",
                  "Receive N messages; 0: all that are queued now");
        takes.add("-t,--timeout", &options.timeout, "DURATION",
                  "Wait at most DURATION for each message, then exit 3");
        takes.printing(options.print);
    },
    receive);

Registration<ReceiveOptions> g_follow(
    Group::kMessages, "follow", "Print messages as they arrive, until interrupted",
    "  ipcfs follow jobs\n  ipcfs follow jobs --json",
    [](Command& takes, ReceiveOptions& options) {
        takes.queue(options.channel, "The channel");
        takes.printing(options.print);
    },
    receive);

}  // namespace
}  // namespace ipcfs::client
