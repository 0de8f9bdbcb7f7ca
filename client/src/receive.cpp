// `ipcfs recv` and `ipcfs follow`. Both read framed/stream, one message a read, so the end of a
// message is known, and an empty message from the channel's end. The read waits, not poll: waiting
// reads are served first come, first served, wake nobody in vain, and are what a writer of a
// channel of type sync looks for. A payload is passed on piece by piece. One thread.
#include <fcntl.h>
#include <string>

#include <commands.hpp>
#include <failure.hpp>
#include <io.hpp>
#include <message_reader.hpp>
#include <printer.hpp>
#include <receive.hpp>
#include <tree.hpp>

namespace ipcfs::client {

int receive_from(const Globals& globals, const Channel& channel, const ReceiveOptions& options) {
    bool drain = !options.follow && options.count == 0;
    bool waits = options.follow || (!drain && options.timeout != 0);
    Printer printer(channel, options.print, globals.json);
    MessageReader reader(channel, "framed/stream", O_RDONLY | (waits ? 0 : O_NONBLOCK));
    for (std::uint64_t n = 0; drain || options.follow || n < options.count; ++n) {
        // Without waiting there is no deadline to be early for: it takes what is there, or nothing.
        Deadline deadline(waits ? options.timeout : std::nullopt);
        Hold hold(deadline);
        FrameView frame;
        if (reader.receive(hold, deadline, frame)) {
            printer.show(frame);
            continue;
        }
        if (drain) return kOk;
        if (hold.interrupted()) return kInterrupted;  // by the signal itself, when `hold` goes
        if (!globals.quiet && options.timeout.value_or(0) > 0) {
            fail(kNothing,
                 channel.shown() + ": no message within " + human_duration(*options.timeout));
        }
        return kNothing;
    }
    return kOk;
}

int receive(const Globals& globals, const ReceiveOptions& options) {
    Tree tree(globals.mount);
    return receive_from(globals, tree.channel(options.channel), options);
}

}  // namespace ipcfs::client
