// /sys/kernel/mm/transparent_hugepage/shmem_enabled (Documentation/admin-guide/mm/transhuge.rst).
#include "huge_pages.hpp"

#include <cstdio>
#include <fstream>

namespace ipcfs::bench {
namespace {

constexpr const char* kFile = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";

bool set(const std::string& value) {
    std::ofstream file(kFile);
    file << value;
    return static_cast<bool>(file.flush());
}

}  // namespace

HugePages::HugePages() {
    const std::string is = setting();
    if ((is == "never" || is == "deny") && set("advise")) before_ = is;
    if (is != setting()) {
        std::fprintf(stderr, "ipcfs-bench: %s: advise for this run, then %s again\n", kFile,
                     is.c_str());
    }
}

HugePages::~HugePages() {
    if (!before_.empty() && !set(before_)) {
        std::fprintf(stderr, "ipcfs-bench: %s cannot be set back to %s\n", kFile, before_.c_str());
    }
}

std::string HugePages::setting() {
    std::ifstream file(kFile);
    for (std::string word; file >> word;) {
        if (word.front() == '[') return word.substr(1, word.size() - 2);
    }
    return "";
}

}  // namespace ipcfs::bench
