// Error messages for the errnos of the tree.
#include <cerrno>
#include <cstring>
#include <utility>

#include <failure.hpp>

namespace ipcfs::client {

void fail(Exit code, std::string text) {
    throw Failure{code, std::move(text)};
}

bool daemon_is_gone(int error) {
    // ECANCELED: the kernel is still taking the killed daemon's rings down.
    return error == ENOTCONN || error == ECONNABORTED || error == ECANCELED;
}

std::string describe(int error) {
    if (daemon_is_gone(error)) {
        return "the daemon is gone; clean up with \"ipcfs down\", start with \"ipcfs up\"";
    }
    switch (error) {
        case EPIPE: return "the channel was removed";
        case EDQUOT: return "over the user's quota (see \"ipcfs stats resources\")";
        case ENOBUFS:
            return "the channel is full and its overflow policy is reject; to make senders wait: "
                   "ipcfs ctl CHANNEL overflow block";
        default: return std::strerror(error);
    }
}

void fail_errno(const std::string& what, int error) {
    bool gone = daemon_is_gone(error) || error == EPIPE;
    bool full = error == ENOBUFS || error == EAGAIN || error == ETIMEDOUT;
    fail(gone ? kGone : full ? kNothing : kError, what + ": " + describe(error));
}

}  // namespace ipcfs::client
