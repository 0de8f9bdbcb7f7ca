// How the command ends: the sentences that go with the errnos of the tree.
#include <cerrno>
#include <cstring>
#include <utility>

#include <failure.hpp>

namespace ipcfs::client {

void fail(Exit code, std::string text) {
    throw Failure{code, std::move(text)};
}

std::string describe(int error) {
    switch (error) {
        case ENOTCONN:
        case ECONNABORTED:
            return "the daemon is gone; clean up with \"ipcfs down\", start with \"ipcfs up\"";
        case EPIPE: return "the channel was removed";
        case EDQUOT: return "over the user's quota (see \"ipcfs stats resources\")";
        case ENOBUFS: return "the channel is full and its overflow policy is reject";
        default: return std::strerror(error);
    }
}

void fail_errno(const std::string& what, int error) {
    bool gone = error == ENOTCONN || error == ECONNABORTED || error == EPIPE;
    bool full = error == ENOBUFS || error == EAGAIN || error == ETIMEDOUT;
    fail(gone ? kGone : full ? kNothing : kError, what + ": " + describe(error));
}

}  // namespace ipcfs::client
