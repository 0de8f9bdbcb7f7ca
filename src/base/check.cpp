// Reports a bug and aborts. Any thread.
#include <cstdio>
#include <cstdlib>

#include <base/check.hpp>

namespace ipcfs {

void bug(const char* what, const char* file, int line) noexcept {
    std::fprintf(stderr, "ipcfs: bug: %s at %s:%d\n", what, file, line);
    std::abort();
}

}  // namespace ipcfs
