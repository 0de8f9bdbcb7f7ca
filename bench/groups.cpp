// All groups there are.
#include "groups.hpp"

#include <cstdio>

namespace ipcfs::bench {
namespace {

constexpr Group kGroups[] = {
    {"fuse", "through the mounted tree", run_fuse},
    {"engine", "channels and the registry, without a door", run_engine},
};

}  // namespace

std::span<const Group> groups() {
    return kGroups;
}

void Run::progress(const std::string& what) const {
    std::fprintf(stderr, "ipcfs-bench: %s\n", what.c_str());
}

}  // namespace ipcfs::bench
