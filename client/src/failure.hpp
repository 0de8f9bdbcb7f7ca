// Errors of the command. An error is one sentence for people: what is wrong and, if possible, what
// to do about it. It is thrown as a Failure, which main() catches, prints after "ipcfs: " and turns
// into the exit code; exceptions are used for nothing else.
#pragma once

#include <string>

namespace ipcfs::client {

enum Exit : int {
    kOk = 0,
    kError = 1,
    kUsage = 2,
    kNothing = 3,  // no message in time, or the operation would have had to wait
    kGone = 4,     // the channel was removed, or the daemon went away
    kInterrupted = 130,
};

struct Failure {
    Exit code;
    std::string text;
};

[[noreturn]] void fail(Exit code, std::string text);
// Whether a call on the tree failed with `error` because its daemon died.
bool daemon_is_gone(int error);

// Throws "WHAT: strerror(error)". A dead daemon (ENOTCONN, ECONNABORTED) and EPIPE use kGone.
[[noreturn]] void fail_errno(const std::string& what, int error);

// Describes an errno of the tree, to follow "WHAT: ".
std::string describe(int error);

}  // namespace ipcfs::client
