// For as long as it lives, programs that ask for them (MADV_HUGEPAGE) get huge pages in shared
// memory, where this process may allow that: the group payload compares ways that all ask. Owned by
// main's first process, which outlives whatever happens to the one that measures, and so always
// puts back what it found.
#pragma once

#include <string>

namespace ipcfs::bench {

class HugePages {
public:
    HugePages();
    HugePages(const HugePages&) = delete;
    HugePages& operator=(const HugePages&) = delete;
    ~HugePages();

    // What is set now; "" where the kernel has no such thing.
    static std::string setting();

private:
    std::string before_;  // empty: nothing to put back
};

}  // namespace ipcfs::bench
