// Faults: a system call failed or input was malformed. A fault carries its errno, the operation and
// the place, and becomes an errno for a client once, at the door. Conditions a caller decides on
// (full, empty, closed) are enums in return types instead; bugs abort through IPCFS_CHECK.
// Pure values, any thread.
#pragma once

#include <cerrno>
#include <string>
#include <utility>

#include <boost/system/result.hpp>

namespace ipcfs {

// What failed. `operation` is text for a person: it says what was attempted and on what.
struct Fault {
    int code = EIO;         // an errno
    std::string operation;  // "open /dev/fuse", "ctl: capacity"
    std::string message() const;
};

[[noreturn]] void throw_fault(const Fault& fault);

template <class T>
using Result = boost::system::result<T, Fault>;

// Needed by boost::system::result: value() of a failed result is a bug of the caller's.
[[noreturn]] inline void throw_exception_from_error(const Fault& fault,
                                                    const boost::source_location&) {
    throw_fault(fault);
}

// The fault of the system call that just failed, from errno.
inline Fault errno_fault(std::string operation) {
    return Fault{errno, std::move(operation)};
}

}  // namespace ipcfs
