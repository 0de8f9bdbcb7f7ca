// The client header as the group payload uses it. Only in processes of their own (Actor): it may
// start threads.
#pragma once

#include <stdexcept>
#include <string>

#include <ipcfs/channel.hpp>

namespace ipcfs::bench {

// The value, or what went wrong as an exception.
template <class T>
T need(Expected<T> got) {
    if (!got) throw std::runtime_error(got.error().message());
    return std::move(*got);
}
inline void need(const Expected<void>& got) {
    if (!got) throw std::runtime_error(got.error().message());
}

}  // namespace ipcfs::bench
