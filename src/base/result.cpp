// The text of a fault. Any thread.
#include <cstring>

#include <base/check.hpp>
#include <base/result.hpp>

namespace ipcfs {

std::string Fault::message() const {
    char buffer[128];
    return operation + ": " + strerror_r(code, buffer, sizeof buffer);
}

void throw_fault(const Fault& fault) {
    bug("value of a failed Result", fault.message().c_str(), 0);
}

}  // namespace ipcfs
