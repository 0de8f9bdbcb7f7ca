// A Fault reports a failed system call or malformed input. It carries an errno and says what was
// attempted on what; the door turns it into the client's errno. Conditions that a caller decides on
// (full, empty, closed) are enums in return types instead; bugs abort through IPCFS_CHECK. Plain
// values, any thread.
#pragma once

#include <cerrno>
#include <string>
#include <utility>

#include <boost/system/result.hpp>

namespace ipcfs {

// `operation` is for people: what was attempted, and on what.
struct Fault {
    int code = EIO;         // an errno
    std::string operation;  // "open /dev/fuse", "ctl: capacity"
    std::string message() const;
};

[[noreturn]] void throw_fault(const Fault& fault);

template <class T>
using Result = boost::system::result<T, Fault>;

// Required by boost::system::result: calling value() on a failed result is a bug.
[[noreturn]] inline void throw_exception_from_error(const Fault& fault,
                                                    const boost::source_location&) {
    throw_fault(fault);
}

// The fault of the system call that has just failed; reads errno.
inline Fault errno_fault(std::string operation) {
    return Fault{errno, std::move(operation)};
}

}  // namespace ipcfs
